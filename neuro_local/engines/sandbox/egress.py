"""A job's way out: a small HTTP proxy for the connections made inside its own network.

A tunnel (CONNECT) and a plain request each have a connection of their own: a plain request's is
closed after its answer. Nothing on this machine's loopback is reachable this way.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from dataclasses import dataclass
from typing import Callable, List, Mapping, Optional, Set, Tuple
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEAD_TIMEOUT = 60.0
CONNECT_TIMEOUT = 20.0
LINGER = 60.0  # how long an answer may take whose reader has said that it says no more
BLOCK = 65536
HOP_BY_HOP = ("connection", "keep-alive", "proxy-authorization", "proxy-connection")


class Refused(Exception):
    """A request that is answered by this proxy itself."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request to the proxy, without its body: `target` is `HOST:PORT` for a tunnel, else a whole
    URL (RFC 9112, section 3.2)."""

    method: str
    target: str
    version: str
    headers: List[Tuple[str, str]]

    @classmethod
    def parse(cls, head: bytes) -> Request:
        """Return the request with this head. Raises Refused, with 400, for anything but a
        well-formed CONNECT or `http://`."""
        first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        try:
            method, target, version = first.split(" ")
            headers = [(n, v.strip()) for n, v in (line.split(":", 1) for line in rest)]
            request = cls(method, target, version, headers)
            if request.url.scheme != "http" or not (request.host and request.port):
                raise ValueError(target)
            request.body_size  # must be a number
        except ValueError:
            text = f"This is a job's way out, it takes CONNECT and http:// only: {first[:200]!r}."
            raise Refused("400 Bad Request", text) from None
        return request

    @property
    def url(self) -> SplitResult:
        """Where it leads; for a tunnel `http://HOST:PORT`."""
        return urlsplit(f"http://{self.target}" if self.is_tunnel else self.target)

    @property
    def is_tunnel(self) -> bool:
        return self.method == "CONNECT"

    @property
    def host(self) -> str:
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        """The port that it names, else 443 for a tunnel and 80 for a plain request."""
        return self.url.port or (443 if self.is_tunnel else 80)

    @property
    def body_size(self) -> Optional[int]:
        """Bytes that belong to this request behind its head; None when only its end tells."""
        named = {name.lower(): value for name, value in self.headers}
        if self.is_tunnel or "transfer-encoding" in named:
            return None
        return int(named.get("content-length", "0"))

    def head(self, target: str, *extra: str) -> bytes:
        """Return the head to send on, for one request on a connection of its own."""
        kept = [f"{n}: {v}" for n, v in self.headers if n.lower() not in HOP_BY_HOP]
        lines = [f"{self.method} {target} {self.version}", *kept, "Connection: close", *extra]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def is_reachable(address: str) -> bool:
    """Whether jobs may connect there: not to this machine's own loopback and links."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


