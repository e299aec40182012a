"""What a proxy for HTTP does with every answer, whatever it stands before."""

from __future__ import annotations

import aiohttp
from aiohttp import web

# Of one connection, not of the message (RFC 9110, section 7.6.1); aiohttp sets its own.
HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    " transfer-encoding upgrade".split()
)


async def pass_answer(
    request: web.BaseRequest, answer: aiohttp.ClientResponse
) -> web.StreamResponse:
    """Pass an answer on to whoever asked, piece by piece as it comes."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in HOP_BY_HOP:
            response.headers.add(name, value)
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (OSError, aiohttp.ClientError):
        # Too late for an error page: let the client see that the answer broke off.
        if request.transport is not None:
            request.transport.abort()
    return response
