"""What clients learn about the platform, and how they log in."""

from __future__ import annotations

import base64
import hashlib
from typing import Dict
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from neuro_local.models import Identity

from .conftest import has_error
from .wire import Answer, Server

CONFIG = "/api/v1/config"
OAUTH = {"auth_url", "token_url", "logout_url", "client_id", "audience", "headless_callback_url"}
# Section by section of the platform's API, what either client stops without.
CLUSTER = "name registry_url storage_url users_url monitoring_url secrets_url disks_url buckets_url"
CLUSTER += " resource_pool_types resource_presets"
PRESET = "name cpu memory memory_mb credits_per_hour"
VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=")
REDIRECT = "http://127.0.0.1:54540"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def stranger(server: Server, target: str) -> Answer:
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return await server.say(request.encode())


@pytest.mark.real_server
async def test_stranger_learns_where_to_log_in(server: Server) -> None:
    config = (await stranger(server, CONFIG)).json()

    assert OAUTH <= set(config)
    # Given clusters, the newer client would make itself a token instead of asking for one.
    assert "clusters" not in config and "projects" not in config


@pytest.mark.real_server
async def test_user_learns_all_that_either_client_needs(server: Server) -> None:
    config = (await server.ask("GET", CONFIG)).json()

    identity = Identity()
    assert config["authorized"] is True
    (cluster,) = config["clusters"]
    assert set(CLUSTER.split()) <= set(cluster)
    assert cluster["orgs"] == [identity.org]
    for preset in cluster["resource_presets"]:
        assert set(PRESET.split()) <= set(preset)
        assert preset["memory"] == preset["memory_mb"] * 2**20
        assert not {"tpu", "nvidia_gpu", "gpu"} & set(preset)
    place = {"name": identity.project, "cluster_name": cluster["name"], "org_name": identity.org}
    assert config["projects"] == [{**place, "role": "owner"}]
    # With either, the newer client asks for quotas, which nobody has here.
    assert not {"admin_url", "vcluster_url"} & set(config)


@pytest.mark.real_server
async def test_addresses_are_where_either_client_looks(server: Server) -> None:
    config = (await server.ask("GET", CONFIG)).json()
    (cluster,) = config["clusters"]

    assert urlsplit(cluster["registry_url"]).netloc == f"127.0.0.1:{server.port}"
    # The older client finds disks and blobs by replacing these words.
    assert "/secrets" in cluster["secrets_url"] and "/storage" in cluster["storage_url"]
    monitoring = urlsplit(cluster["monitoring_url"]).path
    capacity = (await server.ask("GET", f"{monitoring}/capacity")).json()
    assert set(capacity) == {preset["name"] for preset in cluster["resource_presets"]}
    assert all(isinstance(number, int) for number in capacity.values())


# The browser's way


def authorize_url(**change: str) -> str:
    query = {
        "response_type": "code",
        "code_challenge": CHALLENGE.decode(),
        "code_challenge_method": "S256",
        "client_id": "neuro-local",
        "redirect_uri": REDIRECT,
        "scope": "offline_access",
        "audience": "x",
        **change,
    }
    return f"/oauth/authorize?{urlencode(query)}"


async def post(server: Server, target: str, **form: str) -> Answer:
    # Without the header that clients send elsewhere: the browser has none.
    body = urlencode(form).encode()
    fields = {"Host": "x", "Connection": "close", "Content-Length": str(len(body)), **FORM}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return await server.say(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + body)


async def granted(server: Server) -> str:
    """Return the code that the page hands to the client."""
    answer = await post(server, authorize_url(), token=server.token)
    assert answer.status == 303
    assert answer.headers["location"].startswith(f"{REDIRECT}?")
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def exchange(code: str, **change: str) -> Dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code_verifier": VERIFIER,
        "code": code,
        "client_id": "neuro-local",
        "redirect_uri": REDIRECT,
        **change,
    }


@pytest.mark.real_server
async def test_code_from_the_page_is_exchanged_for_the_token(server: Server) -> None:
    page = await stranger(server, authorize_url())
    answer = await post(server, "/oauth/token", **exchange(await granted(server)))

    assert (page.status, page.kind) == (200, "text/html")
    login = answer.json()
    assert login["access_token"] == server.token
    assert login["expires_in"] > 0 and login["refresh_token"]


async def test_code_that_is_carried_by_hand_is_shown_and_exchanged(server: Server) -> None:
    shown_at = (await stranger(server, CONFIG)).json()["headless_callback_url"]
    granted = await post(server, authorize_url(redirect_uri=shown_at), token=server.token)
    location = granted.headers["location"]
    assert granted.status == 303 and location.startswith(f"{shown_at}?code=")

    page = await stranger(server, location.removeprefix(f"http://127.0.0.1:{server.port}"))

    code = parse_qs(urlsplit(location).query)["code"][0]
    assert (page.status, page.kind) == (200, "text/html")
    assert f"<pre>{code}</pre>".encode() in page.body
    assert page.headers["cache-control"] == "no-store"
    form = exchange(code, redirect_uri=shown_at)
    assert (await post(server, "/oauth/token", **form)).json()["access_token"] == server.token


async def test_page_with_a_code_executes_none(server: Server) -> None:
    page = await stranger(server, "/oauth/show-code?code=%3Cscript%3Ealert(1)%3C/script%3E")

    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in page.body and b"<script" not in page.body
    assert page.headers["content-security-policy"] == "default-src 'none'"


