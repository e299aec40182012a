"""A process in a sandbox, seen through its pipes or its terminal."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from typing import Any, AsyncIterator, Dict, List, Optional, Sequence

from ..base import STDERR, STDOUT, Chunk, Process, Size

END_OF_FILE = b"\x04"  # what Ctrl-D sends
BLOCK = 65536


class SandboxProcess(Process):
    """Made before the process that it stands for: `open_pipes` comes first, unless that has a
    terminal, and `started` last."""

    def __init__(self) -> None:
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._stdin: Optional[int] = None
        self._terminal: Optional[int] = None
        self._outputs: Dict[int, int] = {}  # descriptor: channel
        self._read = False
        self._writing = asyncio.Lock()

    def open_pipes(self) -> List[int]:
        """Make three pipes and return the process's ends, for the caller to pass on and close."""
        (stdin, self._stdin), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
        self._outputs = {out: STDOUT, err: STDERR}
        for ours in (self._stdin, out, err):
            os.set_blocking(ours, False)
        return [stdin, stdout, stderr]

    def started(self, exit_code: asyncio.Future[int], terminal: Sequence[int]) -> None:
        """Take the exit code to come, and our end of the terminal when there is one."""
        self._exit_code = exit_code
        for master in terminal:
            os.set_blocking(master, False)
            self._terminal, self._stdin = master, os.dup(master)
            self._outputs = {master: STDOUT}

    async def output(self) -> AsyncIterator[Chunk]:
        self._read = True
        try:
            while self._outputs:
                for descriptor in await _readable(list(self._outputs)):
                    data = _read(descriptor)
                    if data:
                        yield Chunk(self._outputs[descriptor], data)
                    elif data is not None:
                        self._close_output(descriptor)
        finally:
            for descriptor in list(self._outputs):
                self._close_output(descriptor)

    async def write(self, data: bytes) -> None:
        async with self._writing:
            while data and self._stdin is not None:
                try:
                    data = data[os.write(self._stdin, data) :]
                except BlockingIOError:
                    await self._writable(self._stdin)
                except OSError:
                    self._close_stdin()

    async def close_stdin(self) -> None:
        if self._terminal is not None:
            await self.write(END_OF_FILE)
            return
        async with self._writing:
            self._close_stdin()

    async def resize(self, size: Size) -> None:
        if self._terminal is not None:
            packed = struct.pack("HHHH", size.height, size.width, 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, packed)

    async def wait(self) -> int:
        return await asyncio.shield(self._exit_code)

    @property
    def is_over(self) -> bool:
        """Whether it has ended and all that it said was read."""
        return self._exit_code.done() and not self._outputs

    def close(self) -> None:
        """Let go of the streams; one who still reads the output reads on to its end."""
        self._close_stdin()
        if not self._read:
            for descriptor in list(self._outputs):
                self._close_output(descriptor)

    async def _writable(self, descriptor: int) -> None:
        """Wait until there is room, or the process is gone and nothing will ever make any."""
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(descriptor, room.set)
        waiting = asyncio.ensure_future(room.wait())
        either: List[asyncio.Future[Any]] = [waiting, self._exit_code]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(descriptor)
            waiting.cancel()
        if self._exit_code.done():
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            asyncio.get_running_loop().remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None

    def _close_output(self, descriptor: int) -> None:
        if descriptor == self._terminal:
            self._terminal = None
        del self._outputs[descriptor]
        os.close(descriptor)


async def _readable(descriptors: List[int]) -> List[int]:
    loop = asyncio.get_running_loop()
    some = loop.create_future()
    ready: List[int] = []

    def wake(descriptor: int) -> None:
        ready.append(descriptor)
        if not some.done():
            some.set_result(None)

    for descriptor in descriptors:
        loop.add_reader(descriptor, wake, descriptor)
    try:
        await some
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)
    return ready


def _read(descriptor: int) -> Optional[bytes]:
    """Return what there is, b"" at the end, None when it was a false alarm."""
    try:
        return os.read(descriptor, BLOCK)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # how a terminal says that nobody holds it any more
            return b""
        raise
