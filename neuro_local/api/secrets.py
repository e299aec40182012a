"""Secrets over HTTP: list, add, get, remove."""

from __future__ import annotations

import base64
from typing import List

from aiohttp import web

from .jobs import read_json
from .keys import IDENTITY, SECRETS
from .payloads import PRIVATE_JSON, secret_payload
from .requests import asks_for, parse_secret, require_here


async def index(request: web.Request) -> web.Response:
    """List the keys, of another project's none, for there are none."""
    identity = request.app[IDENTITY]
    keys = request.app[SECRETS].keys() if asks_for(request.query, identity) else ()
    return web.json_response([secret_payload(key, identity) for key in keys])


async def add(request: web.Request) -> web.Response:
    """`POST /secrets`: keep a secret, in place of an older one of that key; 201 with the key. 400
    for what is no valid key or value, and for another project."""
    body = await read_json(request)
    key, value = parse_secret(body)
    require_here(body, request.app[IDENTITY])
    request.app[SECRETS].add(key, value)
    return web.json_response(secret_payload(key, request.app[IDENTITY]), status=201)


async def show(request: web.Request) -> web.Response:
    """`GET /secrets/{key}`: 200 with the key and its value in base64; 404 for an unknown key."""
    key = _key(request)
    value = base64.b64encode(request.app[SECRETS].get(key)).decode()
    payload = {**secret_payload(key, request.app[IDENTITY]), "value": value}
    return web.json_response(payload, content_type=PRIVATE_JSON)


async def remove(request: web.Request) -> web.Response:
    """`DELETE /secrets/{key}`: forget the secret; 204. 404 for an unknown key."""
    request.app[SECRETS].remove(_key(request))
    return web.Response(status=204)


def _key(request: web.Request) -> str:
    require_here(request.query, request.app[IDENTITY])
    return request.match_info["key"]


def routes() -> List[web.RouteDef]:
    """Return the routes of secrets."""
    return [
        web.get("/secrets", index),
        web.post("/secrets", add),
        web.get("/secrets/{key}", show),
        web.delete("/secrets/{key}", remove),
    ]
