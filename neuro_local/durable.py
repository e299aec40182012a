"""What must be on disk whole or not at all, also when the power goes a moment later."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Optional, Union

_LIBC = ctypes.CDLL(None, use_errno=True)


def write_whole(path: Path, content: Union[str, bytes], *, beside: Optional[Path] = None) -> None:
    """Write a file that only its owner can read, so that it is there whole or not at all.

    It is written under the name `beside`, on the same file system, where PATH.new may be taken.
    Raises OSError, and then leaves what was there before.
    """
    temporary = beside or path.with_name(path.name + ".new")
    data = content.encode() if isinstance(content, str) else content
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    _sync(path.parent)


def move_whole(tree: Path, target: Path) -> None:
    """Give a tree its final name, once all of it is on disk. Raises OSError.

    A file system may write a new name long before the content under it; then a power cut would
    leave a tree that looks whole and is not.
    """
    _sync_file_system(tree)
    tree.rename(target)
    _sync(target.parent)


def _sync_file_system(folder: Path) -> None:
    # One call for the whole file system, not one for each of an environment's 40,000 files:
    # measured on ext4 with 3,000 of them, 0.02 s against 2.7 s.
    if not sys.platform.startswith("linux"):  # only Linux can sync one file system alone
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Put a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
