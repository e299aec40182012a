"""A job's web page reaches the browser whole, and nobody who was not let in."""

import asyncio
import socket
from contextlib import suppress
from typing import AsyncIterator, Dict, Tuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from neuro_local.admission import TICKET
from neuro_local.ingress import Ingress
from neuro_local.models import Http, Job, JobSpec, JobStatus, Preset, Transition, now

UNUSUAL = "HEAD OPTIONS PUT PATCH DELETE TRACE CONNECT PROPFIND PURGE".split()


class Reachable:
    """A job of which a web page needs the port alone."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self, port: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.setblocking(False)
        return connection


async def show_request(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "host": request.host,
            "cookie": request.headers.get("Cookie", ""),
            "origin": request.headers.get("Origin", ""),
            "body": (await request.read()).decode(),
        }
    )


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(protocols=["v1"])
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(f"{ws.ws_protocol} {message.data}")
    return ws


async def redirect(request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere?a=1")


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response


def job(*, auth: bool = True) -> Job:
    spec = JobSpec("image", Preset("cpu-small", 1, 1), http=Http(80, auth))
    return Job("job-1", "user", spec, (Transition(JobStatus.RUNNING, now()),))


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_get("/ws", echo)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/broken", break_off)
    app.router.add_route("*", "/{path:.*}", show_request)
    started = TestServer(app)
    async with started:
        yield started


@pytest.fixture
async def ingress() -> AsyncIterator[Ingress]:
    made = Ingress()
    yield made
    await made.withdraw("job-1")


@pytest.fixture
async def page(server: TestServer, ingress: Ingress) -> URL:
    assert server.port
    await ingress.publish(job(), Reachable(server.port).connect)
    url = ingress.url(job())
    assert url is not None
    return URL(url)


def new_browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_browser() as session:
        yield session


@pytest.fixture
async def visitor(page: URL) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser that was let in."""
    async with new_browser() as session:
        await (await session.get(page)).release()
        yield session


@pytest.fixture
async def stranger() -> AsyncIterator[aiohttp.ClientSession]:
    """A browser that was not."""
    async with new_browser() as session:
        yield session


