"""What a client learns at login, and the pages that log it in."""

from __future__ import annotations

from typing import Dict, List
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from ..config import PRESETS
from ..errors import InvalidRequest
from . import oauth
from .keys import AUTHORIZED, BASE_URL, IDENTITY, LOGINS
from .payloads import PRIVATE_JSON, config_payload

PUBLIC = (
    "/api/v1/config",
    "/oauth/authorize",
    "/oauth/token",
    "/oauth/logout",
    "/oauth/success",
    oauth.SHOW_CODE,
)
# Jobs of one preset that may run at once; clients show it, nothing enforces it.
CAPACITY = 1000
FORM = "application/x-www-form-urlencoded"


async def get_config(request: web.Request) -> web.Response:
    """`GET /api/v1/config`: 200 with what a client learns at login, without a token only where to
    log in. A wrong token is refused with 401."""
    authorized = request.get(AUTHORIZED, False)
    payload = config_payload(request.app[IDENTITY], request.app[BASE_URL], authorized=authorized)
    return web.json_response(payload)


async def get_capacity(request: web.Request) -> web.Response:
    """`GET /monitoring/jobs/capacity`: 200 with how many jobs of each preset may run at once."""
    return web.json_response({preset.name: CAPACITY for preset in PRESETS})


async def read_form(request: web.Request) -> Dict[str, str]:
    """Return the body's form. Raises InvalidRequest, also for one in parts, which could be files:
    neither the page nor the clients send that."""
    if request.content_type != FORM:
        raise InvalidRequest(f"the form is not {FORM}")
    try:
        text = (await request.read()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise InvalidRequest("the form is not in UTF-8") from None


async def ask_for_token(request: web.Request) -> web.Response:
    """`GET /oauth/authorize`: 200 with the page that asks for the token; its form comes back to
    `authorize`."""
    message = "Paste the token of this platform. It is in the file that `neuro-local up` names."
    return web.Response(text=oauth.page(message), content_type="text/html")


async def authorize(request: web.Request) -> web.Response:
    """`POST /oauth/authorize`: 303 to the query's `redirect_uri` with a code, for the right token
    in the form. 403 with the page again for a wrong one, 400 for a query that no client of ours
    sends."""
    form = await read_form(request)
    callbacks = {*oauth.CALLBACKS, request.app[BASE_URL] + oauth.SHOW_CODE}
    code = request.app[LOGINS].authorize(request.query, form.get("token", ""), callbacks)
    if code is None:
        text = oauth.page("That is not the token of this platform. Try again.")
        return web.Response(text=text, content_type="text/html", status=403)
    location = f"{request.query['redirect_uri']}?{urlencode({'code': code})}"
    return web.Response(status=303, headers={"Location": location})


async def exchange(request: web.Request) -> web.Response:
    """`POST /oauth/token`: 200 with the token, for the form's code or refresh token. 400 for a code
    that has expired, and for what was never granted."""
    payload = request.app[LOGINS].redeem(await read_form(request))
    return web.json_response(payload, content_type=PRIVATE_JSON)


async def show_code(request: web.Request) -> web.Response:
    """Show the code of a login whose client cannot be reached from the browser. It is worth
    nothing to anybody but that client, which alone can prove that it asked for it."""
    code = request.query.get("code")
    if not code:
        raise InvalidRequest("there is no code to show; the login page leads here with one")
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'"}
    return web.Response(text=oauth.code_page(code), content_type="text/html", headers=headers)


async def say_done(request: web.Request) -> web.Response:
    """`GET /oauth/success` and `GET /oauth/logout`: 200 with a line of text. Neither changes
    anything."""
    return web.Response(text="Done. You can close this page.\n")


def routes() -> List[web.RouteDef]:
    """Return the routes of configuration and login."""
    return [
        web.get("/api/v1/config", get_config),
        web.get("/monitoring/jobs/capacity", get_capacity),
        web.get("/oauth/authorize", ask_for_token),
        web.post("/oauth/authorize", authorize),
        web.post("/oauth/token", exchange),
        web.get(oauth.SHOW_CODE, show_code),
        web.get("/oauth/success", say_done),
        web.get("/oauth/logout", say_done),
    ]
