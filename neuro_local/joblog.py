"""A job's output on disk: who wrote what and when, readable while it grows.

The file is a sequence of records: a header (time as a double in seconds since the epoch, the
channel as a byte, the payload's length as 32 bits, big-endian), then the payload. A record cut
off by a crash is the end of the file. What a full disk has no room for is left out, and a line in
its place says so as soon as there is room.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import AsyncIterator, BinaryIO, Optional

from .engines.base import STDERR

_HEADER = struct.Struct(">dBI")


@dataclass(frozen=True)
class Record:
    """A piece of output: `time` is in seconds since the epoch, `channel` is STDOUT or STDERR."""

    time: float
    channel: int
    data: bytes


class JobLog:
    """The log of one job; one writer, any number of readers in the same event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Optional[FileIO] = None
        self._changed = asyncio.Event()
        self._gap = b""  # the line for what has been left out and not been told of yet
        self.is_open = False
        self.lost: Optional[str] = None  # why output has been left out, if some has

    def open(self) -> None:
        """Begin to write; readers that follow wait from now on until `close`. Raises OSError."""
        self._file = FileIO(self._path, "a")
        self.is_open = True

    def append(self, channel: int, data: bytes) -> None:
        """Add a piece of output, or leave it out whole: a torn record would garble all later ones,
        and the job must not wait for room."""
        try:
            self._write(channel, self._gap + data)
            self._gap = b""
        except OSError as error:
            self.lost = error.strerror or str(error)
            self._gap = f"[neuro-local lost output of this job here: {self.lost}]\n".encode()
        self._notify()

    def close(self) -> None:
        """End the log: readers come to their end. Repeatable."""
        if self._file is not None:
            if self._gap:
                self.append(STDERR, b"")
            self._file.close()
            self._file = None
        self.is_open = False
        self._notify()

    def discard(self) -> None:
        """Close the log and delete it, as that of a job that is none."""
        self.close()
        self._path.unlink(missing_ok=True)

    async def read(self, *, from_end: bool = False) -> AsyncIterator[Record]:
        """Yield all records, or with `from_end` those to come, until the log is closed."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            if from_end:
                file.seek(0, os.SEEK_END)
            while True:
                # Taken before reading, so that nothing written in between is waited for.
                changed, was_open = self._changed, self.is_open
                while record := _read_record(file):
                    yield record
                if not was_open:
                    if self._gap:  # not on disk: who follows shall know nevertheless
                        yield Record(time.time(), STDERR, self._gap)
                    return
                await changed.wait()

    def _write(self, channel: int, data: bytes) -> None:
        assert self._file is not None
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(_HEADER.pack(time.time(), channel, len(data)) + data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(end)
            raise

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _read_record(file: BinaryIO) -> Optional[Record]:
    start = file.tell()
    header = file.read(_HEADER.size)
    if len(header) == _HEADER.size:
        moment, channel, length = _HEADER.unpack(header)
        data = file.read(length)
        if len(data) == length:
            return Record(moment, channel, data)
    file.seek(start)
    return None


async def as_bytes(
    records: AsyncIterator[Record], *, since: Optional[float] = None, timestamps: bool = False
) -> AsyncIterator[bytes]:
    """Yield the payloads, from `since` (seconds since the epoch) on, each line with the time it
    began at in front if asked for, in the format of Kubernetes' logs (RFC 3339, UTC)."""
    at_line_start = True
    async for record in records:
        if since is not None and record.time < since:
            continue
        if not timestamps:
            yield record.data
            continue
        stamp = _rfc3339(record.time) + b" "
        lines = record.data.splitlines(keepends=True)
        yield b"".join(
            (stamp if index or at_line_start else b"") + line for index, line in enumerate(lines)
        )
        at_line_start = record.data.endswith(b"\n")


def _rfc3339(moment: float) -> bytes:
    seconds, fraction = divmod(moment, 1)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{int(fraction * 1e9):09d}Z".encode()
