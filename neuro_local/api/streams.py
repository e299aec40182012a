"""Answers that go on: WebSockets between a client and a process, and bodies sent piece by piece."""

from __future__ import annotations

import asyncio
import json
import logging
import operator
from contextlib import asynccontextmanager, suppress
from typing import Any, AsyncIterator, Awaitable, Callable, FrozenSet, Mapping, Optional

from aiohttp import WSCloseCode, WSMsgType, web

from ..engines.base import STDERR, STDOUT, Chunk, Process, Size
from ..errors import InvalidRequest, NeuroLocalError
from .requests import parse_flag

# What the newer client asks for when it attaches.
PROTOCOLS = ("v2.channels.neu.ro",)

# Channels of the newer client's frames, beside those of a process's output.
STDIN, EXIT, RESIZE = 0, 3, 4

# Ctrl-P Ctrl-Q: the older client forwards its detach keys and waits for the server to hang up.
DETACH_KEYS = b"\x10\x11"

# Sides of a terminal that the kernel can keep. Character cells.
CELLS = range(1, 2**16)

# Clients send what they have read in one go, kilobytes; this is a hundred times as much. Bytes.
LONGEST_FRAME = 2**24

# What a client may have sent and the process not yet read. Bytes; then the client has to wait,
# and its pings with it.
UNREAD = 2**20

# How long a process may take to read what a client sent before it hung up. Seconds.
LAST_INPUT = 5.0

# How long a client may be gone before that is noticed where nothing is sent to it. Seconds.
GONE_CHECK = 1.0

logger = logging.getLogger(__name__)

BOTH = frozenset({STDOUT, STDERR})

Send = Callable[[Chunk], Awaitable[None]]
Receive = Callable[[bytes], Awaitable[bool]]


@asynccontextmanager
async def websocket(
    request: web.Request, receive: Optional[Receive] = None
) -> AsyncIterator[web.WebSocketResponse]:
    """Accept a WebSocket, and read it beside the body of the `with`: that answers the client's
    pings, and hands its frames to `receive`. When the client has gone, or `receive` returned
    False, the body is cancelled. In the end the socket is closed, with the handshake that tells
    that the client has read everything. An error of the body only closes it too, with a code for
    that: it is too late for an answer in HTTP."""
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=LONGEST_FRAME)
    await socket.prepare(request)
    body = asyncio.current_task()
    assert body is not None
    reader = asyncio.create_task(read_frames(socket, receive))
    code = WSCloseCode.OK

    def hang_up(_: object) -> None:
        body.cancel()

    reader.add_done_callback(hang_up)
    try:
        yield socket
    except asyncio.CancelledError:
        if not reader.done():  # the server is stopping
            raise
    except ConnectionError:  # the client, or a server in the job, has gone
        pass
    except Exception:
        logger.exception("%s %s", request.method, request.path)
        code = WSCloseCode.INTERNAL_ERROR
    finally:
        reader.remove_done_callback(hang_up)
        reader.cancel()
        await asyncio.wait({reader})
        await socket.close(code=code)


def require_upgrade(request: web.Request) -> None:
    """For handlers that do something before they accept the WebSocket. Raises InvalidRequest."""
    if not web.WebSocketResponse().can_prepare(request):
        raise InvalidRequest("this address only takes WebSockets")


