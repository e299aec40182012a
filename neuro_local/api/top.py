"""What a running job uses, while it runs."""

from __future__ import annotations

import asyncio
import time
from typing import List

from aiohttp import web

from ..errors import NotRunning
from . import jobs
from .keys import JOBS
from .payloads import usage_payload
from .streams import websocket

# How often a job that does not run yet is looked at. Seconds.
PAUSE = 0.2


async def top(request: web.Request) -> web.WebSocketResponse:
    """Send what a job uses, once a second from its start to its end; of one that has ended
    nothing."""
    job = jobs.find(request)
    service = request.app[JOBS]
    async with websocket(request) as socket:
        while not service.get(job.id).is_finished:
            try:
                async for usage in service.running(job.id).usage():
                    await socket.send_json(usage_payload(usage, time.time()))
            except NotRunning:
                pass
            await asyncio.sleep(PAUSE)
    return socket


def routes() -> List[web.RouteDef]:
    """Return the route of what a job uses."""
    return [web.get("/monitoring/jobs/{job}/top", top)]