class Egress:
    """The proxy of one job; `environ` says through which proxy this machine itself goes out."""

    def __init__(
        self, environ: Mapping[str, str], allowed: Callable[[str], bool] = is_reachable
    ) -> None:
        self._environ = environ
        self._allowed = allowed
        self._server: Optional[asyncio.AbstractServer] = None
        self._connections: Set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        """Serve whoever connects to that listening socket, which is the proxy's from now on."""
        self._server = await asyncio.start_server(self._connected, sock=listener)

    async def close(self) -> None:
        """Stop listening and break all connections off. Repeatable."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve((reader, writer)))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, client: Streams) -> None:
        try:
            head = await asyncio.wait_for(client[0].readuntil(b"\r\n\r\n"), HEAD_TIMEOUT)
            request = Request.parse(head)
            remote = await self._open(request)
            try:
                if request.is_tunnel:
                    client[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await relay(client, remote, request.body_size)
            finally:
                remote[1].transport.abort()
        except Refused as refused:
            text = f"{refused}\n".encode()
            client[1].write(
                f"HTTP/1.1 {refused.status}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text
            )
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # a client that left or said nothing of sense
        finally:
            client[1].close()

    async def _open(self, request: Request) -> Streams:
        """Return a connection on which the request's own bytes may follow."""
        proxy = self._proxy(request)
        addresses = await self._resolve(request, may_fail=proxy is not None)
        if proxy is None:
            remote = await _connect(addresses, request.port)
            if not request.is_tunnel:
                path = urlunsplit(("", "", request.url.path or "/", request.url.query, ""))
                remote[1].write(request.head(path))
            return remote
        remote = await _connect([proxy.hostname or ""], proxy.port or 80, proxy.scheme == "https")
        remote[1].write(request.head(request.target, *_credentials(proxy)))
        if request.is_tunnel:
            await _expect_tunnel(remote)
        return remote

    def _proxy(self, request: Request) -> Optional[SplitResult]:
        name = "https_proxy" if request.is_tunnel else "http_proxy"
        url = self._setting(name)
        if not url or self._bypasses(request.host):
            return None
        return urlsplit(url if "://" in url else f"http://{url}")

    def _bypasses(self, host: str) -> bool:
        names = [name.strip().lstrip(".") for name in self._setting("no_proxy").split(",")]
        return any(n == "*" or n and f".{host}".endswith(f".{n.lower()}") for n in names)

    def _setting(self, name: str) -> str:
        return self._environ.get(name) or self._environ.get(name.upper()) or ""

    async def _resolve(self, request: Request, may_fail: bool) -> List[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(request.host, request.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            if may_fail:  # names that only the proxy knows are common behind one
                return []
            text = f"Cannot find {request.host!r}: {error}."
            raise Refused("502 Bad Gateway", text) from None
        allowed = [str(info[4][0]) for info in found if self._allowed(str(info[4][0]))]
        if not allowed:
            text = f"A job cannot reach {request.host!r}: that is this machine itself."
            raise Refused("403 Forbidden", text)
        return allowed


async def relay(client: Streams, remote: Streams, body_size: Optional[int]) -> None:
    """Pass on bytes both ways until the remote side has said all it has to say."""
    there = asyncio.create_task(_pump(client[0], remote[1], body_size))
    back = asyncio.create_task(_pump(remote[0], client[1]))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({back}, timeout=LINGER)
    finally:
        there.cancel()
        back.cancel()
        await asyncio.gather(there, back, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: Optional[int] = None
) -> None:
    """Copy until the end; bytes beyond `limit` are requests to others, which are asked anew."""
    while data := await reader.read(BLOCK):
        if limit is not None:
            data = data[:limit]
            limit -= len(data)
        writer.write(data)
        await writer.drain()
    if limit is None and writer.can_write_eof():
        writer.write_eof()


async def _connect(addresses: List[str], port: int, tls: bool = False) -> Streams:
    reason: object = "no address"
    for address in addresses:
        try:
            opening = asyncio.open_connection(address, port, ssl=tls or None)
            return await asyncio.wait_for(opening, CONNECT_TIMEOUT)
        except asyncio.TimeoutError:
            reason = "no answer in time"
        except OSError as error:
            reason = error.strerror or error
    text = f"Cannot connect to {', '.join(addresses)} port {port}: {reason}."
    raise Refused("502 Bad Gateway", text)


async def _expect_tunnel(proxy: Streams) -> None:
    """Read the answer of this machine's own proxy to a CONNECT."""
    try:
        answer = await asyncio.wait_for(proxy[0].readuntil(b"\r\n\r\n"), CONNECT_TIMEOUT)
        status = answer.split(b"\r\n")[0].decode("latin-1")
    except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
        status = "nothing of sense"
    if status.split(" ")[1:2] != ["200"]:
        proxy[1].transport.abort()
        raise Refused("502 Bad Gateway", f"This machine's proxy answered: {status}.")


def _credentials(proxy: SplitResult) -> List[str]:
    if proxy.username is None:
        return []
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return ["Proxy-Authorization: Basic " + base64.b64encode(words.encode()).decode()]
