"""The browser's login hands out the token only to those who know it."""

import base64
import hashlib
from typing import Dict

import pytest

from neuro_local.api.oauth import CALLBACKS, Logins
from neuro_local.errors import InvalidRequest

TOKEN = "a.b.c"
VERIFIER = "verifier"
REDIRECT = "http://127.0.0.1:54540"


def query(**changes: str) -> Dict[str, str]:
    digest = hashlib.sha256(VERIFIER.encode()).digest()
    return {
        "redirect_uri": REDIRECT,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **changes,
    }


def form(code: str, **changes: str) -> Dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": VERIFIER,
        "redirect_uri": REDIRECT,
        **changes,
    }


def test_code_is_worth_the_token() -> None:
    logins = Logins(TOKEN)
    code = logins.authorize(query(), TOKEN, CALLBACKS)
    assert code is not None

    assert logins.redeem(form(code))["access_token"] == TOKEN


def test_code_is_redeemed_once() -> None:
    logins = Logins(TOKEN)
    code = logins.authorize(query(), TOKEN, CALLBACKS)
    assert code is not None
    logins.redeem(form(code))

    with pytest.raises(InvalidRequest, match="log in again"):
        logins.redeem(form(code))


def test_wrong_token_gets_no_code() -> None:
    assert Logins(TOKEN).authorize(query(), "a.b.d", CALLBACKS) is None


def test_challenge_of_any_text_is_compared() -> None:
    logins = Logins(TOKEN)
    code = logins.authorize(query(code_challenge="\u00e9\udcff"), TOKEN, CALLBACKS)
    assert code is not None

    with pytest.raises(InvalidRequest, match="log in again"):
        logins.redeem(form(code))


@pytest.mark.parametrize(
    "change", [{"code_verifier": "other"}, {"redirect_uri": "http://127.0.0.1:1"}]
)
def test_code_is_bound_to_who_asked_for_it(change: Dict[str, str]) -> None:
    logins = Logins(TOKEN)
    code = logins.authorize(query(), TOKEN, CALLBACKS)
    assert code is not None

    with pytest.raises(InvalidRequest):
        logins.redeem(form(code, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "http://example.com/"},
        {"redirect_uri": "http://127.0.0.1:54543"},
        {"redirect_uri": "http://127.0.0.1:54540/more"},
        {"redirect_uri": "http://127.0.0.1:54540@example.com"},
        {"redirect_uri": "http://["},
        {"redirect_uri": ""},
        {"code_challenge_method": "plain"},
        {"code_challenge": ""},
    ],
)
def test_unsafe_requests_are_refused(change: Dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        Logins(TOKEN).authorize(query(**change), TOKEN, CALLBACKS)


def test_refresh_needs_the_token() -> None:
    logins = Logins(TOKEN)

    assert logins.redeem({"grant_type": "refresh_token", "refresh_token": TOKEN})
    with pytest.raises(InvalidRequest):
        logins.redeem({"grant_type": "refresh_token", "refresh_token": "other"})
