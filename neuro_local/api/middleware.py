"""Who may come in, and the one place that turns errors into status codes and JSON."""

from __future__ import annotations

import base64
import hmac
import logging
from typing import Callable, Mapping, Type

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from ..errors import (
    EngineUnavailable,
    InvalidRequest,
    NeuroLocalError,
    NotFound,
    NotRunning,
    SaveFailed,
    StartFailed,
    StorageError,
    Unauthorized,
    Unsupported,
)
from .keys import AUTHORIZED

logger = logging.getLogger(__name__)

# What a user is told of a failure of ours.
FAILED = "neuro-local failed; `neuro-local logs` shows why"

STATUS: Mapping[Type[NeuroLocalError], int] = {
    InvalidRequest: 400,
    StorageError: 400,
    StartFailed: 400,
    SaveFailed: 400,
    Unauthorized: 401,
    NotFound: 404,
    NotRunning: 404,
    Unsupported: 501,
    EngineUnavailable: 503,
}


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer `{"error": text}`, and the text in X-Error, where a refused WebSocket's client
    looks for it. What is not meant for users becomes a 500 and a traceback in the log."""
    try:
        return await handler(request)
    except NeuroLocalError as error:
        response = refusal(status_of(error), str(error))
        if isinstance(error, StorageError):
            response = refusal(status_of(error), str(error), errno=error.symbol)
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = "Bearer"
        return response
    except web.HTTPException as error:  # aiohttp's own: too large a body, no WebSocket
        return refusal(error.status, error.text or error.reason)
    except HttpProcessingError as error:
        return refusal(400, f"the request's body is malformed: {error.message}")
    except Exception as error:
        if isinstance(error, ConnectionError) and is_gone(request):
            return web.Response(status=400)  # to nobody
        logger.exception("%s %s", request.method, request.path)
        return refusal(500, FAILED)


def is_gone(request: web.Request) -> bool:
    """Whether the client has hung up, and with it whoever could be answered."""
    return request.transport is None or request.transport.is_closing()


def refusal(status: int, text: str, **more: object) -> web.Response:
    """Return the answer for an error, as both clients read it."""
    headers = {"X-Error": _one_line(text)}
    return web.json_response({"error": text, **more}, status=status, headers=headers)


def status_of(error: NeuroLocalError) -> int:
    """Return the HTTP status for an error, that of its nearest class in STATUS; 500 without one."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def authentication(token: str, public: Callable[[web.Request], bool]) -> Middleware:
    """Return the middleware that lets in requests with the token, and `public` ones."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        header = request.headers.get("Authorization")
        if header is None and public(request):
            return await handler(request)
        if header is None or not hmac.compare_digest(_credential(header), token.encode()):
            raise Unauthorized(
                "no token, or not this platform's; `neuro-local env` prints how to log in"
            )
        request[AUTHORIZED] = True
        return await handler(request)

    return authenticate


def _credential(header: str) -> bytes:
    """Return the token of a Bearer header, or the password of a Basic one (the registry's)."""
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value).partition(b":")[2]
        except ValueError:  # no base64, or not even ASCII
            return b""
    return value.encode(errors="replace") if kind.lower() == "bearer" else b""


def _one_line(text: str) -> str:
    # A header holds neither line breaks nor much beyond ASCII.
    return " ".join(text.split()).encode("ascii", "replace").decode()[:1000]
