"""The sandbox's folders: layers, the images made of them, and what each job writes.

    skeleton/           below every job's `/`: empty folders and links
    layers/NAME/ROOT/   what `save` kept; never changed once it has its name
    images/HASH.json    a reference, and the layers it stands for, lowest first
    jobs/NAME/upper/    the layer a job writes to; `work` beside it is the kernel's
    trash/              on its way out

An image's lowest layers are shared ones, which lie elsewhere (shared.py). Everything here blocks:
call it from a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Iterable, List, Optional, Sequence

from ...durable import move_whole, write_whole
from ...errors import SaveFailed
from .python import is_below
from .shared import Shared
from .trash import Trash, delete

MAX_LAYERS = 16
# The kernel takes a mount's options in one page: besides paths only a few words.
MAX_PATHS = 4096 - 128
EMPTY_FOLDERS = ("dev", "home", "mnt", "proc", "project", "root", "run", "srv", "sys", "tmp")
OVERLAID = ("/usr", "/etc", "/var", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


@dataclass(frozen=True)
class Image:
    """A stack of layers, lowest first, the Python its virtual environment stands on,
    and what it runs before a command."""

    reference: str
    layers: Sequence[str]
    python: str
    python_prefix: str
    entrypoint: Sequence[str] = ()


@dataclass(frozen=True)
class JobFolder:
    """One job's own folder."""

    path: Path

    @property
    def upper(self) -> Path:
        """What the job writes, in a folder for each overlaid root."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """The kernel's own, beside `upper` as overlays need it."""
        return self.path / "work"

    @property
    def hosts(self) -> Path:
        """The job's /etc/hosts."""
        return self.path / "hosts"

    @property
    def log(self) -> Path:
        """What bubblewrap and init had to say."""
        return self.path / "log"


