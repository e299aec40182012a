"""Passes the web pages of jobs through to the browser, each on a loopback port of its own.

A port of its own, rather than a path, since pages link to `/` and the platform gives each job
a host. Every request is looked at first (admission.py), on every path, method and upgrade, and no
ticket or cookie of ours is ever passed on to a job.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Awaitable, Callable, Dict, Optional, Union

import aiohttp
from aiohttp import WSMsgType, web
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from .admission import COOKIE_PREFIX, Admission
from .config import HOST
from .errors import NotRunning
from .models import Job
from .passing import HOP_BY_HOP, pass_answer

Socket = Union["web.WebSocketResponse[bool]", "aiohttp.ClientWebSocketResponse[bool]"]

_NOT_YET = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="1"><title>Starting</title></head>
<body>The job does not answer on port {port} yet. This page tries again every second.</body></html>
"""


# Connects to a port inside a job. Raises NotRunning, OSError.
Connect = Callable[[int], Awaitable[socket.socket]]


class JobConnector(aiohttp.BaseConnector):
    """Connects to a port inside a job, whatever host the request names."""

    def __init__(self, connect: Connect, port: int) -> None:
        super().__init__(limit=0)
        self._connect = connect
        self._port = port

    async def _create_connection(self, *args: object, **kwargs: object) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        connection = await self._connect(self._port)
        _, protocol = await loop.create_connection(self._factory, sock=connection)
        return protocol


@dataclass
class Page:
    """The published page of one job."""

    listener: socket.socket
    admission: Admission
    runner: web.ServerRunner
    session: aiohttp.ClientSession


class Ingress:
    """Keeps a port open for each job with a web page, from before it runs until it has ended."""

    def __init__(self) -> None:
        self._pages: Dict[str, Page] = {}

    async def publish(self, job: Job, connect: Connect) -> None:
        """Open a loopback port for the job's web page, which may not answer yet."""
        assert job.spec.http is not None
        session = aiohttp.ClientSession(
            connector=JobConnector(connect, job.spec.http.port),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        admission = Admission(job)
        # Without routes: they would answer some requests before us, `OPTIONS *` for one. Access
        # logs would hold tickets.
        server = web.Server(
            Proxy(job, admission, session).handle, access_log=None, auto_decompress=False
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        listener = socket.create_server((HOST, 0))
        await web.SockSite(runner, listener).start()
        self._pages[job.id] = Page(listener, admission, runner, session)

    async def withdraw(self, job_id: str) -> None:
        """Close the job's port. Repeatable."""
        page = self._pages.pop(job_id, None)
        if page is not None:
            # A connection that is accepted in the moment in which its server closes would stay
            # open, unanswered (python/cpython#109564): none comes any more, the last has its turn.
            asyncio.get_running_loop().remove_reader(page.listener)
            await asyncio.sleep(0)
            await page.session.close()
            await page.runner.cleanup()

    def url(self, job: Job) -> Optional[str]:
        """Return the address that opens a job's web page, once if it needs a login."""
        page = self._pages.get(job.id)
        if page is None:
            return None
        port = page.listener.getsockname()[1]
        address = URL.build(scheme="http", host=HOST, port=port, path="/")
        return str(page.admission.invite(address))


class Proxy:
    """Handles the requests for one job's page."""

    def __init__(self, job: Job, admission: Admission, session: aiohttp.ClientSession) -> None:
        assert job.spec.http is not None
        self._port = job.spec.http.port
        self._admission = admission
        self._session = session

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer as Admission says, else as the job does, WebSockets included. 400 for a request
        that names no path; 502, with a page that tries again, while the job does not answer."""
        answer = self._admission.answer(request)
        if answer is not None:
            return answer
        if not request.raw_path.startswith("/"):  # OPTIONS *, or what one asks of a proxy
            return web.Response(status=400, text="400: the request names no path\n")
        try:
            if self._session.closed:  # and this port in a moment, too
                raise NotRunning("The job has ended.")
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._pass_socket(request)
            return await self._pass_request(request)
        except (NotRunning, OSError, aiohttp.ClientError):
            text = _NOT_YET.format(port=self._port)
            return web.Response(status=502, text=text, content_type="text/html")

    async def _pass_request(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            self._target(request),
            headers=_forwarded(request),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            return await pass_answer(request, answer)

    async def _pass_socket(self, request: web.BaseRequest) -> web.WebSocketResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        protocols = [name.strip() for name in offered.split(",") if name.strip()]
        headers = {
            name: value
            for name, value in _forwarded(request).items()
            if not name.lower().startswith("sec-websocket-")
        }
        async with self._session.ws_connect(
            self._target(request), protocols=protocols, headers=headers, max_msg_size=0
        ) as inner:
            chosen = [inner.protocol] if inner.protocol else []
            outer = web.WebSocketResponse(protocols=chosen, max_msg_size=0)
            await outer.prepare(request)
            pumps = {
                asyncio.create_task(_pump(outer, inner)),
                asyncio.create_task(_pump(inner, outer)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                await outer.close(code=inner.close_code or aiohttp.WSCloseCode.OK)
            return outer

    def _target(self, request: web.BaseRequest) -> URL:
        return URL(f"http://{HOST}:{self._port}{request.raw_path}", encoded=True)


def _forwarded(request: web.BaseRequest) -> Dict[str, str]:
    """Return the headers for the job: the Host stays, so that a page sees its own origin."""
    headers = {}
    for name, value in request.headers.items():
        if name.lower() == "cookie":
            parts = (part.strip() for part in value.split(";"))
            value = "; ".join(part for part in parts if not part.startswith(COOKIE_PREFIX))
        if name.lower() not in HOP_BY_HOP and value:
            headers[name] = value
    return headers


async def _pump(
    source: Socket,
    sink: Socket,
) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
