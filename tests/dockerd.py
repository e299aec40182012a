"""The Docker engine that tests use.

For root that is one of the tests' own, with its socket, data and network beside any other's. All
test runs of this user share it: who needs it first starts it, who leaves it last stops it. They are
counted by a file lock, which the kernel takes back from those that were killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Callable, Iterator, List

import bridge
from bridge import Bridge
from calling import PATH, CommandFailed, attempt, call
from locking import locked

from neuro_local.engines.docker.client import find
from neuro_local.errors import EngineUnavailable

# How long it may take to answer, and to go. Seconds.
START = 60.0
STOP = 20.0


class Unavailable(Exception):
    """One line that says why there is no engine."""


def cache() -> Path:
    """Where the engine's data and images are kept from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "neuro-local-tests", "docker")


@contextmanager
def used(keep: Callable[[str], bool]) -> Iterator[str]:
    """The address of an engine, as in DOCKER_HOST; NEURO_TEST_DOCKER_HOST names another one than
    the tests' own, which forgets all images but those that `keep` is true of. Raises Unavailable.
    """
    if not shutil.which("docker"):
        raise Unavailable("docker is not installed; `make test` does that on Debian, for root")
    named = os.environ.get("NEURO_TEST_DOCKER_HOST")
    if named:
        yield named
    elif os.geteuid() == 0 and shutil.which("dockerd", path=PATH):
        with Dockerd(cache(), keep).used() as host:
            yield host
    else:
        try:
            yield f"unix://{find(os.environ)}"
        except EngineUnavailable as error:
            raise Unavailable(str(error)) from None


class Dockerd:
    """The engine whose data is in this folder."""

    def __init__(self, folder: Path, keep: Callable[[str], bool]) -> None:
        self.folder = folder
        self._keep = keep
        self.host = f"unix://{folder}/docker.sock"
        self._bridge = folder / "bridge"
        self._log = folder / "dockerd.log"

    @contextmanager
    def used(self) -> Iterator[str]:
        """Its address, as long as somebody uses it. Raises Unavailable."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "users", "a") as users:
            with locked(self.folder / "lock"):
                if _is_alone(users):
                    self.stop()  # whose users were killed
                if not self._answers:
                    self._start()
                fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield self.host
            finally:
                with locked(self.folder / "lock"):
                    if _is_alone(users):
                        self.stop()

    def stop(self) -> None:
        """Stop it and all of its containers, in whatever state it is."""
        with suppress(CommandFailed):  # what is left then goes next time
            if self._answers:
                self._clear()
        for number in signal.SIGTERM, signal.SIGKILL:
            for pid in self._processes():
                os.kill(pid, number)
            deadline = time.monotonic() + STOP
            while self._processes() and time.monotonic() < deadline:
                time.sleep(0.1)
        if os.path.ismount(self.folder / "data"):  # it was killed
            attempt("umount", f"{self.folder}/data")
        if self._bridge.exists():
            Bridge(int(self._bridge.read_text())).remove()
            self._bridge.unlink()

    def _clear(self) -> None:
        """Remove what tests have left behind, were they killed or not."""
        containers = self._docker("ps", "--all", "--quiet").split()
        images = self._docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").split()
        others = [image for image in images if not self._keep(image) and "<none>" not in image]
        if containers:
            self._docker("rm", "--force", "--volumes", *containers)
        if others:
            self._docker("image", "rm", "--force", *others)
        self._docker("image", "prune", "--force")  # those without a name

    def _start(self) -> None:
        self.stop()
        try:
            network = bridge.make_free()
            self._bridge.write_text(str(network.number))
            self._run(self._command(network))
        except CommandFailed as error:
            raise Unavailable(f"The tests' Docker engine has no network: {error}") from None

    def _command(self, network: Bridge) -> List[str]:
        (self.folder / "daemon.json").write_text("{}")  # in place of this machine's
        return [
            "dockerd",
            f"--config-file={self.folder}/daemon.json",
            f"--host={self.host}",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            f"--bridge={network.name}",
            f"--mtu={bridge.mtu()}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-masq=false",
        ]

    def _run(self, command: List[str]) -> None:
        # A stale number may be another process's by now, and dockerd would not start.
        (self.folder / "pid").unlink(missing_ok=True)
        with open(self._log, "w") as log:
            environ = {**os.environ, "PATH": PATH}
            started = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt of the tests is not for it
            )
        deadline = time.monotonic() + START
        while not self._answers:
            if started.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = self._log.read_text().strip().splitlines() or ["it said nothing"]
                raise Unavailable(f"The tests' Docker engine does not start: {said[-1]}")
            time.sleep(0.1)

    @property
    def _answers(self) -> bool:
        return attempt("docker", "--host", self.host, "version")

    def _docker(self, *words: str) -> str:
        return call("docker", "--host", self.host, *words)

    def _processes(self) -> List[int]:
        """Return those of this engine itself; not its containerd, which goes with it."""
        ours = f"--host={self.host}".encode()
        return [pid for pid in _pids() if ours in _words(pid)]


def _is_alone(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _pids() -> List[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]


def _words(pid: int) -> List[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # gone
        return []