class Layers:
    """All layers, saved images and jobs' folders of one engine, in `state` and in `shared`."""

    def __init__(self, state: Path, shared: Shared) -> None:
        self.shared = shared
        self.skeleton = state / "skeleton"
        self._layers = state / "layers"
        self._images = state / "images"
        self._jobs = state / "jobs"
        self._trash = Trash(state / "trash")
        # Folders of this machine that jobs see below their own layers, and "/" above them all.
        self.host_roots = [Path(r) for r in OVERLAID if Path(r).is_dir() and not os.path.islink(r)]

    def prepare(self) -> None:
        """Make the folders, and clear what an earlier life left half-made or unused."""
        if self._jobs.exists():
            self._trash.throw(self._jobs)
        self._trash.empty()
        for folder in (self.skeleton, self._layers, self._images, self._jobs):
            folder.mkdir(parents=True, exist_ok=True)
        for name in EMPTY_FOLDERS:
            (self.skeleton / name).mkdir(exist_ok=True)
        for root in OVERLAID:  # where /usr is merged, /bin and its like are links
            inside = self.skeleton / root[1:]
            if os.path.islink(root) and not os.path.islink(inside):
                inside.symlink_to(os.readlink(root))
        for temporary in self._images.glob("*.new"):
            temporary.unlink()

    def job_folder(self, job_id: str) -> JobFolder:
        """Return a folder for a job, still to be made."""
        return JobFolder(self._jobs / f"{job_id}-{uuid.uuid4().hex[:8]}")

    def make(self, folder: JobFolder, hostname: str) -> None:
        """Make the job's folder: its /etc/hosts, in which `hostname` is loopback, and its part of
        each overlaid root. Raises OSError, also if it is there."""
        folder.path.mkdir(mode=0o700)
        folder.hosts.write_text(f"127.0.0.1 localhost {hostname}\n::1 localhost {hostname}\n")
        for root in [Path("/"), *self.host_roots]:
            upper = slot(folder.upper, root)
            upper.mkdir(parents=True)
            upper.chmod(stat.S_IMODE(root.stat().st_mode))  # what the job sees as the root's own
            slot(folder.work, root).mkdir(parents=True)

    def below(self, root: Path, layers: Sequence[str]) -> List[Path]:
        """Return the folders that make up `root` in a job, lowest first."""
        lowest = self.skeleton if root == Path("/") else root
        stack = [slot(self.path(name), root) for name in layers]
        return [lowest, *(folder for folder in stack if folder.is_dir())]

    def path(self, layer: str) -> Path:
        """Return where a layer lies; one that is not there would be a shared one."""
        own = self._layers / layer
        return own if own.is_dir() else self.shared.path(layer)

    def missing(self, layers: Sequence[str]) -> List[str]:
        """Return those of the layers that are not there, in the same order."""
        return [layer for layer in layers if not self.path(layer).is_dir()]

    def discard(self, folder: JobFolder) -> None:
        """Free an ended job's folder, if it is one of ours. Repeatable."""
        if is_below(folder.path, [self._jobs]) and folder.path.exists():
            self._trash.throw(folder.path)

    def place(self, folder: JobFolder, path: str, program: Path) -> None:
        """Put a program where an ended job would have written it."""
        target = Path(path)
        root = next((root for root in self.host_roots if is_below(target, [root])), Path("/"))
        copy = slot(folder.upper, root) / target.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(program.read_bytes())
        copy.chmod(0o755)

    def save(self, folder: JobFolder, image: Image) -> None:
        """Copy a running job's writes as one more layer on `image`. Raises SaveFailed."""
        layer = uuid.uuid4().hex[:8]
        if self._is_too_high([*map(self.path, image.layers), self._layers / layer]):
            raise SaveFailed(
                f"Cannot save {image.reference!r}: it would stack too many saved images on each"
                " other. Start over from a job on the plain image."
            )
        copy = folder.path / f"{layer}.new"
        try:
            _copy(folder.upper, copy)
            move_whole(copy, self._layers / layer)
            self._write(replace(image, layers=[*image.layers, layer]))
        except OSError as error:
            raise SaveFailed(f"The image could not be kept: {error}.") from error
        finally:
            if copy.exists():
                delete(copy)

    def find(self, reference: str) -> Optional[Image]:
        """Return the image saved as that reference, None without one. Its layers may be missing."""
        try:
            return Image(**json.loads(self._record(reference).read_text()))
        except FileNotFoundError:
            return None

    def images(self) -> List[Image]:
        """Return all saved images, sorted by reference."""
        found = [Image(**json.loads(record.read_text())) for record in self._images.glob("*.json")]
        return sorted(found, key=lambda image: image.reference)

    def collect(self, in_use: Iterable[str]) -> None:
        """Delete the layers that neither an image nor anything in `in_use` stands on."""
        wanted = set(in_use).union(*(image.layers for image in self.images()))
        for layer in self._layers.iterdir():
            if layer.name not in wanted:
                self._trash.throw(layer)

    def _write(self, image: Image) -> None:
        write_whole(self._record(image.reference), json.dumps(asdict(image)))

    def _is_too_high(self, layers: Sequence[Path]) -> bool:
        """Whether a job on these layers could not be mounted any more."""
        root, job = Path("/"), self.job_folder(f"job-{uuid.uuid4()}")
        paths = [slot(job.upper, root), slot(job.work, root), self.skeleton]
        paths += [slot(layer, root) for layer in layers]
        # Bubblewrap names them as it sees them while it mounts; colons or commas lie between.
        length = sum(len(os.fsencode(f"/oldroot{path}:")) for path in paths)
        return len(layers) > MAX_LAYERS or length > MAX_PATHS

    def _record(self, reference: str) -> Path:
        return self._images / (hashlib.sha256(reference.encode()).hexdigest()[:32] + ".json")


def slot(layer: Path, root: Path) -> Path:
    """Where in a layer the part of one overlaid root lies."""
    return layer / (root.name or "rootfs")


def _copy(source: Path, target: Path) -> None:
    """Copy with links, owners and the overlay's marks of what was deleted or replaced."""
    command = ["cp", "-a", "--reflink=auto", "--", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, env={"LC_ALL": "C"})
    # The job goes on running: what it deletes while we copy is no part of the image.
    gone = "No such file or directory"
    problems = [line for line in done.stderr.splitlines() if not line.endswith(gone)]
    if problems or not target.exists():
        raise SaveFailed(f"The job's files could not be copied: {' '.join(problems[:3])}.")
