"""The route table, and the answer for what the platform has and neuro-local lacks."""

from __future__ import annotations

from typing import List

from aiohttp import web

from ..errors import Unsupported
from . import config, execs, inside, jobs, output, registry, secrets, storage, top


def all_routes() -> List[web.RouteDef]:
    """Return all routes of the server; the last one takes what no other does."""
    return [
        *config.routes(),
        *jobs.routes(),
        *output.routes(),
        *execs.routes(),
        *inside.routes(),
        *top.routes(),
        *secrets.routes(),
        *storage.routes("/storage"),
        *registry.routes(),
        # A plain dot would not match a line break.
        web.route("*", r"/{path:[\s\S]*}", unsupported),
    ]


def is_public(request: web.Request) -> bool:
    """Whether strangers may come here: they have to learn where to log in."""
    return request.path in config.PUBLIC


async def unsupported(request: web.Request) -> web.Response:
    r"""`* /{path:[\s\S]*}`, whatever no other route takes: always refused, with 501."""
    raise Unsupported(f"neuro-local does not have {request.method} {request.path}")
