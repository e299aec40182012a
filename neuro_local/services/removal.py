"""Removes trees that others may be writing to."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Generator, Iterator, List, Tuple

from ..errors import NotFound
from .descriptors import step
from .paths import StoragePath, refusals


@dataclass(frozen=True)
class Removed:
    """What has been removed; `path` leads there from the root, spelled as the client does."""

    path: str
    is_dir: bool


def remove_tree(
    parent: int, top: StoragePath, *, keep: Tuple[str, ...]
) -> Generator[Removed, None, None]:
    """Remove what is there, and yield each entry once it is gone; of the folder `keep` only what is
    in it. Depth first, with a stack of our own: a tree may be deeper than Python's."""
    stack = _unlink_or_enter(parent, top)
    if not stack:
        yield Removed(top.shown, is_dir=False)
    try:
        while stack:
            folder = stack[-1]
            for name in folder.names:
                child = folder.where / name
                with suppress(NotFound):  # a running job may have been quicker
                    entered = _unlink_or_enter(folder.descriptor, child)
                    stack += entered
                    if entered:
                        break
                    yield Removed(child.shown, is_dir=False)
            else:
                os.close(stack.pop().descriptor)
                if folder.where.parts != keep:
                    _remove_folder(stack[-1].descriptor if stack else parent, folder.where)
                    yield Removed(folder.where.shown, is_dir=True)
    finally:
        for folder in stack:
            os.close(folder.descriptor)


@dataclass(frozen=True)
class _Entered:
    """A folder whose entries are being removed; `names` are those still there."""

    where: StoragePath
    descriptor: int
    names: Iterator[str]


def _unlink_or_enter(parent: int, where: StoragePath) -> List[_Entered]:
    """Remove what is no folder; return the folder, opened, if it is one."""
    with refusals(where):
        mode = os.stat(where.name, dir_fd=parent, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            os.unlink(where.name, dir_fd=parent)
            return []
        folder = step(parent, where.name)
        try:
            return [_Entered(where, folder, iter(os.listdir(folder)))]
        except BaseException:
            os.close(folder)
            raise


def _remove_folder(parent: int, where: StoragePath) -> None:
    with refusals(where), suppress(FileNotFoundError):
        os.rmdir(where.name, dir_fd=parent)
