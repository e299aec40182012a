"""What a client learns at login, and the pages that log it in."""

from __future__ import annotations

from typing import List, cast
from urllib.parse import urlencode

from aiohttp import web

from ..config import PRESETS
from . import oauth
from .keys import AUTHORIZED, BASE_URL, IDENTITY, LOGINS
from .payloads import PRIVATE_JSON, config_payload

PUBLIC = ("/api/v1/config", "/oauth/authorize", "/oauth/token", "/oauth/logout", "/oauth/success")
# Jobs of one preset that may run at once; clients show it, nothing enforces it.
CAPACITY = 1000


async def get_config(request: web.Request) -> web.Response:
    authorized = request.get(AUTHORIZED, False)
    payload = config_payload(request.app[IDENTITY], request.app[BASE_URL], authorized=authorized)
    return web.json_response(payload)


async def get_capacity(request: web.Request) -> web.Response:
    return web.json_response({preset.name: CAPACITY for preset in PRESETS})


async def ask_for_token(request: web.Request) -> web.Response:
    message = "Paste the token of this platform. It is in the file that `neuro-local up` names."
    return web.Response(text=oauth.page(message), content_type="text/html")


async def authorize(request: web.Request) -> web.Response:
    form = await request.post()
    code = request.app[LOGINS].authorize(request.query, cast(str, form.get("token", "")))
    if code is None:
        text = oauth.page("That is not the token of this platform. Try again.")
        return web.Response(text=text, content_type="text/html", status=403)
    separator = "&" if "?" in request.query["redirect_uri"] else "?"
    location = request.query["redirect_uri"] + separator + urlencode({"code": code})
    return web.Response(status=303, headers={"Location": location})


async def exchange(request: web.Request) -> web.Response:
    form = await request.post()
    payload = request.app[LOGINS].redeem({key: str(value) for key, value in form.items()})
    return web.json_response(payload, content_type=PRIVATE_JSON)


async def say_done(request: web.Request) -> web.Response:
    return web.Response(text="Done. You can close this page.\n")


def routes() -> List[web.RouteDef]:
    return [
        web.get("/api/v1/config", get_config),
        web.get("/monitoring/jobs/capacity", get_capacity),
        web.get("/oauth/authorize", ask_for_token),
        web.post("/oauth/authorize", authorize),
        web.post("/oauth/token", exchange),
        web.get("/oauth/success", say_done),
        web.get("/oauth/logout", say_done),
    ]
