"""The rules of storage: one folder of this machine that jobs and clients share.

A job may have the folder mounted and can put anything into it, symbolic links to the rest of
the machine included. So every path is walked component by component from the root with
`O_NOFOLLOW`, and no link is ever followed, neither out of the root nor within it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from itertools import dropwhile
from pathlib import Path
from typing import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterator,
    List,
    Tuple,
)

from ..errors import InvalidRequest, NotFound
from .descriptors import FOLDER_FLAGS, LINK_REFUSED, make_folder, open_file, step
from .paths import StoragePath, decode_path, refusals
from .removal import Removed, remove_tree
from .threads import in_batches, in_thread

BYTES_AT_ONCE = 1024 * 1024
# What others may write while a file is replaced.
SPARE_ROOM = 16 * BYTES_AT_ONCE


@dataclass(frozen=True)
class FileStatus:
    """`path` is a bare name in a listing, the full path otherwise."""

    path: str
    is_dir: bool
    size: int
    modified: int


@dataclass(frozen=True)
class DiskUsage:
    """The room on a file system, in bytes. `free` leaves out what is kept for root, so that it and
    `used` may make less than `total`."""

    total: int
    used: int
    free: int


class StoredFile:
    """A file open for reading; `size` is its size when it was opened."""

    def __init__(self, where: StoragePath, file: FileIO) -> None:
        self._where = where
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    async def read(self, span: range) -> AsyncIterator[bytes]:
        """Raises StorageError if the file has become shorter than the span."""
        position = span.start
        while position < span.stop:
            wanted = min(BYTES_AT_ONCE, span.stop - position)
            with refusals(self._where):
                piece = await in_thread(os.pread, self._file.fileno(), wanted, position)
                if not piece:
                    raise OSError(errno.EIO, "The file became shorter while it was read")
            yield piece
            position += len(piece)


class StorageService:
    """Paths are decoded server paths; `/ORG/HOME/foo` and `/HOME/foo` are one file.

    `org` must differ from `home`, or the two spellings could not be told apart.
    """

    def __init__(self, root: Path, *, cluster: str, org: str, home: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._cluster = cluster
        self._org = org
        self._home = home
        with self._open_root():
            pass

    def uri_to_path(self, uri: str) -> str:
        """The same path for both spellings of a folder, so that paths can be compared."""
        scheme, separator, rest = uri.partition("://")
        cluster, _, raw_path = rest.partition("/")
        if not separator or scheme != "storage":
            raise InvalidRequest(
                f"{uri!r} is not a storage URI; write storage://{self._cluster}/..."
            )
        if cluster != self._cluster:
            raise InvalidRequest(
                f"{uri!r} is on the cluster {cluster!r}; only {self._cluster!r} is here."
            )
        return "/" + "/".join(self._parse(decode_path(raw_path)).parts)

    def resolve_for_mount(self, uri_path: str) -> Path:
        """The folder or file on disk for a bind mount; a missing folder is made.

        Touches the disk. The mount itself happens later and by name, so a job that swaps the
        folder for a link in between is beyond what this check can see.
        """
        where = self._parse(uri_path)
        with refusals(where):
            try:
                mode = self._lstat(where).st_mode
            except FileNotFoundError:
                self._make_folders(where)
            else:
                if stat.S_ISLNK(mode):
                    raise OSError(errno.ELOOP, LINK_REFUSED)
                if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                    raise OSError(errno.EINVAL, "Neither a folder nor a regular file")
        return self._root.joinpath(*where.parts)

    async def stat(self, path: str) -> FileStatus:
        """Return the status of what is there, of a link its own. Raises NotFound, StorageError,
        InvalidRequest."""
        where = self._parse(path)
        with refusals(where):
            return _file_status(where.shown, await in_thread(self._lstat, where))

    def list(self, path: str) -> AsyncGenerator[List[FileStatus], None]:
        """Batches of entries in no particular order."""
        return in_batches(self._scan(self._parse(path)))

    @asynccontextmanager
    async def open(self, path: str) -> AsyncIterator[StoredFile]:
        """Open a regular file for as long as the `with` lasts. Raises NotFound, StorageError,
        InvalidRequest."""
        where = self._parse(path)
        with refusals(where):
            file = await in_thread(self._open_file, where, "r")
        try:
            yield StoredFile(where, file)
        finally:
            file.close()

    async def create(self, path: str, pieces: AsyncIterable[bytes]) -> None:
        """Replaces what an existing file held; missing parent folders are made.

        What comes in one block, as all that clients send does, replaces the file or, with no room
        or the connection cut, leaves it as it was.
        """
        where = self._parse(path)
        with refusals(where):
            await in_thread(self._check_place, where)
        rest = aiter(pieces)
        first = await _block(rest)
        with refusals(where):
            file = await in_thread(self._open_file, where, "w", make_parents=True)
        with file:
            with refusals(where):
                await in_thread(_replace, file, first)
            await _fill(where, file, rest)

    async def write(self, path: str, offset: int, pieces: AsyncIterable[bytes]) -> None:
        """Overwrites from `offset` on; what lies behind the last piece stays."""
        where = self._parse(path)
        with refusals(where):
            file = await in_thread(self._open_file, where, "r+")
            file.seek(offset)
        with file:
            await _fill(where, file, pieces)

    async def make_folders(self, path: str) -> None:
        """Make a folder and those above it; one that is there stays. Raises StorageError when
        something else has its name, InvalidRequest."""
        where = self._parse(path)
        with refusals(where):
            await in_thread(self._make_folders, where)

    def remove(self, path: str, *, recursive: bool) -> AsyncGenerator[List[Removed], None]:
        """Batches of what is gone; nothing is removed before they are asked for.

        The root and the home folder are emptied but kept: clients rely on the home folder, and
        running jobs may have it mounted.
        """
        return in_batches(self._remove(self._parse(path), recursive))

    async def rename(self, source: str, destination: str) -> None:
        """A file in the way is replaced, as is an empty folder by a folder."""
        old, new = self._parse(source), self._parse(destination)
        with refusals(old):
            await in_thread(self._rename, old, new)

    async def disk_usage(self, path: str) -> DiskUsage:
        """Return the usage of the file system that holds the path, which must exist. Raises
        NotFound, StorageError, InvalidRequest."""
        where = self._parse(path)
        with refusals(where):
            return await in_thread(self._disk_usage, where)

    def _parse(self, path: str) -> StoragePath:
        names = [name for name in path.split("/") if name]
        for name in names:
            if name in (".", "..") or "\0" in name:
                raise InvalidRequest(f"{path!r} cannot be a storage path because of {name!r}.")
        # All of them: the newer client sends storage:/ORG/x as /ORG/ORG/x, the older as /ORG/x.
        parts = tuple(dropwhile(lambda name: name == self._org, names))
        return StoragePath("/" + "/".join(names), parts)

    @contextmanager
    def _open_root(self) -> Iterator[int]:
        """The root with the home folder in it, even if a job or a user has just deleted them."""
        self._root.mkdir(parents=True, exist_ok=True)
        root = os.open(self._root, FOLDER_FLAGS)
        try:
            make_folder(root, self._home)
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _open_folder(self, parts: Tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        with self._open_root() as root:
            folder = os.dup(root)
            try:
                for name in parts:
                    if make:
                        make_folder(folder, name)
                    deeper = step(folder, name)
                    os.close(folder)
                    folder = deeper
                yield folder
            finally:
                os.close(folder)

    def _check_place(self, where: StoragePath) -> None:
        """Refuse at once what cannot be a file, rather than after its first block."""
        with suppress(FileNotFoundError):
            self._open_file(where, "r+").close()

    def _open_file(self, where: StoragePath, mode: str, *, make_parents: bool = False) -> FileIO:
        if not where.parts:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with self._open_folder(where.parent, make=make_parents) as parent:
            return open_file(parent, where.name, mode)

    def _lstat(self, where: StoragePath) -> os.stat_result:
        with self._open_folder(where.parent) as parent:
            if not where.parts:
                return os.fstat(parent)
            return os.stat(where.name, dir_fd=parent, follow_symlinks=False)

    def _scan(self, where: StoragePath) -> Generator[FileStatus, None, None]:
        with refusals(where), self._open_folder(where.parts) as folder:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        yield _file_status(entry.name, entry.stat(follow_symlinks=False))

    def _make_folders(self, where: StoragePath) -> None:
        with self._open_folder(where.parent, make=True) as parent:
            if where.parts:
                make_folder(parent, where.name)
                mode = os.stat(where.name, dir_fd=parent, follow_symlinks=False).st_mode
                if not stat.S_ISDIR(mode):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _remove(self, where: StoragePath, recursive: bool) -> Generator[Removed, None, None]:
        with refusals(where):
            if not recursive and stat.S_ISDIR(self._lstat(where).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with self._open_folder(where.parent) as parent:
                if where.parts:
                    yield from remove_tree(parent, where, keep=(self._home,))
                    return
                for name in os.listdir(parent):
                    with suppress(NotFound):  # a running job may have been quicker
                        yield from remove_tree(parent, where / name, keep=(self._home,))

    def _rename(self, old: StoragePath, new: StoragePath) -> None:
        if not old.parts or not new.parts:
            raise OSError(errno.EBUSY, "The root of the storage cannot be renamed or replaced")
        with self._open_folder(old.parent) as old_parent:
            with self._open_folder(new.parent) as new_parent:
                os.rename(old.name, new.name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
        with self._open_root():
            pass

    def _disk_usage(self, where: StoragePath) -> DiskUsage:
        self._lstat(where)
        with self._open_folder(where.parent) as parent:
            usage = shutil.disk_usage(parent)
        return DiskUsage(total=usage.total, used=usage.used, free=usage.free)


async def _block(pieces: AsyncIterator[bytes]) -> bytes:
    """Gather pieces to a block, or to their end."""
    block = bytearray()
    async for piece in pieces:
        block += piece
        if len(block) >= BYTES_AT_ONCE:
            break
    return bytes(block)


async def _fill(where: StoragePath, file: FileIO, pieces: AsyncIterable[bytes]) -> None:
    """Writes each piece as it comes, so an interrupted upload leaves what had arrived."""
    async for piece in pieces:
        with refusals(where):
            await in_thread(_write_all, file, piece)


def _replace(file: FileIO, data: bytes) -> None:
    """Give the file this content.

    Emptied first, so that a crash leaves a beginning of the new, which clients continue by its
    size. Only where room is scarce it is written over and then cut: emptied, it would give its room
    to another file, and could not come back.
    """
    if _is_roomy(file, len(data)):
        file.truncate(0)
    else:
        _reserve(file, len(data))
    _write_all(file, data)
    file.truncate()


def _is_roomy(file: FileIO, size: int) -> bool:
    """Whether the disk has room for so many bytes, whatever others write meanwhile."""
    disk = os.fstatvfs(file.fileno())
    return disk.f_bavail * disk.f_frsize > size + SPARE_ROOM


def _reserve(file: FileIO, size: int) -> None:
    """Let the file grow to this size, if it is smaller. Raises OSError and changes nothing when
    there is no room."""
    before = os.fstat(file.fileno()).st_size
    if size <= before or not hasattr(os, "posix_fallocate"):  # macOS has none
        return
    try:
        os.posix_fallocate(file.fileno(), before, size - before)
    except OSError as error:
        file.truncate(before)
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _file_status(path: str, status: os.stat_result) -> FileStatus:
    """A link counts as a file, since the older client fails on a listing with other types.

    Its size is that of its target's name, never zero: clients make an empty file locally
    without asking for it, where a request to open the link names the trouble.
    """
    is_dir = stat.S_ISDIR(status.st_mode)
    size = 0 if is_dir else status.st_size
    return FileStatus(path, is_dir=is_dir, size=size, modified=int(status.st_mtime))
