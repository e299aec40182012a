"""Watching a job's main process: its log, and attaching to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import AsyncIterator, List, Optional

from aiohttp import web

from ..engines.base import Chunk, Process
from ..errors import NotRunning
from ..joblog import as_bytes
from ..models import Job
from . import jobs
from .keys import JOBS, VIEWERS
from .requests import parse_flag, parse_moment
from .streams import (
    Send,
    channels,
    feed,
    framed,
    legacy_input,
    size_of,
    streamed,
    until_gone,
    websocket,
)
from .viewers import AttachView

# How long the older client may take to read the end of a log before attach hangs up. Seconds.
LEGACY_DRAIN = 0.5


async def log(request: web.Request) -> web.WebSocketResponse:
    """The newer client's log: binary frames until the job has ended."""
    job = jobs.find(request)
    since = parse_moment(request.query.get("since"))
    async with log_of(request, job, since) as pieces, websocket(request) as socket:
        async for piece in pieces:
            await socket.send_bytes(piece)
    return socket


async def legacy_log(request: web.Request) -> web.StreamResponse:
    """The older client's log: plain text until the job has ended."""
    job = jobs.find(request)
    since = parse_moment(request.query.get("since"))  # it can be refused before the status is out
    async with streamed(request, {"Content-Type": "text/plain; charset=utf-8"}) as response:
        async with until_gone(request), log_of(request, job, since) as pieces:
            async for piece in pieces:
                await response.write(piece)
    return response


@asynccontextmanager
async def log_of(
    request: web.Request, job: Job, since: Optional[datetime]
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the pieces of a job's log that this client is to show."""
    service, viewers = request.app[JOBS], request.app[VIEWERS]
    timestamps = parse_flag(request.query, "timestamps")
    view = await viewers.open_log(job.id, running=not job.is_finished)

    async def pieces() -> AsyncIterator[bytes]:
        if view.muted:
            await service.ended(job.id)
            return
        moment = since.timestamp() if since else None
        records = service.log(job.id).read()
        async for piece in as_bytes(records, since=moment, timestamps=timestamps):
            yield piece

    try:
        yield pieces()
    finally:
        viewers.close_log(job.id, view)


async def attach(request: web.Request) -> web.WebSocketResponse:
    """`GET /monitoring/jobs/{job}/attach`: a WebSocket with the main process's streams; one that
    asks for no output, the newer client's probe, stays open until the job has ended. 404 for a job
    that does not run, 400 for an unknown one. Without `tty` in the query it is `legacy_attach`."""
    if "tty" not in request.query:
        return await legacy_attach(request)
    job = jobs.find(request)
    viewers = request.app[VIEWERS]
    shown = channels(request)
    try:
        main = request.app[JOBS].running(job.id).main
    except NotRunning:
        viewers.refuse_attach(job.id, probe=not shown)
        raise

    async def receive(frame: bytes) -> bool:
        await feed(main, frame)
        return True

    async with websocket(request, receive) as socket:
        if not shown:
            await request.app[JOBS].ended(job.id)
            return socket
        view = await viewers.open_attach(job.id)
        await show_output(request, job, view, framed(socket, shown))
    return socket


async def legacy_attach(request: web.Request) -> web.WebSocketResponse:
    """The older client's attach, which may come for a finished job, and then ends at once."""
    job = jobs.find(request)
    service = request.app[JOBS]
    with suppress(NotRunning):
        main: Optional[Process] = None
        main = service.running(job.id).main
    async with websocket(request, legacy_input(main)) as socket:
        if main is not None:
            view = await request.app[VIEWERS].open_legacy_attach(job.id)
            await show_output(request, job, view, framed(socket))
            if view.partner is not None:
                await asyncio.sleep(LEGACY_DRAIN)
    return socket


async def show_output(request: web.Request, job: Job, view: AttachView, send: Send) -> None:
    """Send a job's output until its log is closed: all of it, or from now on, as `view` says. With
    a partner only what comes after that one has left."""
    if view.partner is not None:
        # It may be another client's after all, and leave before the job ends: then go on here.
        await view.partner.done.wait()
    from_start = view.from_start and view.partner is None
    records = request.app[JOBS].log(job.id).read(from_end=not from_start)
    async for record in records:
        await send(Chunk(record.channel, record.data))


async def legacy_resize(request: web.Request) -> web.Response:
    """`POST /monitoring/jobs/{job}/resize`: set the size of the main process's terminal to `w` and
    `h` of the query, in character cells; 200. 400 for a job that is unknown or does not run, and
    for what is no size."""
    await jobs.find_running(request).main.resize(size_of(request))
    return web.Response()


def routes() -> List[web.RouteDef]:
    """Return the routes of logs and attaching."""
    job = "/monitoring/jobs/{job}"
    return [
        web.get(f"{job}/log_ws", log),
        web.get(f"{job}/log", legacy_log),
        web.get(f"{job}/attach", attach),
        web.post(f"{job}/resize", legacy_resize),
    ]
