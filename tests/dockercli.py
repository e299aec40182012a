"""A Docker engine as its own command sees it."""

from __future__ import annotations

import os
import subprocess
from typing import List


class Docker:
    """The command `docker` for the engine at that address."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._prefixes: List[str] = []

    def __call__(self, *words: str, data: bytes = b"") -> str:
        return self.read(*words, data=data).decode().strip()

    def read(self, *words: str, data: bytes = b"") -> bytes:
        """Return what a command prints that reads the data; the test fails if it does."""
        environ = {**os.environ, "DOCKER_HOST": self.host}
        done = subprocess.run(["docker", *words], input=data, capture_output=True, env=environ)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    @property
    def reaches_loopback(self) -> bool:
        """Whether its 127.0.0.1, where it pushes to, is this machine's."""
        told = self("info", "--format={{.KernelVersion}} {{.SecurityOptions}}")
        kernel, security = told.split(" ", 1)
        return kernel == os.uname().release and "rootless" not in security

    def has(self, image: str) -> bool:
        return bool(self("image", "ls", "--quiet", image))

    def image(self) -> str:
        """Return a name of the test's own for an image."""
        self.forget_later(f"t{os.urandom(6).hex()}/base")
        return self._prefixes[-1]

    def forget_later(self, prefix: str) -> None:
        """Remove the images whose names begin like this, in the end."""
        self._prefixes.append(prefix)

    def forget(self) -> None:
        for name in self("image", "ls", "--format={{.Repository}}:{{.Tag}}").split():
            if name.startswith(tuple(self._prefixes)) and "<none>" not in name:
                self("image", "rm", "--force", name)
