"""Who may see a job's web page.

The address that the platform shows holds a ticket. Addresses end up in process lists, histories
and scrollbacks, so a ticket is worth one visit: the first request that shows it gets a cookie.
Browsers send a cookie to every port of a host, and count all of them as one site: so each job's
cookie has a name of its own, and what can change something must come from the page itself.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import Optional

from aiohttp import web
from yarl import URL

from .models import Job

TICKET = "neuro-local-ticket"
COOKIE_PREFIX = "neuro-local-"

# How a browser names this machine, directly or through a tunnel. Any other name was made to lead
# here by somebody else, whose pages would then pass for ours (DNS rebinding).
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # these change nothing (RFC 9110, section 9.2.1)

_OURS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}  # on our own answers

_UNKNOWN = (
    "401: this address was used before, or is not whole.\n"
    "Each one opens the page once; `neuro status {job}` shows a fresh one.\n"
)
_WRONG_HOST = "403: this page is reached as 127.0.0.1 or localhost, not as {host!r}\n"
_FOREIGN = "403: a page of {origin!r} must not act on this one\n"


class Admission:
    """Decides who sees the page of one job. All it knows goes with the page."""

    def __init__(self, job: Job) -> None:
        assert job.spec.http is not None
        self._open = not job.spec.http.requires_auth
        self._job = job.spec.name or job.id
        self._cookie = COOKIE_PREFIX + job.id
        self._key = secrets.token_urlsafe(24)
        self._ticket = _new_ticket()

    def invite(self, page: URL) -> URL:
        """Return the address that opens the page. It stays the same until it is used, so that
        one visit makes all copies worthless that clients have noted meanwhile."""
        return page if self._open else page.with_query({TICKET: self._ticket})

    def answer(self, request: web.BaseRequest) -> Optional[web.Response]:
        """Return our own answer to a request, or None if it may go on to the job."""
        host = request.headers.get("Host", "")
        if not _LOOPBACK.fullmatch(host):
            return _refusal(403, _WRONG_HOST.format(host=host))
        if self._open:
            return None
        known = _same(request.cookies.get(self._cookie), self._key)
        if TICKET in request.query and (self._spend(request) or known):
            return self._welcome(request)
        if not known:
            return _refusal(401, _UNKNOWN.format(job=self._job))
        if _may_change(request) and _is_foreign(request, host):
            return _refusal(403, _FOREIGN.format(origin=request.headers["Origin"]))
        return None

    def _spend(self, request: web.BaseRequest) -> bool:
        """Take the ticket of a visit; what only looks ahead must not use it up."""
        if request.method != "GET" or "Upgrade" in request.headers or _is_prefetch(request):
            return False
        if not _same(request.query[TICKET], self._ticket):
            return False
        self._ticket = _new_ticket()
        return True

    def _welcome(self, request: web.BaseRequest) -> web.Response:
        """Send on to the same address without the ticket, with the cookie."""
        rest = [(name, value) for name, value in request.query.items() if name != TICKET]
        # A path that begins with two slashes would name another host.
        target = "/" + request.rel_url.raw_path.lstrip("/\\")
        location = URL.build(path=target, encoded=True).with_query(rest)
        response = web.Response(status=303, headers={"Location": str(location), **_OURS})
        response.set_cookie(self._cookie, self._key, httponly=True, samesite="Lax")
        return response


def _new_ticket() -> str:
    return secrets.token_hex(16)  # no character on which a terminal's links would break off


def _refusal(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_OURS)


def _same(value: Optional[str], secret: str) -> bool:
    return value is not None and hmac.compare_digest(
        value.encode(errors="replace"), secret.encode()
    )


def _is_prefetch(request: web.BaseRequest) -> bool:
    purposes = (request.headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Moz"))
    return any("prefetch" in purpose for purpose in purposes)


def _may_change(request: web.BaseRequest) -> bool:
    return request.method not in _SAFE or "Upgrade" in request.headers


def _is_foreign(request: web.BaseRequest, host: str) -> bool:
    """Whether a browser sends this for a page of another origin; others send no Origin."""
    origin = request.headers.get("Origin")
    if origin is None or origin.lower() == f"http://{host}".lower():
        return False
    # A page without referrers has the Origin null even for itself; this header tells.
    return request.headers.get("Sec-Fetch-Site") != "same-origin"
