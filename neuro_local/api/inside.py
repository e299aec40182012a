"""Reaching into a running job: its ports, its file system as an image, its processes to kill."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import List, Optional

from aiohttp import web

from ..errors import InvalidRequest, NeuroLocalError
from . import jobs
from .keys import IMAGES, JOBS
from .middleware import FAILED
from .requests import parse_port
from .streams import require_upgrade, streamed, websocket

logger = logging.getLogger(__name__)


async def port_forward(request: web.Request) -> web.WebSocketResponse:
    """`GET /monitoring/jobs/{job}/port_forward/{port}`: a WebSocket whose frames are the bytes of a
    new connection to the job's port. 404 for a job that does not run, 400 for an unknown one, when
    nothing listens there, and without a WebSocket."""
    job = jobs.find(request)
    require_upgrade(request)
    port = parse_port(request.match_info["port"])
    try:
        connection = await request.app[JOBS].running(job.id).connect(port)
    except OSError as error:
        raise InvalidRequest(f"nothing answers on port {port} of job {job.id}: {error}") from None
    reader, writer = await asyncio.open_connection(sock=connection)

    async def receive(frame: bytes) -> bool:
        writer.write(frame)
        await writer.drain()
        return True

    try:
        async with websocket(request, receive) as socket:
            while data := await reader.read(2**16):
                await socket.send_bytes(data)
        return socket
    finally:
        writer.close()


async def save(request: web.Request) -> web.StreamResponse:
    """Save as an image, with the lines of progress that docker's commit and push give."""
    job = jobs.find(request)
    body = await jobs.read_json(request)
    container = body.get("container") if isinstance(body, dict) else None
    image = container.get("image") if isinstance(container, dict) else None
    if not isinstance(image, str):
        raise InvalidRequest("save needs the image's reference in container.image")
    request.app[IMAGES].to_save(image)  # another host's is refused before the status is out
    async with streamed(request, {"Content-Type": "application/x-ndjson"}) as response:

        async def line(**fields: object) -> None:
            await response.write(json.dumps(fields).encode() + b"\n")

        await line(status="CommitStarted", details={"container": job.id, "image": image})
        failure = await save_failure(request, job.id, image)
        if failure is None:
            await line(status="CommitFinished")
        else:
            await line(error=failure, errorDetail={"message": failure})
    return response


async def save_failure(request: web.Request, job_id: str, image: str) -> Optional[str]:
    """Save, and return what to tell if that failed: the status is out."""
    try:
        await request.app[JOBS].save(job_id, image)
        return None
    except NeuroLocalError as error:
        return str(error)
    except Exception:
        logger.exception("%s %s", request.method, request.path)
        return FAILED


async def kill(request: web.Request) -> web.Response:
    """`POST /monitoring/jobs/{job}/kill`: kill the job's processes, so that it ends as one that
    failed; 204 once they are gone. 404 for a job that does not run, 400 for an unknown one."""
    await request.app[JOBS].kill(jobs.find(request).id)
    return web.Response(status=204)


def routes() -> List[web.RouteDef]:
    """Return the routes into a running job."""
    job = "/monitoring/jobs/{job}"
    return [
        web.get(f"{job}/port_forward/{{port}}", port_forward),
        web.post(f"{job}/save", save),
        web.post(f"{job}/kill", kill),
    ]
