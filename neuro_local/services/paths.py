"""Where something lies on storage, and what is said when the file system refuses it."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, Tuple
from urllib.parse import unquote

from ..errors import InvalidRequest, NotFound, StorageError


@dataclass(frozen=True)
class StoragePath:
    """`shown` is what the client wrote, `parts` lead there from the root."""

    shown: str
    parts: Tuple[str, ...]

    @property
    def parent(self) -> Tuple[str, ...]:
        """The parts of the folder that it is in; of the root, the root's own."""
        return self.parts[:-1]

    @property
    def name(self) -> str:
        return self.parts[-1]

    def __truediv__(self, name: str) -> StoragePath:
        return StoragePath(f"{self.shown.rstrip('/')}/{name}", (*self.parts, name))


def decode_path(raw: str) -> str:
    """Percent-decodes a URL's path; a name with an encoded slash in it is refused."""
    names = [unquote(name, errors="surrogateescape") for name in raw.split("/")]
    for name in names:
        if "/" in name:
            raise InvalidRequest(f"{name!r} cannot be a name in storage: it contains a slash.")
    return "/".join(names)


@contextmanager
def refusals(where: StoragePath) -> Iterator[None]:
    """Turn what the file system says into NotFound and StorageError, which name the path."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{where.shown!r} does not exist in storage.") from error
    except OSError as error:
        code = error.errno or errno.EIO
        raise StorageError(f"{where.shown!r}: {error.strerror or error}.", code) from error
