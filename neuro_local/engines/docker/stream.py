"""The streams of a container's process: what the Docker Engine API calls a hijacked connection.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach

aiodocker opens them too, but it cannot end the input of a process and go on to read its output.
"""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any, AsyncIterator, Mapping, Optional

from aiodocker.exceptions import DockerError

from ..base import STDERR, STDOUT, Chunk

HEADER = struct.Struct(">BxxxL")
BLOCK = 65536
# The answers that leave the connection to the process.
HIJACKED = (101, 200)


class Stream:
    """Both directions of a process that writes to a terminal, or else on two channels.

    `at_end` is set at the end of its output.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tty: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._tty = tty
        self.at_end = asyncio.Event()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the output to its end, or to the end of the engine."""
        try:
            while True:
                if self._tty:
                    channel, data = STDOUT, await self._reader.read(BLOCK)
                else:
                    channel, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                    data = await self._reader.readexactly(size)
                if not data and self._tty:
                    return
                yield Chunk(STDERR if channel == STDERR else STDOUT, data)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            self.at_end.set()

    async def write(self, data: bytes) -> None:
        """Send input; ignored once nobody takes any."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, RuntimeError):  # the latter: after the end of the input
            pass

    def end_input(self) -> None:
        """Close the input and leave the output open. Repeatable."""
        try:
            self._writer.write_eof()
        except (OSError, RuntimeError):
            pass

    def close(self) -> None:
        """Let go of both directions. Repeatable."""
        self._writer.close()


async def hijack(
    socket: Path, target: str, body: Optional[Mapping[str, Any]] = None, *, tty: bool
) -> Stream:
    """Send a POST to the engine at that socket; return the connection that it becomes.

    Raises DockerError as aiodocker does, OSError without an engine.
    """
    # Nothing for nothing: what Podman does not expect is input to it.
    content = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=BLOCK)
    try:
        writer.write(
            f"POST {target} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        if status not in HIJACKED:
            raise DockerError(status, await _refusal(reader, head))
    except BaseException as error:
        writer.close()
        if isinstance(error, (asyncio.IncompleteReadError, ValueError, IndexError)):
            raise ConnectionResetError("the Docker engine broke off") from error
        raise
    return Stream(reader, writer, tty)


async def _refusal(reader: asyncio.StreamReader, head: str) -> str:
    """Return the message of an answer that is an error."""
    content = await reader.read(BLOCK)  # of a few hundred bytes, which come in one piece
    start, end = content.find(b"{"), content.rfind(b"}") + 1
    try:
        return str(json.loads(content[start:end])["message"])
    except (ValueError, KeyError, TypeError):
        return head.split("\r\n", 1)[0]