async def test_ticket_is_exchanged_for_a_cookie(page: URL, browser: aiohttp.ClientSession) -> None:
    async with browser.get(page) as answer:
        seen = await answer.json()

    assert answer.status == 200
    assert [step.status for step in answer.history] == [303]
    assert (seen["path"], seen["cookie"]) == ("/", "")
    cookie = answer.history[0].cookies["neuro-local-job-1"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


async def test_ticket_opens_once(
    page: URL, visitor: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    async with stranger.get(page) as answer:
        assert answer.status == 401
        assert "neuro status job-1" in await answer.text()


async def test_spent_ticket_is_followed_by_another(
    page: URL, ingress: Ingress, visitor: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    fresh = ingress.url(job())

    assert fresh and fresh != str(page)
    async with stranger.get(fresh) as answer:
        assert answer.status == 200


async def test_address_stays_until_it_is_used(page: URL, ingress: Ingress) -> None:
    assert ingress.url(job()) == str(page)


async def test_who_was_let_in_may_use_an_old_address(
    page: URL, visitor: aiohttp.ClientSession
) -> None:
    async with visitor.get(page) as answer:
        assert (await answer.json())["path"] == "/"


async def test_who_was_let_in_uses_up_a_fresh_address(
    ingress: Ingress, visitor: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    fresh = ingress.url(job()) or ""

    await (await visitor.get(fresh)).release()

    async with stranger.get(fresh) as answer:
        assert answer.status == 401


@pytest.mark.parametrize(
    "method, headers",
    [
        *((method, {}) for method in ["POST", *UNUSUAL]),
        ("GET", {"Sec-Purpose": "prefetch;prerender"}),
        ("GET", {"Purpose": "prefetch"}),
        ("GET", {"X-Moz": "prefetch"}),
        ("GET", {"Upgrade": "websocket", "Connection": "Upgrade"}),
    ],
)
async def test_only_a_visit_uses_the_ticket_up(
    page: URL, browser: aiohttp.ClientSession, method: str, headers: Dict[str, str]
) -> None:
    async with browser.request(method, page, headers=headers) as answer:
        assert answer.status == 401

    async with browser.get(page) as answer:
        assert answer.status == 200


async def test_exchange_never_leads_to_another_host(
    page: URL, visitor: aiohttp.ClientSession
) -> None:
    for path in ("//example.com/a", "/\\example.com/a"):
        target = URL(f"{page.origin()}{path}?{TICKET}=old&b=1", encoded=True)
        async with visitor.get(target, allow_redirects=False) as answer:
            assert answer.headers["Location"] == "/example.com/a?b=1"


async def test_other_parameters_survive_the_exchange(
    page: URL, browser: aiohttp.ClientSession
) -> None:
    async with browser.get(page.update_query(a="1 2")) as answer:
        seen = await answer.json()

    assert seen["path"] == "/?a=1+2"


async def test_requests_pass_through_whole(page: URL, visitor: aiohttp.ClientSession) -> None:
    visitor.cookie_jar.update_cookies({"own": "1"}, page)
    target = URL(f"{page.origin()}/a%2Fb?c=%20d&c=e", encoded=True)
    async with visitor.patch(target, data="body", headers={"Origin": str(page.origin())}) as answer:
        seen = await answer.json()

    assert seen == {
        "method": "PATCH",
        "path": "/a%2Fb?c=%20d&c=e",
        "host": f"127.0.0.1:{page.port}",
        "cookie": "own=1",
        "origin": str(page.origin()),
        "body": "body",
    }


async def test_redirects_stay_in_the_browser(page: URL, visitor: aiohttp.ClientSession) -> None:
    async with visitor.get(page.origin() / "redirect") as answer:
        assert answer.url == page.origin() / "elsewhere" % {"a": "1"}


async def test_answer_that_breaks_off_is_seen_to(page: URL, visitor: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.ClientError):
        async with visitor.get(page.origin() / "broken") as answer:
            await answer.read()


async def test_websockets_pass_through(page: URL, visitor: aiohttp.ClientSession) -> None:
    origin = str(page.origin())
    async with visitor.ws_connect(f"{origin}/ws", protocols=["v1"], origin=origin) as ws:
        await ws.send_str("hello")
        assert (await ws.receive(timeout=5)).data == "v1 hello"


@pytest.mark.parametrize("method", ["GET", "POST", *UNUSUAL])
@pytest.mark.parametrize("query", ["", f"?{TICKET}=wrong", f"?{TICKET}="])
async def test_nobody_enters_without_a_ticket(
    page: URL, stranger: aiohttp.ClientSession, method: str, query: str
) -> None:
    async with stranger.request(method, f"{page.origin()}/any{query}") as answer:
        assert answer.status == 401


@pytest.mark.parametrize(
    "request_line", ["OPTIONS *", "CONNECT 127.0.0.1:80", "GET http://127.0.0.1/", "GET //"]
)
async def test_no_form_of_request_enters_without_a_ticket(page: URL, request_line: str) -> None:
    assert (await ask(page, request_line)).startswith("HTTP/1.1 401")


async def test_cookie_of_strange_bytes_is_refused(page: URL) -> None:
    answer = await ask(page, "GET /", "Cookie: neuro-local-job-1=\xff\xfe")

    assert answer.startswith("HTTP/1.1 401")


async def test_no_websocket_opens_without_a_ticket(
    page: URL, stranger: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await stranger.ws_connect(page.origin() / "ws")

    assert caught.value.status == 401


async def test_cookie_of_another_job_does_not_fit(
    page: URL, visitor: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    key = visitor.cookie_jar.filter_cookies(page)["neuro-local-job-1"].value
    headers = {"Cookie": f"neuro-local-job-2={key}"}
    async with stranger.get(page.origin(), headers=headers) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1", "https://127.0.0.1", "null", "x"])
async def test_pages_of_other_origins_change_nothing(
    page: URL, visitor: aiohttp.ClientSession, origin: str
) -> None:
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-site"}
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND", "PURGE"):
        async with visitor.request(method, page.origin(), headers=headers) as answer:
            assert answer.status == 403

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await visitor.ws_connect(page.origin() / "ws", headers=headers)
    assert caught.value.status == 403


async def test_page_without_referrers_may_act_on_itself(
    page: URL, visitor: aiohttp.ClientSession
) -> None:
    headers = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    async with visitor.post(page.origin(), headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("host", ["localhost:9000", "LOCALHOST", "[::1]:9000", "127.0.0.1"])
async def test_tunnel_may_have_a_port_of_its_own(
    page: URL, visitor: aiohttp.ClientSession, host: str
) -> None:
    cookie = visitor.cookie_jar.filter_cookies(page).output(header="", sep=";").strip()
    headers = {"Host": host, "Origin": f"http://{host.lower()}", "Cookie": cookie}
    async with visitor.post(page.origin(), headers=headers) as answer:
        assert answer.status == 200
        assert (await answer.json())["host"] == host


@pytest.mark.parametrize("auth", [True, False])
@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", "localhost:1@x", ""])
async def test_foreign_names_do_not_lead_here(
    server: TestServer, ingress: Ingress, browser: aiohttp.ClientSession, auth: bool, host: str
) -> None:
    assert server.port
    await ingress.publish(job(auth=auth), Reachable(server.port).connect)

    async with browser.get(ingress.url(job()) or "", headers={"Host": host}) as answer:
        assert answer.status == 403


async def test_request_without_a_path_is_answered_here(
    page: URL, visitor: aiohttp.ClientSession
) -> None:
    cookie = visitor.cookie_jar.filter_cookies(page)["neuro-local-job-1"]

    answer = await ask(page, "OPTIONS *", f"Cookie: neuro-local-job-1={cookie.value}")

    assert answer.startswith("HTTP/1.1 400")


async def test_job_without_authentication_is_open(
    server: TestServer, ingress: Ingress, browser: aiohttp.ClientSession
) -> None:
    assert server.port
    await ingress.publish(job(auth=False), Reachable(server.port).connect)

    url = ingress.url(job(auth=False))
    assert url is not None and "?" not in url
    async with browser.get(url) as answer:
        assert answer.status == 200


async def test_page_of_a_job_that_does_not_listen_yet_tries_again(
    ingress: Ingress, browser: aiohttp.ClientSession
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        await ingress.publish(job(), Reachable(closed.getsockname()[1]).connect)

        async with browser.get(ingress.url(job()) or "") as answer:
            text = await answer.text()

    assert answer.status == 502
    assert 'http-equiv="refresh"' in text and "port 80" in text


@pytest.mark.parametrize("turns", range(5))
async def test_page_that_is_withdrawn_while_one_connects_leaves_nobody_waiting(
    ingress: Ingress, turns: int
) -> None:
    await ingress.publish(job(auth=False), Reachable(1).connect)
    port = URL(str(ingress.url(job()))).port or 0
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for _ in range(turns):  # of the server's loop: accepted, connected, read, answered
            await asyncio.sleep(0)

        await ingress.withdraw("job-1")

        await asyncio.sleep(0.01)
        browser.settimeout(0.5)
        with suppress(ConnectionResetError):
            browser.recv(100)  # an answer or the end: no TimeoutError


async def test_withdrawn_page_has_no_address_and_no_port(page: URL, ingress: Ingress) -> None:
    await ingress.withdraw("job-1")

    assert ingress.url(job()) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(_address(page))


async def ask(page: URL, request_line: str, header: str = "Accept: */*") -> str:
    """Send a request that no well-behaved client would, and return the answer."""
    reader, writer = await asyncio.open_connection(*_address(page))
    lines = [f"{request_line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", header]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.decode()


def _address(url: URL) -> Tuple[str, int]:
    assert url.host and url.port
    return url.host, url.port
