"""A job's web page reaches the browser whole, and nobody without the job's key."""

import socket
from typing import AsyncIterator, Tuple, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from neuro_local.engines.base import Task
from neuro_local.ingress import KEY_PARAMETER, Ingress
from neuro_local.models import Http, Job, JobSpec, JobStatus, Preset, Transition, now

KEY = "the-key-of-the-job"


class Reachable:
    """The one thing of a task that a web page needs."""

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
    return Job("job-1", "user", spec, KEY, (Transition(JobStatus.RUNNING, now()),))


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
    await ingress.publish(job(), cast(Task, Reachable(server.port)))
    url = ingress.url(job())
    assert url is not None
    return URL(url)


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def test_key_is_exchanged_for_a_cookie(page: URL, browser: aiohttp.ClientSession) -> None:
    async with browser.get(page) as answer:
        seen = await answer.json()

    assert answer.status == 200
    assert KEY_PARAMETER not in str(answer.url)
    assert seen["path"] == "/"
    assert KEY not in seen["cookie"]


async def test_requests_pass_through_whole(page: URL, browser: aiohttp.ClientSession) -> None:
    await (await browser.get(page)).release()

    target = URL(f"{page.origin()}/a%2Fb?c=%20d&c=e", encoded=True)
    headers = {"Cookie": f"own=1; neuro-local-job-1={KEY}"}
    async with browser.request("PATCH", target, data="body", headers=headers) as answer:
        seen = await answer.json()

    assert seen == {
        "method": "PATCH",
        "path": "/a%2Fb?c=%20d&c=e",
        "host": f"127.0.0.1:{page.port}",
        "cookie": "own=1",
        "body": "body",
    }


async def test_other_parameters_survive_the_exchange(
    page: URL, browser: aiohttp.ClientSession
) -> None:
    async with browser.get(page.update_query(a="1 2")) as answer:
        seen = await answer.json()

    assert seen["path"] == "/?a=1+2"


async def test_redirects_stay_in_the_browser(page: URL, browser: aiohttp.ClientSession) -> None:
    await (await browser.get(page)).release()

    async with browser.get(page.origin() / "redirect") as answer:
        assert answer.url == page.origin() / "elsewhere" % {"a": "1"}


async def test_answer_that_breaks_off_is_seen_to(page: URL, browser: aiohttp.ClientSession) -> None:
    await (await browser.get(page)).release()

    with pytest.raises(aiohttp.ClientError):
        async with browser.get(page.origin() / "broken") as answer:
            await answer.read()


async def test_websockets_pass_through(page: URL, browser: aiohttp.ClientSession) -> None:
    await (await browser.get(page)).release()

    async with browser.ws_connect(page.origin() / "ws", protocols=["v1"]) as ws:
        await ws.send_str("hello")
        assert (await ws.receive(timeout=5)).data == "v1 hello"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND", "PURGE"])
@pytest.mark.parametrize("query", ["", f"?{KEY_PARAMETER}=wrong", f"?{KEY_PARAMETER}="])
async def test_nobody_enters_without_the_key(
    page: URL, browser: aiohttp.ClientSession, method: str, query: str
) -> None:
    async with browser.request(method, f"{page.origin()}/any{query}") as answer:
        assert answer.status == 401


async def test_no_websocket_opens_without_the_key(
    page: URL, browser: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await browser.ws_connect(page.origin() / "ws")

    assert caught.value.status == 401


async def test_key_of_another_job_does_not_fit(page: URL, browser: aiohttp.ClientSession) -> None:
    headers = {"Cookie": f"neuro-local-job-2={KEY}"}
    async with browser.get(page.origin(), headers=headers) as answer:
        assert answer.status == 401


async def test_job_without_authentication_is_open(
    server: TestServer, ingress: Ingress, browser: aiohttp.ClientSession
) -> None:
    assert server.port
    await ingress.publish(job(auth=False), cast(Task, Reachable(server.port)))

    url = ingress.url(job(auth=False))
    assert url is not None and "?" not in url
    async with browser.get(url) as answer:
        assert answer.status == 200


async def test_page_of_a_job_that_does_not_listen_yet_tries_again(
    ingress: Ingress, browser: aiohttp.ClientSession
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        await ingress.publish(job(), cast(Task, Reachable(closed.getsockname()[1])))

        async with browser.get(ingress.url(job()) or "") as answer:
            text = await answer.text()

    assert answer.status == 502
    assert 'http-equiv="refresh"' in text and "port 80" in text


async def test_withdrawn_page_has_no_address_and_no_port(page: URL, ingress: Ingress) -> None:
    await ingress.withdraw("job-1")

    assert ingress.url(job()) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(_address(page))


def _address(url: URL) -> Tuple[str, int]:
    assert url.host and url.port
    return url.host, url.port