@pytest.mark.parametrize("query", ["", "?code=", "?error=access_denied"])
async def test_page_without_a_code_says_so(server: Server, query: str) -> None:
    answer = await stranger(server, f"/oauth/show-code{query}")

    assert has_error(answer, 400, "there is no code to show")


@pytest.mark.parametrize("query", ["", "?client_id=neuro-local"])
@pytest.mark.parametrize("page", ["logout", "success"])
async def test_last_pages_of_a_login_and_of_a_logout(server: Server, page: str, query: str) -> None:
    answer = await stranger(server, f"/oauth/{page}{query}")

    assert (answer.status, answer.kind) == (200, "text/plain")
    assert b"You can close this page" in answer.body


@pytest.mark.real_server
async def test_login_is_refreshed(server: Server) -> None:
    first = (await post(server, "/oauth/token", **exchange(await granted(server)))).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}

    second = (await post(server, "/oauth/token", **form, client_id="neuro-local")).json()

    assert second["access_token"] == server.token
    assert second["expires_in"] > 0


async def test_code_is_worth_the_token_once(server: Server) -> None:
    form = exchange(await granted(server))

    assert (await post(server, "/oauth/token", **form)).status == 200
    assert has_error(await post(server, "/oauth/token", **form), 400, "log in again")


async def test_wrong_token_gets_the_page_again(server: Server) -> None:
    answer = await post(server, authorize_url(), token="wrong")

    assert (answer.status, answer.kind) == (403, "text/html")


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "http://example.com"},
        {"redirect_uri": "http://127.0.0.1:54543"},  # another user's, maybe
        {"redirect_uri": "http://127.0.0.1:54540/x"},
        {"redirect_uri": "http://127.0.0.1:54540@example.com"},
        {"redirect_uri": "http://["},
        {"redirect_uri": ""},
        {"code_challenge_method": "plain"},
    ],
    ids=str,
)
async def test_login_for_somebody_elses_page_is_refused(
    server: Server, change: Dict[str, str]
) -> None:
    answer = await post(server, authorize_url(**change), token=server.token)

    assert answer.status == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "w" * 50},
        {"code_verifier": ""},
        {"code_verifier": "\xe9"},
        {"redirect_uri": "http://127.0.0.1:54541"},
        {"code": "wrong"},
    ],
    ids=ascii,
)
async def test_code_is_worth_nothing_to_others(server: Server, change: Dict[str, str]) -> None:
    form = {**exchange(await granted(server)), **change}

    assert has_error(await post(server, "/oauth/token", **form), 400, "log in again")


async def test_code_of_a_challenge_that_is_none_is_worth_nothing(server: Server) -> None:
    answer = await post(server, authorize_url(code_challenge="\xe9"), token=server.token)
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]

    assert has_error(await post(server, "/oauth/token", **exchange(code)), 400, "log in again")


@pytest.mark.parametrize("token", ["wrong", "", "\xe9"], ids=ascii)
async def test_wrong_refresh_token_is_refused(server: Server, token: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "neuro-local"}

    assert has_error(await post(server, "/oauth/token", **form), 400, "log in again")


PART = b'--x\r\nContent-Disposition: form-data; name="token"%s\r\n\r\nabc\r\n--x--\r\n'
URLENCODED = FORM["Content-Type"]
BAD_FORMS = [
    (URLENCODED, b"\xff=\xfe", "not in UTF-8"),
    (URLENCODED, b"token=%ff", "not in UTF-8"),
    (f"{URLENCODED}; charset=utf-16", b"\xff", "not in UTF-8"),
    ("multipart/form-data; boundary=x", PART % b"", "the form is not"),
    ("multipart/form-data; boundary=x", PART % b'; filename="a"', "the form is not"),
    ("multipart/form-data", b"", "the form is not"),
    ("application/json", b'{"token": 1}', "the form is not"),
    ("", b"token=x", "the form is not"),
]


@pytest.mark.parametrize("kind, body, words", BAD_FORMS, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("target", [authorize_url(), "/oauth/token"], ids=lambda url: url[:16])
async def test_form_that_is_none_is_refused(
    server: Server, target: str, kind: str, body: bytes, words: str
) -> None:
    fields = f"Host: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    head = f"POST {target} HTTP/1.1\r\n{fields}\r\nContent-Type: {kind}\r\n\r\n"

    assert has_error(await server.say(head.encode() + body), 400, words)


@pytest.mark.parametrize("charset", ["latin-1", "klingon"])
async def test_form_is_read_whatever_charset_it_claims(server: Server, charset: str) -> None:
    body = urlencode({"grant_type": "refresh_token", "refresh_token": server.token}).encode()
    fields = f"Host: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    kind = f"{URLENCODED}; charset={charset}"
    head = f"POST /oauth/token HTTP/1.1\r\n{fields}\r\nContent-Type: {kind}\r\n\r\n"

    assert (await server.say(head.encode() + body)).json()["access_token"] == server.token


@pytest.mark.parametrize("form", [{}, {"grant_type": "refresh_token"}, {"grant_type": "password"}])
async def test_nothing_is_exchanged_for_nothing(server: Server, form: Dict[str, str]) -> None:
    assert has_error(await post(server, "/oauth/token", **form), 400, "log in again")
