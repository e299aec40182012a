"""Jobs over HTTP: create, list, show, kill."""

from __future__ import annotations

import json
from typing import Any, List

from aiohttp import web

from ..errors import InvalidRequest, NotFound
from ..models import Job
from .keys import IDENTITY, INGRESS, JOBS, STORAGE
from .payloads import PRIVATE_JSON, job_payload
from .requests import parse_filter, parse_job

NDJSON = "application/x-ndjson"


async def create(request: web.Request) -> web.Response:
    spec = parse_job(await read_json(request), request.app[STORAGE].uri_to_path)
    job = await request.app[JOBS].create(spec)
    return web.json_response(payload(request, job), status=202, content_type=PRIVATE_JSON)


async def show(request: web.Request) -> web.Response:
    return web.json_response(payload(request, find(request)), content_type=PRIVATE_JSON)


async def kill(request: web.Request) -> web.Response:
    await request.app[JOBS].cancel(find(request).id)
    return web.Response(status=204)


async def index(request: web.Request) -> web.StreamResponse:
    newest_first = request.query.get("reverse", "").lower() in ("1", "true")
    jobs = request.app[JOBS].select(parse_filter(request.query), newest_first=newest_first)
    limit = request.query.get("limit")
    if limit is not None:
        if not limit.isdecimal() or int(limit) < 1:
            raise InvalidRequest(f"limit {limit!r} is not a number above 0")
        jobs = jobs[: int(limit)]
    payloads = (payload(request, job) for job in jobs)
    if NDJSON not in request.headers.get("Accept", ""):
        return web.json_response({"jobs": list(payloads)}, content_type=PRIVATE_JSON)
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    for item in payloads:
        await response.write(json.dumps(item).encode() + b"\n")
    await response.write_eof()
    return response


async def tags(request: web.Request) -> web.Response:
    jobs = request.app[JOBS].select(parse_filter(request.query), newest_first=False)
    return web.json_response({"tags": sorted({tag for job in jobs for tag in job.spec.tags})})


def find(request: web.Request) -> Job:
    """Return the job that the path names. The platform answers 400 for an unknown one."""
    try:
        return request.app[JOBS].get(request.match_info["job"])
    except NotFound as error:
        raise InvalidRequest(str(error)) from None


def payload(request: web.Request, job: Job) -> Any:
    return job_payload(job, request.app[IDENTITY], request.app[INGRESS].url(job))


async def read_json(request: web.Request) -> Any:
    try:
        return json.loads(await request.text())
    except ValueError:
        raise InvalidRequest("the request's body is not JSON") from None


def routes() -> List[web.RouteDef]:
    return [
        web.post("/api/v1/jobs", create),
        web.get("/api/v1/jobs", index),
        web.get("/api/v1/jobs/{job}", show),
        web.delete("/api/v1/jobs/{job}", kill),
        web.get("/api/v1/tags", tags),
    ]