class Inbox:
    """Frames on their way to a process that may not read them yet."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[Optional[bytes]] = asyncio.Queue()  # None ends them
        self._size = 0
        self._room = asyncio.Event()
        self._room.set()

    async def fill(self, socket: web.WebSocketResponse) -> None:
        """Read until the client closes the socket, in which aiohttp answers its pings."""
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await self._room.wait()
                self._frames.put_nowait(message.data)
                self._resize(len(message.data))
        self._frames.put_nowait(None)

    async def empty(self, receive: Receive) -> None:
        """Hand the frames on, until they end or `receive` has seen enough."""
        while (frame := await self._frames.get()) is not None:
            self._resize(-len(frame))
            if not await receive(frame):
                return

    def _resize(self, change: int) -> None:
        self._size += change
        if self._size < UNREAD:
            self._room.set()
        else:
            self._room.clear()


async def read_frames(socket: web.WebSocketResponse, receive: Optional[Receive]) -> None:
    """Hand the client's binary frames to `receive`, or drop them, until it has gone or `receive`
    has returned False. What it sent last has LAST_INPUT seconds to be taken. Its errors are logged
    rather than raised, those of a lost connection not even that."""
    inbox = Inbox()
    filling = asyncio.create_task(inbox.fill(socket))
    emptying = asyncio.create_task(inbox.empty(receive or ignore))
    try:
        await asyncio.wait({filling, emptying}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({emptying}, timeout=LAST_INPUT)
    finally:
        filling.cancel()
        emptying.cancel()
        for error in await asyncio.gather(filling, emptying, return_exceptions=True):
            if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                logger.error("Reading from a client", exc_info=error)


async def ignore(frame: bytes) -> bool:
    """Take a client's frame and do nothing with it; more may follow."""
    return True


@asynccontextmanager
async def streamed(
    request: web.Request, headers: Mapping[str, str]
) -> AsyncIterator[web.StreamResponse]:
    """Begin an answer that is sent while it is made, and end it with the `with`. An error of its
    body breaks the connection off: the status is out, and an answer to the error would stand in
    the middle of this one."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    try:
        yield response
        await response.write_eof()
    except ConnectionError:  # the client has gone
        raise
    except Exception as error:
        if isinstance(error, NeuroLocalError):
            logger.warning("%s %s broken off: %s", request.method, request.path, error)
        else:
            logger.exception("%s %s", request.method, request.path)
        if request.transport is not None:
            request.transport.abort()


@asynccontextmanager
async def until_gone(request: web.Request) -> AsyncIterator[None]:
    """Cancel the body of the `with` when the client has gone, and end it: a body that waits for
    something to send would not notice."""
    body = asyncio.current_task()
    assert body is not None

    async def watch() -> None:
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(GONE_CHECK)
        body.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not watcher.done():  # the server is stopping
            raise
    finally:
        watcher.cancel()


def channels(request: web.Request) -> FrozenSet[int]:
    """Return the channels of output that the newer client asks for. Raises InvalidRequest."""
    streams = {"stdout": STDOUT, "stderr": STDERR}
    wanted = frozenset(
        number for name, number in streams.items() if parse_flag(request.query, name)
    )
    if parse_flag(request.query, "tty") and len(wanted) > 1:
        raise InvalidRequest("a terminal has one output: stdout and stderr exclude each other")
    return wanted


def framed(socket: web.WebSocketResponse, wanted: FrozenSet[int] = BOTH) -> Send:
    """Return what sends output as frames of a channel byte and the bytes."""

    async def send(chunk: Chunk) -> None:
        assert chunk.channel in (STDOUT, STDERR)
        if chunk.data and chunk.channel in wanted:
            await socket.send_bytes(bytes([chunk.channel]) + chunk.data)

    return send


async def relay(process: Process, send: Send) -> None:
    """Send a process's output to its end."""
    async for chunk in process.output():
        await send(chunk)


async def feed(process: Process, frame: bytes) -> None:
    """Take a frame of the newer client: input, or the terminal's size."""
    if frame[:1] == bytes([STDIN]):
        await process.write(frame[1:])
    elif frame[:1] == bytes([RESIZE]):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            size = json.loads(frame[1:])
            await process.resize(_size(size["width"], size["height"]))


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


def size_of(request: web.Request) -> Size:
    """Return the terminal's size in the query's `w` and `h`. Raises InvalidRequest."""
    try:
        return _size(int(request.query["w"]), int(request.query["h"]))
    except (KeyError, ValueError):
        raise InvalidRequest(
            f"the terminal's size needs w and h, whole numbers from {CELLS[0]} to {CELLS[-1]}"
        ) from None


def _size(width: Any, height: Any) -> Size:
    """Raises ValueError or TypeError for what is no size of a terminal."""
    width, height = operator.index(width), operator.index(height)
    if width not in CELLS or height not in CELLS:
        raise ValueError(f"{width}x{height} is not the size of a terminal")
    return Size(width, height)
