"""Files and folders by name below an open folder. No symbolic link is ever followed."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import FileIO

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
LINK_REFUSED = "Symbolic links are not followed"

# Without O_NONBLOCK, opening a named pipe that a job has made would wait for ever.
_FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK


def make_folder(parent: int, name: str) -> None:
    """Make a folder in the open folder `parent`, unless there is something of that name. Raises
    OSError."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)


def step(folder: int, name: str) -> int:
    """Open a folder in an open one and return its descriptor, for the caller to close. Raises
    OSError; for a link NotADirectoryError, which says that links are not followed."""
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except OSError as error:
        # Linux reports a link as ENOTDIR, macOS as ELOOP.
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(folder, name):
            raise NotADirectoryError(errno.ENOTDIR, LINK_REFUSED) from None
        raise


def _is_link(folder: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def open_file(folder: int, name: str, mode: str) -> FileIO:
    """As `FileIO`, but "w" leaves what the file holds: its writer cuts it when it has written."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_TRUNC | _FILE_FLAGS, 0o666, dir_fd=folder)

    try:
        file = FileIO(name, mode, opener=opener)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, LINK_REFUSED) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file")
    return file
