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
        return self.exit_code is None

    async def end(self) -> None:
        """Wait until the process has ended, and then a moment for the client's first look."""
        assert self.process is not None
        code = await self.process.wait()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.inspected.wait(), self.INSPECT_WAIT)
        self.exit_code = code

    def payload(self) -> Dict[str, object]:
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
    found = find_exec(request)
    if found.process is not None:
        found.inspected.set()
    return web.json_response(found.payload())


async def legacy_exec_resize(request: web.Request) -> web.Response:
    process = find_exec(request).process
    if process is not None:
        await process.resize(size_of(request))
    return web.Response()


def find_exec(request: web.Request) -> LegacyExec:
    key = jobs.find(request).id, request.match_info["exec"]
    found = request.app[EXECS].get(key)
    if found is None:
        raise InvalidRequest(f"no such exec {key[1]}")
    return found


def routes() -> List[web.RouteDef]:
    job = "/monitoring/jobs/{job}"
    return [
        web.get(f"{job}/exec", exec_),
        web.post(f"{job}/exec_create", legacy_exec_create),
        web.get(f"{job}/{{exec}}/exec_start", legacy_exec_start),
        web.get(f"{job}/{{exec}}/exec_inspect", legacy_exec_inspect),
        web.post(f"{job}/{{exec}}/exec_resize", legacy_exec_resize),
    ]
