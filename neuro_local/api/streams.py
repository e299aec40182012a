"""WebSockets between a client and a process: frames, input, the terminal's size."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import AsyncIterator, Awaitable, Callable, Optional

from aiohttp import WSMsgType, web

from ..engines.base import STDERR, STDOUT, Chunk, Process, Size
from ..errors import InvalidRequest

# What the newer client asks for when it attaches.
PROTOCOLS = ("v2.channels.neu.ro",)

# Channels of the newer client's frames, beside those of a process's output.
STDIN, EXIT, RESIZE = 0, 3, 4

# Ctrl-P Ctrl-Q: the older client forwards its detach keys and waits for the server to hang up.
DETACH_KEYS = b"\x10\x11"

Send = Callable[[Chunk], Awaitable[None]]
Receive = Callable[[bytes], Awaitable[bool]]


@asynccontextmanager
async def websocket(
    request: web.Request, receive: Optional[Receive] = None
) -> AsyncIterator[web.WebSocketResponse]:
    """Accept a WebSocket, and read it beside the body of the `with`: that answers the client's
    pings, and hands its frames to `receive`. When the client has gone, or `receive` returned
    False, the body is cancelled. In the end the socket is closed, with the handshake that tells
    that the client has read everything."""
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
    await socket.prepare(request)
    body = asyncio.current_task()
    assert body is not None
    reader = asyncio.create_task(read_frames(socket, receive))

    def hang_up(_: object) -> None:
        body.cancel()

    reader.add_done_callback(hang_up)
    try:
        yield socket
    except asyncio.CancelledError:
        if not reader.done():  # the server is stopping
            raise
    finally:
        reader.remove_done_callback(hang_up)
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        await socket.close()


async def read_frames(socket: web.WebSocketResponse, receive: Optional[Receive]) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY and receive is not None:
            if not await receive(message.data):
                return


def framed(socket: web.WebSocketResponse) -> Send:
    """Return what sends output as frames of a channel byte and the bytes."""

    async def send(chunk: Chunk) -> None:
        assert chunk.channel in (STDOUT, STDERR)
        if chunk.data:
            await socket.send_bytes(bytes([chunk.channel]) + chunk.data)

    return send


async def relay(process: Process, send: Send) -> None:
    async for chunk in process.output():
        await send(chunk)


async def feed(process: Process, frame: bytes) -> None:
    """Take a frame of the newer client: input, or the terminal's size."""
    if frame[:1] == bytes([STDIN]):
        await process.write(frame[1:])
    elif frame[:1] == bytes([RESIZE]):
        with suppress(ValueError, KeyError, TypeError):
            size = json.loads(frame[1:])
            await process.resize(Size(int(size["width"]), int(size["height"])))


def legacy_input(process: Optional[Process], *, detachable: bool = True) -> Receive:
    """Return what takes the older client's frames, which are bare input."""
    tail = b""

    async def receive(frame: bytes) -> bool:
        nonlocal tail
        tail = (tail + frame)[-len(frame) - 1 :]
        if detachable and DETACH_KEYS in tail:
            return False
        if process is not None and frame:
            await process.write(frame)
        return True

    return receive


def flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


def size_of(request: web.Request) -> Size:
    try:
        return Size(int(request.query["w"]), int(request.query["h"]))
    except (KeyError, ValueError):
        raise InvalidRequest("the terminal's size needs w and h, whole numbers") from None
