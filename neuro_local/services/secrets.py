"""Secrets: named values that jobs get as variables or files, and that stay out of job records.

The rules are the platform's: https://github.com/neuro-inc/platform-secrets, `validators.py`.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Iterable, Sequence

from ..durable import write_whole
from ..errors import InvalidRequest, NotFound, StartFailed, StorageError
from ..models import Identity

# Also the names of the files: neither `.` nor anything that leads out of their folder.
KEY = re.compile(r"(?!\.\Z|\.\.)[a-zA-Z0-9_.-]{1,253}")


class SecretService:
    """Keeps each secret as a file in `folder` that only its owner can read."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._values = folder / "values"
        self._new = folder / "new"
        self._identity = identity

    def keys(self) -> Sequence[str]:
        """Keys of all secrets, sorted."""
        return sorted(path.name for path in self._values.glob("*"))

    def add(self, key: str, value: bytes) -> None:
        """Keep a value, in place of an older one of that key, whole or not at all.

        Raises InvalidRequest, and StorageError when the disk has no room for it.
        """
        path = self._path(key)
        try:
            self._values.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, value, beside=self._new)
        except OSError as error:
            text = f"Secret {key!r} cannot be kept: {error.strerror}."
            raise StorageError(text, error.errno or errno.EIO) from error

    def get(self, key: str) -> bytes:
        """Raises NotFound, or InvalidRequest for what is no key."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"Secret {key!r} not found") from None

    def remove(self, key: str) -> None:
        """A job that has it as a file keeps it. Raises NotFound, InvalidRequest."""
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            raise NotFound(f"Secret {key!r} not found") from None

    def uri_to_key(self, uri: str) -> str:
        """Return the key that a `secret://CLUSTER/[ORG/]PROJECT/KEY` names; the older client leaves
        the organisation out. Raises InvalidRequest."""
        scheme, _, path = uri.partition("://")
        cluster, *parts = path.split("/")
        if parts[:1] == [self._identity.org]:
            del parts[0]
        here = (scheme, cluster, *parts[:-1])
        if here != ("secret", self._identity.cluster, self._identity.project):
            raise InvalidRequest(f"{uri!r} is no secret of this platform; write secret:KEY")
        return self._path(parts[-1]).name

    def require(self, keys: Iterable[str]) -> None:
        """Raises StartFailed, in the platform's words, for a job with secrets that are not here."""
        missing = sorted({key for key in keys if not self._path(key).exists()})
        if missing:
            raise StartFailed(f"Missing secrets: {', '.join(map(repr, missing))}")

    def as_text(self, key: str) -> str:
        """Return the value for an environment variable. Raises NotFound, StartFailed."""
        value = self.get(key)
        try:
            if b"\0" not in value:
                return value.decode()
        except UnicodeDecodeError:
            pass
        raise StartFailed(
            f"Secret {key!r} is no text, as environment variables are: use it as a file"
            f" (--volume secret:{key}:/path)."
        )

    def file(self, key: str) -> Path:
        """Return where a secret lies on disk, for a read-only mount."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise InvalidRequest(
                f"invalid secret key {key!r}: 1 to 253 letters, digits and . _ - and no leading .."
            )
        return self._values / key
