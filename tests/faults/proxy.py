"""A proxy between a client and neuro-local that breaks what passes, where and how a test says.

It reads HTTP only as far as it must to know where one exchange ends and the next begins, so a
fault can strike at any byte of it, in the middle of a header or of a WebSocket frame too.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Coroutine, Dict, List, Optional, TypeVar

T = TypeVar("T")
BLOCK = 65536
HEAD_LIMIT = 2**20

# What a token of a login that has ended looks like; the server itself shall refuse it.
EXPIRED = b"eyJhbGciOiJIUzI1NiJ9.eyJpZGVudGl0eSI6InVzZXIifQ.ZXhwaXJlZA"
REASONS = {502: "Bad Gateway", 503: "Service Unavailable"}


@dataclass
class Fault:
    """What happens to the next exchanges whose `METHOD /path?query` has the pattern in it.

    `after` bytes of such an exchange pass, of both directions and with the heads; then it stalls
    for `stall` seconds, `then` is called, and the connection is reset. With a `status` the request
    is answered with it in place of the server. With `expired` it arrives with a token that is no
    longer good, and so does whatever comes after it, until the fault is mended.
    """

    pattern: str
    after: int = 0
    status: Optional[int] = None
    expired: bool = False
    stall: float = 0.0
    then: Optional[Callable[[], object]] = None
    times: int = 1
    struck: int = 0

    def fits(self, line: str) -> bool:
        if self.expired and self.struck:
            return True
        return self.struck < self.times and re.search(self.pattern, line) is not None


class _Strike(Exception):
    """The bytes that may pass have passed."""


class Proxy:
    """Listens on a loopback port of its own, in a thread of its own, from `start` to `stop`."""

    def __init__(self, target: int) -> None:
        self.faults: List[Fault] = []
        self.seen: List[str] = []
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Optional[asyncio.base_events.Server] = None
        self.port = 0

    def start(self) -> Proxy:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", limit=HEAD_LIMIT))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: Optional[asyncio.StreamWriter] = None
        try:
            there, upstream = await asyncio.open_connection(
                "127.0.0.1", self._target, limit=HEAD_LIMIT
            )
            while await self._exchange(_Stream(reader, writer), _Stream(there, upstream)):
                pass
        except (OSError, EOFError, _Strike):
            reset(writer)
        finally:
            for each in filter(None, (writer, upstream)):
                each.close()

    async def _exchange(self, client: _Stream, server: _Stream) -> bool:
        """Pass one request and its answer; return whether the connection can take another."""
        head = await client.head()
        if not head:
            return False
        line = f"{head.words[0]} {head.words[1]}"
        self.seen.append(line)
        fault = next((fault for fault in self.faults if fault.fits(line)), None)
        if fault is None:
            return await self._pass(head, client, server)
        fault.struck += 1
        if fault.expired:
            if head.get("Authorization"):  # else it is what anybody may ask
                head.set("Authorization", f"Bearer {EXPIRED.decode()}")
            return await self._pass(head, client, server)
        if fault.status is not None:
            return await _refuse(head, client, fault.status)
        # It strikes only when the bytes have passed: an exchange that is shorter is none it meets.
        fault.struck -= 1
        client.left = server.left = _Left(fault.after)
        try:
            again = await self._pass(head, client, server)
        except _Strike:
            fault.struck += 1
            await asyncio.sleep(fault.stall)
            if fault.then is not None:
                await asyncio.to_thread(fault.then)
            raise
        return again

    async def _pass(self, head: _Head, client: _Stream, server: _Stream) -> bool:
        await server.write(head.raw)
        sending = asyncio.ensure_future(_pass_body(head, client, server))
        try:
            answer = await _first(server.head(), sending)
            if answer is None:
                raise EOFError("the server has hung up")
            if answer.words[1] == "101":
                await client.write(answer.raw)
                await _both_ways(client, server)
                return False
            if head.words[1].partition("?")[0].endswith("/config"):
                await client.write(await self._own_addresses(answer, server))
            else:
                await client.write(answer.raw)
                if not (head.words[0] == "HEAD" or answer.words[1] in ("204", "304")):
                    if not await _first(_pass_body(answer, server, client, to_end=True), sending):
                        return False
            await sending
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await sending
        return answer.get("Connection").lower() != "close"

    async def _own_addresses(self, answer: _Head, server: _Stream) -> bytes:
        """Return the answer with our address in place of the server's.

        Only the registry's stays: to the clients it is the first word of an image's name.
        """
        body = json.loads(await server.exactly(int(answer.get("Content-Length"))))
        told = json.dumps(body).replace(f"http://127.0.0.1:{self._target}", self.url)
        changed: Dict[str, Any] = json.loads(told)
        for cluster, original in zip(changed.get("clusters", ()), body.get("clusters", ())):
            cluster["registry_url"] = original["registry_url"]
        content = json.dumps(changed).encode()
        answer.set("Content-Length", str(len(content)))
        return answer.raw + content


class _Left:
    """How many bytes of an exchange may still pass."""

    def __init__(self, count: int) -> None:
        self.bytes = count


class _Head:
    """The first line of a request or an answer, and its headers."""

    def __init__(self, raw: bytes) -> None:
        first, *self._headers = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self._first = first
        self.words = first.split(" ")

    @property
    def raw(self) -> bytes:
        return "\r\n".join([self._first, *self._headers, "", ""]).encode("latin-1")

    def get(self, name: str) -> str:
        pairs = (header.partition(":") for header in self._headers)
        return next((value.strip() for key, _, value in pairs if key.lower() == name.lower()), "")

    def set(self, name: str, value: str) -> None:
        others = [header for header in self._headers if not _is(header, name)]
        self._headers = [*others, f"{name}: {value}"]


def _is(header: str, name: str) -> bool:
    return header.lower().startswith(f"{name.lower()}:")


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.left: Optional[_Left] = None  # of the present exchange, if a fault is due in it

    async def head(self) -> Optional[_Head]:
        """Return the next head, None at the end."""
        try:
            return _Head(await self._reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None

    async def some(self) -> bytes:
        return await self._reader.read(BLOCK)

    async def line(self) -> bytes:
        return await self._reader.readuntil(b"\n")

    async def exactly(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    async def write(self, data: bytes) -> None:
        left = self.left
        if left is not None:
            data = data[: left.bytes]
            left.bytes -= len(data)
        self._writer.write(data)
        await self._writer.drain()
        if left is not None and left.bytes == 0:
            raise _Strike


async def _first(wanted: Awaitable[Any], beside: Awaitable[Any]) -> Any:
    """Wait for `wanted`; an error of what goes on beside it counts as its own."""
    one, other = asyncio.ensure_future(wanted), asyncio.ensure_future(beside)
    try:
        await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
        if not one.done():
            other.result()
        return await one
    finally:
        one.cancel()


async def _pass_body(
    head: _Head, source: _Stream, target: _Stream, *, to_end: bool = False
) -> bool:
    """Pass the body that the head announces; return whether the connection outlives it."""
    if "chunked" in head.get("Transfer-Encoding").lower():
        while True:
            size = await source.line()
            await target.write(size)
            await target.write(await source.exactly(int(size.split(b";")[0], 16) + 2))
            if int(size.split(b";")[0], 16) == 0:
                return True
    length = head.get("Content-Length")
    if not length and to_end:
        await _pass_all(source, target)
        return False
    rest = int(length or 0)
    while rest:
        piece = await source.exactly(min(rest, BLOCK))
        await target.write(piece)
        rest -= len(piece)
    return True


async def _both_ways(client: _Stream, server: _Stream) -> None:
    """Pass frames until one side hangs up."""
    ways = [_pass_all(client, server), _pass_all(server, client)]
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def _pass_all(source: _Stream, target: _Stream) -> None:
    while piece := await source.some():
        await target.write(piece)


async def _refuse(head: _Head, client: _Stream, status: int) -> bool:
    """Answer as a gateway does whose server is away: a page of its own, not our JSON."""
    rest = int(head.get("Content-Length") or 0)
    while rest:
        rest -= len(await client.exactly(min(rest, BLOCK)))
    page = f"<html><h1>{status} {REASONS[status]}</h1></html>\n"
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", "Content-Type: text/html", "Connection: close"]
    await client.write("\r\n".join([*lines, f"Content-Length: {len(page)}", "", page]).encode())
    return False


def reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection so that the other side sees a reset, not an end."""
    connection: Optional[socket.socket] = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
