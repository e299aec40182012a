"""The jobs' way out, talked to directly; that pip goes this way is the end-to-end tests' part."""

from __future__ import annotations

import asyncio
import base64
import socket
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Awaitable, Callable, Coroutine, Dict, List, Optional, Tuple

import pytest

from neuro_local.engines.sandbox.egress import Egress, is_reachable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ask = Callable[[str], Coroutine[Any, Any, str]]


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[int]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def proxying(
    environ: Optional[Dict[str, str]] = None, anywhere: bool = True
) -> AsyncIterator[Ask]:
    """Yields what sends one request through the proxy and returns all that comes back."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    egress = Egress(environ or {}, (lambda _: True) if anywhere else is_reachable)
    await egress.start(listener)

    async def ask(request: str) -> str:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request.encode())
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answer.decode()

    yield ask
    await egress.close()


class Recorder:
    """A server that notes the head it was sent, answers, and closes."""

    def __init__(self, answer: str = "HTTP/1.1 200 OK\r\n\r\nhello") -> None:
        self.heads: List[str] = []
        self._answer = answer

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self._answer.encode())
        writer.close()


async def test_plain_request_is_sent_on_in_origin_form() -> None:
    web = Recorder()
    async with serving(web.talk) as port, proxying() as ask:
        answer = await ask(
            f"GET http://localhost:{port}/a?b=c HTTP/1.1\r\nHost: localhost\r\n"
            "Proxy-Connection: keep-alive\r\nConnection: keep-alive\r\nX-Mine: 1\r\n\r\n"
        )

    assert answer.endswith("\r\n\r\nhello")
    assert web.heads == [
        "GET /a?b=c HTTP/1.1\r\nHost: localhost\r\nX-Mine: 1\r\nConnection: close\r\n\r\n"
    ]


async def test_body_is_sent_on_and_the_next_request_is_not() -> None:
    got = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()
        got.set_result(body + await reader.read())

    async with serving(talk) as port, proxying() as ask:
        post = f"POST http://localhost:{port}/ HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
        await ask(post + post)

    assert await got == b"body"


async def test_tunnel_carries_bytes_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()

    async with serving(echo) as port, proxying() as ask:
        answer = await ask(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\nping")

    assert answer == "HTTP/1.1 200 Connection established\r\n\r\nping"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0", "169.254.1.1"])
async def test_this_machine_itself_is_refused(host: str) -> None:
    async with proxying(anywhere=False) as ask:
        tunnel = await ask(f"CONNECT {host}:22 HTTP/1.1\r\n\r\n")
        plain = await ask(f"GET http://{host}/ HTTP/1.1\r\n\r\n")

    assert tunnel.startswith("HTTP/1.1 403 ") and plain.startswith("HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "address, reachable",
    [
        ("127.0.0.53", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("192.168.1.1", True),
        ("203.0.113.7", True),
        ("2001:db8::1", True),
    ],
)
def test_reachable_addresses(address: str, reachable: bool) -> None:
    assert is_reachable(address) is reachable


async def test_failures_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with proxying() as ask:
        dead = await ask(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n")
        unknown = await ask("CONNECT no-such-host.invalid:443 HTTP/1.1\r\n\r\n")

    assert dead.startswith("HTTP/1.1 502 ") and "Cannot connect to" in dead
    assert unknown.startswith("HTTP/1.1 502 ") and "no-such-host.invalid" in unknown


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "nonsense",
        "GET ftp://host/ HTTP/1.1",
        "CONNECT host:port HTTP/1.1",
        "GET http:///path HTTP/1.1",
        "GET http://host/ HTTP/1.1\r\nContent-Length: many",
    ],
)
async def test_nonsense_is_answered(line: str) -> None:
    async with proxying() as ask:
        assert (await ask(f"{line}\r\n\r\n")).startswith("HTTP/1.1 400 ")


async def test_this_machines_own_proxy_is_used() -> None:
    proxy = Recorder()
    async with serving(proxy.talk) as port:
        url = f"http://me:p%40ss@localhost:{port}"
        async with proxying({"http_proxy": url, "HTTPS_PROXY": url}) as ask:
            plain = await ask("GET http://far.invalid/x HTTP/1.1\r\nHost: far.invalid\r\n\r\n")
            tunnel = await ask("CONNECT far.invalid:443 HTTP/1.1\r\n\r\n")

    credentials = base64.b64encode(b"me:p@ss").decode()
    assert plain.endswith("hello")
    assert tunnel == "HTTP/1.1 200 Connection established\r\n\r\nhello"
    assert [head.split("\r\n")[0] for head in proxy.heads] == [
        "GET http://far.invalid/x HTTP/1.1",
        "CONNECT far.invalid:443 HTTP/1.1",
    ]
    assert all(f"Proxy-Authorization: Basic {credentials}\r\n" in head for head in proxy.heads)


async def test_own_proxy_that_refuses_is_quoted() -> None:
    proxy = Recorder("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    async with serving(proxy.talk) as port:
        async with proxying({"https_proxy": f"http://localhost:{port}"}) as ask:
            answer = await ask("CONNECT far.invalid:443 HTTP/1.1\r\n\r\n")

    assert answer.startswith("HTTP/1.1 502 ") and "407" in answer


@pytest.mark.parametrize("no_proxy", ["localhost", "*", "example.com, .localhost"])
async def test_no_proxy_goes_straight(no_proxy: str) -> None:
    web = Recorder()
    async with serving(web.talk) as port:
        environ = {"http_proxy": "http://localhost:1", "no_proxy": no_proxy}
        async with proxying(environ) as ask:
            answer = await ask(f"GET http://localhost:{port}/ HTTP/1.1\r\n\r\n")

    assert answer.endswith("hello")


async def test_close_ends_open_tunnels() -> None:
    opened: List[Tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append((reader, writer))
        await reader.read()
        writer.close()

    async with serving(silent) as port:
        async with proxying() as ask:
            asking = asyncio.create_task(ask(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n"))
            while not opened:
                await asyncio.sleep(0.01)

        assert (await asking).startswith("HTTP/1.1 200 ")
