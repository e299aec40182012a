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
    [{"redirect_uri": "http://example.com"}, {"code_challenge_method": "plain"}],
)
async def test_login_for_somebody_elses_page_is_refused(
    server: Server, change: Dict[str, str]
) -> None:
    answer = await post(server, authorize_url(**change), token=server.token)

    assert answer.status == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("form", [{}, {"grant_type": "refresh_token"}, {"grant_type": "password"}])
async def test_nothing_is_exchanged_for_nothing(server: Server, form: Dict[str, str]) -> None:
    assert has_error(await post(server, "/oauth/token", **form), 400, "log in again")
