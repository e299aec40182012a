"""Processes beside a job's main one: exec, in the newer and the older client's protocol."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from typing import Dict, List, Optional, Tuple

from aiohttp import web

from ..engines.base import Process
from ..errors import InvalidRequest
from ..models import Job
from . import jobs
from .keys import JOBS
from .requests import parse_command, parse_flag
from .streams import (
    EXIT,
    channels,
    feed,
    framed,
    legacy_input,
    relay,
    require_upgrade,
    size_of,
    websocket,
)

# Ended execs that can still be inspected.
KEPT = 100

# How long a terminal may take to read the end of its input. Seconds.
LET_GO = 1.0


async def exec_(request: web.Request) -> web.WebSocketResponse:
    """`GET /monitoring/jobs/{job}/exec`: a WebSocket with a new process in the job, whose last
    frame tells the exit code. Without `stdin` in the query its input ends at once. 404 for a job
    that does not run, 400 for an unknown one, without a command and without a WebSocket."""
    job = jobs.find(request)
    require_upgrade(request)
    wanted = channels(request)
    command = parse_command(request.query.get("cmd", ""))
    process = await request.app[JOBS].exec(job.id, command, tty=parse_flag(request.query, "tty"))
    if not parse_flag(request.query, "stdin"):
        await process.close_stdin()

    async def receive(frame: bytes) -> bool:
        await feed(process, frame)
        return True

    async with websocket(request, receive) as socket:
        await relay(process, framed(socket, wanted))
        code = await process.wait()
        await socket.send_bytes(bytes([EXIT]) + json.dumps({"exit_code": code}).encode())
    await let_go(process)
    return socket


async def let_go(process: Process) -> None:
    """End the input of a process whose client may have left: nobody else could, and what only
    reads or writes then ends. One that does neither goes on, as on the platform."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(process.close_stdin(), LET_GO)


class LegacyExec:
    """An exec of the older client, which creates, starts and inspects it in separate calls."""

    # How long a finished exec waits for the client's first look. Seconds.
    INSPECT_WAIT = 5.0

    def __init__(self, job: Job, command: str, tty: bool) -> None:
        self.id = os.urandom(16).hex()
        self.job = job
        self.command = command
        self.tty = tty
        self.started = False
        self.process: Optional[Process] = None
        self.exit_code: Optional[int] = None
        # The client shows no output if its first look, after the start, finds the exec ended.
        self.inspected = asyncio.Event()

    @property
    def running(self) -> bool:
        """Whether the client is told that it runs: from its creation until `end` has returned."""
        return self.exit_code is None

    async def end(self) -> None:
        """Wait until the process has ended, and then a moment for the client's first look."""
        assert self.process is not None
        code = await self.process.wait()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.inspected.wait(), self.INSPECT_WAIT)
        self.exit_code = code

    def payload(self) -> Dict[str, object]:
        """Return it as the older client inspects it; its exit code is 0 for as long as it runs."""
        return {
            "id": self.id,
            "running": self.running,
            "exit_code": self.exit_code if self.exit_code is not None else 0,
            "job_id": self.job.id,
            "tty": self.tty,
            "entrypoint": "",
            "command": self.command,
        }


EXECS: web.AppKey[Dict[Tuple[str, str], LegacyExec]] = web.AppKey("EXECS", dict)


def forget_ended(request: web.Request) -> None:
    """Forget all but the last execs that have ended: a client asks until it has seen the end."""
    execs = request.app[EXECS]
    ids = {job_id for job_id, _ in execs}
    gone = {job_id for job_id in ids if request.app[JOBS].get(job_id).is_finished}
    ended = [key for key, known in execs.items() if not known.running or key[0] in gone]
    for key in ended[:-KEPT]:
        del execs[key]


async def legacy_exec_create(request: web.Request) -> web.Response:
    """`POST /monitoring/jobs/{job}/exec_create`: 200 with the id of an exec of the body's
    `command`, still to be started. 400 without one, and for a job that is unknown or does not
    run."""
    body = await jobs.read_json(request)
    if not isinstance(body, dict) or "command" not in body:
        raise InvalidRequest("the exec needs a command")
    command = parse_command(body["command"])
    job = jobs.find(request)
    jobs.find_running(request)
    execs = request.app[EXECS]
    forget_ended(request)
    created = LegacyExec(job, command, bool(body.get("tty")))
    execs[job.id, created.id] = created
    return web.json_response({"job_id": job.id, "exec_id": created.id})


async def legacy_exec_start(request: web.Request) -> web.WebSocketResponse:
    """`GET /monitoring/jobs/{job}/{exec}/exec_start`: a WebSocket with the exec's process. 400 for
    an exec that is unknown or was started before, for a job that does not run, and without a
    WebSocket."""
    started = find_exec(request)
    jobs.find_running(request)
    require_upgrade(request)
    if started.started:
        raise InvalidRequest(f"exec {started.id} was started before")
    started.started = True
    process = await request.app[JOBS].exec(started.job.id, started.command, tty=started.tty)
    started.process = process
    async with websocket(request, legacy_input(process, detachable=False)) as socket:
        await relay(process, framed(socket))
        await started.end()
    await let_go(process)
    if started.running:  # the client left earlier, and may still ask
        await started.end()
    return socket


async def legacy_exec_inspect(request: web.Request) -> web.Response:
    """`GET /monitoring/jobs/{job}/{exec}/exec_inspect`: 200 with the exec's `payload`; 400 for an
    unknown one."""
    found = find_exec(request)
    if found.process is not None:
        found.inspected.set()
    return web.json_response(found.payload())


async def legacy_exec_resize(request: web.Request) -> web.Response:
    """`POST /monitoring/jobs/{job}/{exec}/exec_resize`: set the terminal's size to `w` and `h` of
    the query, in character cells; 200, also before the start, when it does nothing. 400 for an
    unknown exec and for what is no size."""
    process = find_exec(request).process
    if process is not None:
        await process.resize(size_of(request))
    return web.Response()


def find_exec(request: web.Request) -> LegacyExec:
    """Return the exec that the path names. Raises InvalidRequest, also for an unknown job."""
    key = jobs.find(request).id, request.match_info["exec"]
    found = request.app[EXECS].get(key)
    if found is None:
        raise InvalidRequest(f"no such exec {key[1]}")
    return found


def routes() -> List[web.RouteDef]:
    """Return the routes of exec, for both clients."""
    job = "/monitoring/jobs/{job}"
    return [
        web.get(f"{job}/exec", exec_),
        web.post(f"{job}/exec_create", legacy_exec_create),
        web.get(f"{job}/{{exec}}/exec_start", legacy_exec_start),
        web.get(f"{job}/{{exec}}/exec_inspect", legacy_exec_inspect),
        web.post(f"{job}/{{exec}}/exec_resize", legacy_exec_resize),
    ]
