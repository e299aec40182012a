"""HTTP and WebSockets byte by byte, past every client library that would tidy things up."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, List, Mapping, Optional

# Of RFC 6455, section 5.2.
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

DEADLINE = 20.0


@dataclass(frozen=True)
class Answer:
    """What the server answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    def json(self) -> Any:
        assert self.kind.endswith("json"), self
        return json.loads(self.body)


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes


class Wire:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Answer:
        """Read an answer up to its body."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE)
        status, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        return Answer(int(status.split()[1]), headers, b"")

    async def answer(self) -> Answer:
        """Read an answer whose length is told."""
        head = await self.head()
        length = int(head.headers.get("content-length", 0))
        body = await asyncio.wait_for(self.reader.readexactly(length), DEADLINE)
        return Answer(head.status, head.headers, body)

    async def rest(self) -> bytes:
        """Read until the server hangs up."""
        return await asyncio.wait_for(self.reader.read(), DEADLINE)

    def cut(self) -> None:
        """Hang up at once, without a word."""
        self.writer.transport.abort()


class RawSocket:
    """A WebSocket whose frames are seen as they are: not masked, not compressed, in one piece."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def send(self, payload: bytes, opcode: int = BINARY) -> None:
        size = len(payload)
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 2**16:
            length = bytes([0x80 | 126]) + struct.pack(">H", size)
        else:
            length = bytes([0x80 | 127]) + struct.pack(">Q", size)
        # A mask of zeros leaves the payload as it is.
        await self.wire.send(bytes([0x80 | opcode]) + length + bytes(4) + payload)

    async def frame(self) -> Frame:
        return await asyncio.wait_for(self._frame(), DEADLINE)

    async def until_closed(self) -> List[Frame]:
        """Return the frames up to the closing one, and answer that; nothing follows it."""
        frames: List[Frame] = []
        while (frame := await self.frame()).opcode != CLOSE:
            frames.append(frame)
        assert frame.payload == struct.pack(">H", 1000), frame
        await self.send(frame.payload, CLOSE)
        assert await self.wire.rest() == b""
        return frames

    async def hang_up(self) -> None:
        """Close, which the server answers alike."""
        code = struct.pack(">H", 1000)
        await self.send(code, CLOSE)
        while (frame := await self.frame()).opcode != CLOSE:
            pass
        assert frame.payload == code, frame
        assert await self.wire.rest() == b""

    async def payload(self) -> bytes:
        """Return all binary payloads up to the closing frame, as one."""
        frames = await self.until_closed()
        assert {frame.opcode for frame in frames} <= {BINARY}
        return b"".join(frame.payload for frame in frames)

    async def until(self, words: bytes) -> bytes:
        """Read until the payloads of all frames so far hold the words."""
        seen = b""
        while words not in seen:
            frame = await self.frame()
            assert frame.opcode == BINARY, (frame, seen)
            seen += frame.payload
        return seen

    async def _frame(self) -> Frame:
        first, length = await self.wire.reader.readexactly(2)
        assert first & 0x70 == 0, "the frame is compressed"
        assert first & 0x80, "the frame is a piece of one"
        assert length & 0x80 == 0, "the frame is masked"
        if length == 126:
            (length,) = struct.unpack(">H", await self.wire.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self.wire.reader.readexactly(8))
        return Frame(first & 0x0F, await self.wire.reader.readexactly(length))


@dataclass(frozen=True)
class Server:
    """Where the server listens, and the token that it takes."""

    port: int
    token: str

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        try:
            yield Wire(reader, writer)
        finally:
            writer.transport.abort()

    def head(self, method: str, target: str, headers: Optional[Mapping[str, str]] = None) -> bytes:
        """Return a request's head; the target is sent as it is."""
        lines = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.token}"}
        lines.update(headers or {})
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode()

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Optional[Mapping[str, str]] = None,
    ) -> Answer:
        """Ask on a connection of its own, and return the answer with its body."""
        fields = {"Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        return await self.say(self.head(method, target, fields) + body)

    async def say(self, data: bytes) -> Answer:
        """Send bytes and read the answer until the server hangs up."""
        async with self.connected() as wire:
            await wire.send(data)
            head = await wire.head()
            return Answer(head.status, head.headers, await wire.rest())

    @asynccontextmanager
    async def websocket(self, target: str, **headers: str) -> AsyncIterator[RawSocket]:
        """Open a WebSocket, which must be accepted."""
        async with self.connected() as wire:
            await wire.send(self.head("GET", target, {**UPGRADE, **_named(headers)}))
            head = await wire.head()
            if head.status != 101:
                raise AssertionError(f"{target} was refused: {head}")
            yield RawSocket(wire)

    async def refusal(self, target: str, **headers: str) -> Answer:
        """Open a WebSocket, which must be refused."""
        fields = {**UPGRADE, **_named(headers)}
        async with self.connected() as wire:
            await wire.send(self.head("GET", target, fields))
            answer = await wire.answer()
            assert answer.status != 101, f"{target} was accepted"
            return answer


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
}


def _named(headers: Dict[str, str]) -> Dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
