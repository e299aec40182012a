"""Jobs over HTTP: create, list, show, let run longer, kill."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any, Iterator, List, Set

from aiohttp import web

from ..engines.base import Task
from ..errors import InvalidRequest, NotFound, NotRunning
from ..models import Job
from .keys import IDENTITY, INGRESS, JOBS, SECRETS, STORAGE
from .payloads import PRIVATE_JSON, job_payload
from .requests import (
    asks_for,
    parse_count,
    parse_filter,
    parse_flag,
    parse_job,
    parse_minutes,
    require_here,
)
from .streams import streamed

NDJSON = "application/x-ndjson"

# How many jobs are read in one go, before others have their turn.
PAGE = 50


async def create(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs`: 202 with the new job, which is still pending. 400 for a request that
    breaks a rule or a name that is taken, 501 for what only the real platform does."""
    body = await read_json(request)
    spec = parse_job(body, request.app[STORAGE].uri_to_path, request.app[SECRETS].uri_to_key)
    require_here(body, request.app[IDENTITY])
    job = await request.app[JOBS].create(spec)
    return web.json_response(payload(request, job), status=202, content_type=PRIVATE_JSON)


async def show(request: web.Request) -> web.Response:
    """`GET /api/v1/jobs/{job}`: 200 with the job of that id, or the newest one of that name; 400
    for an unknown one."""
    return web.json_response(payload(request, find(request)), content_type=PRIVATE_JSON)


async def kill(request: web.Request) -> web.Response:
    """`DELETE /api/v1/jobs/{job}`: end the job; 204, also when it has ended already. 400 for an
    unknown one."""
    await request.app[JOBS].cancel(find(request).id)
    return web.Response(status=204)


async def set_life_span(request: web.Request) -> web.Response:
    """`PUT /api/v1/jobs/{job}/max_run_time_minutes`: give the job another life span, or a longer
    one by so many minutes; 204. 400 for an unknown job and for no valid life span."""
    body = await read_json(request)
    job = find(request)  # not before: others may have changed it while the body came
    request.app[JOBS].set_life_span(job.id, parse_minutes(body, job))
    return web.Response(status=204)


async def index(request: web.Request) -> web.StreamResponse:
    """List jobs while they are read: neither their number nor a slow client costs memory."""
    newest_first = parse_flag(request.query, "reverse")
    limit = parse_count(request.query, "limit")
    jobs = itertools.islice(select(request, newest_first=newest_first), limit)
    items = (json.dumps(payload(request, job)) for job in jobs)
    if NDJSON in request.headers.get("Accept", ""):
        return await _streamed(request, NDJSON, (f"{item}\n" for item in items))
    return await _streamed(request, f"{PRIVATE_JSON}; charset=utf-8", _as_object(items))


def _as_object(items: Iterator[str]) -> Iterator[str]:
    yield '{"jobs": ['
    for number, item in enumerate(items):
        yield f", {item}" if number else item
    yield "]}"


async def _streamed(request: web.Request, kind: str, pieces: Iterator[str]) -> web.StreamResponse:
    async with streamed(request, {"Content-Type": kind}) as response:
        while page := list(itertools.islice(pieces, PAGE)):
            await response.write("".join(page).encode())
            # The others' turn; and whether the client has left shows only then.
            await asyncio.sleep(0)
    return response


async def tags(request: web.Request) -> web.Response:
    """`GET /api/v1/tags`: 200 with the tags of the jobs that the query asks for, sorted."""
    found: Set[str] = set()
    for number, job in enumerate(select(request)):
        found.update(job.spec.tags)
        if number % PAGE == 0:
            await asyncio.sleep(0)
    return web.json_response({"tags": sorted(found)})


def select(request: web.Request, *, newest_first: bool = False) -> Iterator[Job]:
    """Yield the jobs that the query asks for: of another project's none, for there are none."""
    filter = parse_filter(request.query)
    if not asks_for(request.query, request.app[IDENTITY]):
        return iter(())
    return request.app[JOBS].select(filter, newest_first=newest_first)


def find(request: web.Request) -> Job:
    """Return the job that the path names. The platform answers 400 for an unknown one."""
    try:
        return request.app[JOBS].get(request.match_info["job"])
    except NotFound as error:
        raise InvalidRequest(str(error)) from None


def find_running(request: web.Request) -> Task:
    """Return the task of the job that the path names, for the older protocol: that answers 400
    where the newer one answers 404."""
    try:
        return request.app[JOBS].running(find(request).id)
    except NotRunning as error:
        raise InvalidRequest(str(error)) from None


def payload(request: web.Request, job: Job) -> Any:
    """Return the job as clients read it. The address of its web page may hold a ticket."""
    return job_payload(job, request.app[IDENTITY], request.app[INGRESS].url(job))


async def read_json(request: web.Request) -> Any:
    """Return the body's JSON. Raises InvalidRequest, also for text that no system call takes."""
    try:
        body = json.loads(await request.read())
        # Half a surrogate pair is JSON and no text; a byte that is no UTF-8 comes as such a half.
        json.dumps(body, ensure_ascii=False).encode(errors="surrogateescape")
    except (ValueError, RecursionError):
        raise InvalidRequest("the request's body is not JSON") from None
    return body


def routes() -> List[web.RouteDef]:
    """Return the routes of jobs and their tags."""
    return [
        web.post("/api/v1/jobs", create),
        web.get("/api/v1/jobs", index),
        web.get("/api/v1/jobs/{job}", show),
        web.delete("/api/v1/jobs/{job}", kill),
        web.put("/api/v1/jobs/{job}/max_run_time_minutes", set_life_span),
        web.get("/api/v1/tags", tags),
    ]
