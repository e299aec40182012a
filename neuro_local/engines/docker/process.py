"""A process in a container, seen through its stream."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, Awaitable, Callable, List

from ..base import Chunk, Process, Size
from .stream import Stream

END_OF_FILE = b"\x04"  # what Ctrl-D sends

Resize = Callable[[Size], Awaitable[bool]]


class DockerProcess(Process):
    """`exit_code` is set once the process has ended; `resize` sets the size of its terminal."""

    def __init__(
        self, stream: Stream, exit_code: "asyncio.Future[int]", *, tty: bool, resize: Resize
    ) -> None:
        self._stream = stream
        self._exit_code = exit_code
        self._tty = tty
        self._resize = resize

    async def output(self) -> AsyncIterator[Chunk]:
        try:
            async for chunk in self._stream.chunks():
                yield chunk
        finally:
            self._stream.close()

    async def write(self, data: bytes) -> None:
        if self._exit_code.done():
            return
        # A full pipe that nobody empties any more would hold the writer for ever.
        writing = asyncio.ensure_future(self._stream.write(data))
        try:
            either: List[asyncio.Future[Any]] = [writing, self._exit_code]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writing.cancel()

    async def close_stdin(self) -> None:
        if self._tty:
            await self.write(END_OF_FILE)
        else:
            self._stream.end_input()

    async def resize(self, size: Size) -> None:
        if self._tty and not self._exit_code.done():
            await self._resize(size)

    async def wait(self) -> int:
        return await asyncio.shield(self._exit_code)
