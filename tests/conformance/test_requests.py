"""What is wrong with a request is said in one way, and does no harm to others."""

from __future__ import annotations

import base64
import json
import re
from typing import Dict, List

import pytest
from e2e.platform import Job, Platform

from neuro_local.api.config import PUBLIC
from neuro_local.api.routes import all_routes

from .conftest import Folder, has_error
from .wire import Server

JOBS = "/api/v1/jobs"
CONFIG = "/api/v1/config"
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND".split()


# Who asks

WRONG_CREDENTIALS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer {token}x",
    "bearer  {token}",
    "Token {token}",
    "Basic {token}",
    "Basic !!!",
    "Basic \xe9",
    "Basic " + base64.b64encode(b"user:wrong").decode(),
    "Bearer \xff",
]
DOORS = [
    ("GET", JOBS),
    ("POST", JOBS),
    ("GET", CONFIG),
    ("GET", "/storage/user?op=LISTSTATUS"),
    ("PUT", "/storage/user/intruder?op=CREATE"),
    ("GET", "/monitoring/jobs/capacity"),
    ("GET", "/no/such/thing"),
]

# Seen at the platform's storage, of a bad token; the other services are taken to be alike, and so
# is whatever else is no credential.
ATTEMPTS = [
    pytest.param(
        credential,
        *door,
        marks=[pytest.mark.real_server] * (credential == "Bearer wrong" and "storage" in door[1]),
    )
    for credential in WRONG_CREDENTIALS
    for door in DOORS
]


@pytest.mark.parametrize("credential, method, target", ATTEMPTS)
async def test_wrong_credential_is_401(
    server: Server, method: str, target: str, credential: str
) -> None:
    headers = {"Authorization": credential.format(token=server.token)}

    answer = await server.ask(method, target, headers=headers)

    assert has_error(answer, 401, "no token, or not this platform's")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method, target", DOORS)
async def test_stranger_is_let_in_where_it_says_how_to_log_in_and_nowhere_else(
    server: Server, method: str, target: str
) -> None:
    answer = await server.say(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + CLOSED)

    assert answer.status == (200 if target == CONFIG else 401)


async def test_every_door_is_shut_to_strangers_whatever_they_do_there(
    server: Server, sleeper: Job
) -> None:
    names = {"job": sleeper.id, "port": "80", "exec": "0123", "path": "a", "name": "user/image"}
    paths = {
        re.sub(r"\{(\w+)[^}]*\}", lambda match: names.get(match[1], "key"), route.path)
        for route in all_routes()
    }
    doors = [(method, path) for path in sorted(paths) for method in METHODS]
    assert len(doors) > 200

    opened: List[object] = []
    for method, path in doors:
        for credential in None, "Bearer wrong":
            if credential is None and path in PUBLIC:
                continue
            field = f"Authorization: {credential}\r\n" if credential else ""
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{field}Connection: close\r\n\r\n"
            answer = await server.say(head.encode())
            if answer.status != 401:
                opened.append((method, path, credential, answer.status))

    assert opened == []
    assert (await server.ask("GET", f"{JOBS}/{sleeper.id}")).json()["status"] == "running"


# A second request on the same connection, which ends it.
CLOSED = b"GET /oauth/success HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("path", ["log_ws", "attach?tty=0&stdin=1", "exec?cmd=ls&tty=0", "top"])
async def test_stranger_at_a_websocket_is_told_in_the_header(
    server: Server, sleeper: Job, path: str
) -> None:
    target = f"/monitoring/jobs/{sleeper.id}/{path}"

    answer = await server.refusal(target, Authorization="Bearer wrong")

    assert has_error(answer, 401, "no token")
    assert answer.headers["x-error"].startswith("no token")


async def test_registry_takes_the_token_as_the_password(server: Server) -> None:
    login = base64.b64encode(f"user:{server.token}".encode()).decode()

    answer = await server.ask("GET", "/v2/", headers={"Authorization": f"Basic {login}"})

    assert answer.status == 200


# What is asked

LACKING = [
    ("GET", "/disk"),
    ("GET", "/buckets"),
    ("POST", "/api/v1/users/user/permissions"),
    ("DELETE", "/api/v1/users/user/permissions?uri=storage:x"),
    ("PATCH", "/secrets"),
    ("PUT", "/secrets/key"),
    ("GET", "/"),
    ("GET", "/line%0Abreak"),
    ("PATCH", JOBS),
    ("OPTIONS", "/storage/user"),
    ("PROPFIND", "/storage/user"),
]


@pytest.mark.parametrize("method, target", LACKING)
async def test_what_is_lacking_is_named(server: Server, method: str, target: str) -> None:
    answer = await server.ask(method, target)

    assert has_error(answer, 501, f"neuro-local does not have {method} /")


async def test_socket_that_is_lacking_is_refused_by_name(server: Server, sleeper: Job) -> None:
    answer = await server.refusal(f"/monitoring/jobs/{sleeper.id}/events")

    assert has_error(answer, 501, "does not have GET")
    assert answer.headers["x-error"].endswith("/events")


# What is sent

BROKEN_JSON: List[bytes] = [
    b"",
    b"{",
    b"{}}",
    b"nonsense",
    b"'single'",
    b'{"image": "a" "b"}',
    b'{"image": }',
    b"\xff\xfe\xfd",
    b'{"image": "\xff"}',
    b"\xef\xbb\xbf{",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"image": "\\ud800"}',
    b'{"n": ' + b"9" * 10_000 + b"}",
    b"\0" * 100,
]
NOT_A_JOB: List[bytes] = [b"null", b"[]", b'"text"', b"1", b"NaN", b"true", b"[{}]", b"{}"]


