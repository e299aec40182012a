"""Small disks of the tests' own: one to be filled, one whose power can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from e2e.platform import is_root
from machine import impossible

MIB = 2**20


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of this size, in memory, on the folder."""
    folder.mkdir(parents=True)
    with mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield folder


@contextmanager
def mounted(folder: Path, *what: str) -> Iterator[None]:
    if not is_root():
        impossible("only root can mount a disk of its own")
    done = subprocess.run(["mount", *what, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        impossible(f"this machine lets nobody mount a disk: {done.stderr.strip()}")
    try:
        yield
    finally:
        # What a killed server has left may hold it for a moment longer.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Filler:
    """Takes all the room that is left on a disk, and gives it back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "filler"

    def fill(self) -> None:
        """Return once the disk is full and stays so: what ended before may still be going."""
        while self._take():
            time.sleep(0.3)

    def _take(self) -> int:
        """Take what room there is; return how many bytes that was."""
        block, taken = bytes(65536), 0
        with self._path.open("ab", buffering=0) as file:
            while block:
                try:
                    taken += file.write(block)
                except OSError:
                    block = block[: len(block) // 2]
        return taken

    def free(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


class Disk:
    """A disk in a file. A copy of that file is what would be on it if the power went now: what
    the kernel has not written yet is not in it."""

    def __init__(self, folder: Path, size: int = 512 * MIB) -> None:
        self._file = folder / "disk.img"
        with self._file.open("wb") as file:
            file.truncate(size)
        command = ["mkfs.ext4", "-q", "-m", "0", str(self._file)]
        if shutil.which(command[0]) is None:
            impossible("mkfs.ext4 is not installed")
        subprocess.run(command, check=True)

    def cut(self, copy: Path) -> Path:
        """Return a copy of the disk as it is at this moment."""
        subprocess.run(["cp", "--sparse=always", str(self._file), str(copy)], check=True)
        return copy

    @contextmanager
    def mount(self, folder: Path) -> Iterator[None]:
        with mount_image(self._file, folder):
            yield


@contextmanager
def mount_image(image: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with mounted(folder, "-o", "loop", str(image)):
        yield


def contents(folder: Path) -> dict[str, "bytes | str"]:
    """Return all files and links below a folder, by their names."""
    found: dict[str, "bytes | str"] = {}
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(path, name)
            key = entry.relative_to(folder).as_posix()
            if entry.is_symlink():
                found[key] = os.readlink(entry)
            elif entry.is_file():
                found[key] = entry.read_bytes()
    return found
