"""The browser's way to log in: OAuth 2.0 authorization code with PKCE (RFC 6749, RFC 7636).

Loopback is open to every user of the machine, so the page asks for the instance's token, which
only the owner can read; what it hands out is that same token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import secrets
import time
from dataclasses import dataclass
from typing import Collection, Dict, Mapping, Optional

from ..config import HOST
from ..errors import InvalidRequest

# Where clients wait for the browser to bring them the code: the first of these that is free.
CALLBACKS = tuple(f"http://{HOST}:{port}" for port in (54540, 54541, 54542))
# Where the browser is sent when it cannot reach the client, which then asks for what is shown.
SHOW_CODE = "/oauth/show-code"

# Seconds; both figures only have to be plausible to the clients.
CODE_LIFE = 60.0
TOKEN_LIFE = 10 * 365 * 24 * 3600


@dataclass(frozen=True)
class _Pending:
    challenge: str
    redirect_uri: str
    expires: float


class Logins:
    """Codes that were handed out and not yet redeemed."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._pending: Dict[str, _Pending] = {}

    def authorize(
        self, query: Mapping[str, str], token: str, callbacks: Collection[str]
    ) -> Optional[str]:
        """Return a code for the client that asked with this query; None for a wrong token.

        Raises InvalidRequest for a query that no client of ours sends: another user of this
        machine may listen at any other address than `callbacks`.
        """
        redirect_uri = query.get("redirect_uri", "")
        if redirect_uri not in callbacks:
            raise InvalidRequest(
                f"redirect_uri {redirect_uri!r} is none of {', '.join(sorted(callbacks))}"
            )
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise InvalidRequest("the login needs a code_challenge of method S256")
        if not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            return None
        self._forget_expired()
        code = secrets.token_urlsafe(24)
        expires = time.monotonic() + CODE_LIFE
        self._pending[code] = _Pending(query["code_challenge"], redirect_uri, expires)
        return code

    def redeem(self, form: Mapping[str, str]) -> Dict[str, object]:
        """Return the token for a code, once, or for a refresh token. Raises InvalidRequest."""
        if form.get("grant_type") == "refresh_token":
            granted = hmac.compare_digest(
                form.get("refresh_token", "").encode(), self._token.encode()
            )
        else:
            granted = self._redeem_code(form)
        if not granted:
            raise InvalidRequest("the login has expired or was never granted; log in again")
        return {
            "access_token": self._token,
            "refresh_token": self._token,
            "expires_in": TOKEN_LIFE,
            "token_type": "Bearer",
        }

    def _redeem_code(self, form: Mapping[str, str]) -> bool:
        self._forget_expired()
        pending = self._pending.pop(form.get("code", ""), None)
        return (
            pending is not None
            and form.get("redirect_uri") == pending.redirect_uri
            and hmac.compare_digest(
                _challenge(form.get("code_verifier", "")).encode(),
                pending.challenge.encode(errors="replace"),  # it may be any text
            )
        )

    def _forget_expired(self) -> None:
        moment = time.monotonic()
        self._pending = {c: p for c, p in self._pending.items() if p.expires > moment}


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def page(message: str) -> str:
    """Return the page that asks for the token and posts it to its own address."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in to neuro-local</title></head>
<body><h1>Log in to neuro-local</h1><p>{html.escape(message)}</p>
<form method="post"><label>Token: <input name="token" type="password" autofocus></label>
<button>Log in</button></form></body></html>
"""


def code_page(code: str) -> str:
    """Return the page that shows the code to whoever takes it to the client by hand."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in to neuro-local</title></head>
<body><h1>Log in to neuro-local</h1><p>Give the client this code, within a minute:</p>
<pre>{html.escape(code)}</pre></body></html>
"""