@pytest.mark.parametrize("body", BROKEN_JSON + NOT_A_JOB, ids=lambda body: repr(body[:20]))
async def test_body_that_is_no_job_is_refused(
    server: Server, platform: Platform, body: bytes
) -> None:
    before = len(platform.jobs())

    answer = await server.ask("POST", f"{JOBS}?from_preset", body)

    assert has_error(answer, 400, "")
    assert len(platform.jobs()) == before


@pytest.mark.parametrize("path", ["exec_create", "save"])
@pytest.mark.parametrize("body", BROKEN_JSON + NOT_A_JOB, ids=lambda body: repr(body[:20]))
async def test_body_that_is_no_request_for_a_job_is_refused(
    server: Server, sleeper: Job, path: str, body: bytes
) -> None:
    answer = await server.ask("POST", f"/monitoring/jobs/{sleeper.id}/{path}", body)

    assert has_error(answer, 400, "")


@pytest.mark.parametrize("kind", ["text/plain; charset=klingon", "x", "", "application/json;;"])
async def test_json_is_read_whatever_it_calls_itself(server: Server, kind: str) -> None:
    answer = await server.ask("POST", JOBS, b"[]", {"Content-Type": kind})

    assert has_error(answer, 400, "the job must be a JSON object")


async def test_body_of_json_has_a_limit(server: Server) -> None:
    body = b'{"image": "' + b"x" * 2**24 + b'"}'

    answer = await server.ask("POST", JOBS, body)

    assert has_error(answer, 413, "")


# The request itself


@pytest.mark.parametrize(
    "field",
    [
        "X-Long: " + "x" * 10_000,
        "X-" + "x" * 10_000 + ": long",
        "Cookie: " + "a=b; " * 5_000,
        "\r\n".join(f"X-{number}: x" for number in range(1_000)),
    ],
    ids=["value", "name", "cookie", "number"],
)
async def test_oversized_headers_are_refused(server: Server, field: str) -> None:
    head = f"GET {CONFIG} HTTP/1.1\r\nHost: x\r\n{field}\r\nConnection: close\r\n\r\n"

    answer = await server.say(head.encode())

    assert answer.status in (400, 431)
    assert (await server.ask("GET", CONFIG)).status == 200


async def test_oversized_address_is_refused(server: Server) -> None:
    answer = await server.ask("GET", "/storage/user/" + "d/" * 10_000 + "?op=OPEN")

    assert answer.status in (400, 414)


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)
async def test_what_is_no_http_is_refused(server: Server, request_: bytes) -> None:
    answer = await server.say(request_)

    assert answer.status == 400
    assert (await server.ask("GET", CONFIG)).status == 200


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n"])
@pytest.mark.parametrize("target", [JOBS, "storage"])
async def test_chunks_that_are_none_are_refused(
    server: Server, folder: Folder, target: str, body: bytes
) -> None:
    method, target = ("PUT", folder.url("a", "CREATE")) if target == "storage" else ("POST", target)
    head = server.head(method, target, {"Transfer-Encoding": "chunked", "Connection": "close"})

    answer = await server.say(head + body)

    assert answer.status == 400


def requests_to_cut(folder: Folder, job: Job) -> Dict[str, bytes]:
    body = {"image": "python", "preset_name": "cpu-small", "name": "cut-off", "command": "true"}
    posted = json.dumps(body).encode()
    length = {"Content-Length": str(len(posted))}
    command = json.dumps({"command": "touch /tmp/cut-off"}).encode()
    monitoring = f"/monitoring/jobs/{job.id}"
    head = folder.server.head
    return {
        "job": head("POST", f"{JOBS}?from_preset", length) + posted,
        "exec": head("POST", f"{monitoring}/exec_create", {"Content-Length": str(len(command))})
        + command,
        "list": head("GET", folder.url("", "LISTSTATUS")),
        "create": head("PUT", folder.url("a", "CREATE"), {"Content-Length": "4"}) + b"data",
    }


@pytest.mark.parametrize("kind", ["job", "exec", "list", "create"])
async def test_request_that_is_cut_off_is_not_carried_out(
    folder: Folder, platform: Platform, sleeper: Job, kind: str
) -> None:
    whole = requests_to_cut(folder, sleeper)[kind]

    for size in sorted({*range(0, len(whole), 40), len(whole) - 1}):
        async with folder.server.connected() as wire:
            await wire.send(whole[:size])
            wire.writer.write_eof()
            await wire.rest()

    assert platform.jobs(name="cut-off") == []
    assert (await folder.server.ask("GET", CONFIG)).status == 200


async def test_requests_may_follow_each_other_without_waiting(server: Server) -> None:
    one = server.head("GET", CONFIG)

    async with server.connected() as wire:
        await wire.send(one * 20)
        answers = [await wire.answer() for _ in range(20)]

    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1


async def test_refused_upload_is_answered_while_it_is_still_being_sent(folder: Folder) -> None:
    (folder.disk / "a").mkdir()
    head = folder.server.head("PUT", folder.url("a", "CREATE"), {"Content-Length": str(2**30)})

    async with folder.server.connected() as wire:
        await wire.send(head + bytes(2**16))
        answer = await wire.answer()

    assert has_error(answer, 400, "Is a directory", errno="EISDIR")
