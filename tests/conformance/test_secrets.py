"""Secrets: kept, listed, given to jobs, and shown to nobody else."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest
from e2e.platform import Job, Platform

from neuro_local.models import Identity

from .conftest import has_error, unchunked
from .test_jobs import submit
from .wire import Answer, Server

SECRETS = "/secrets"
IDENTITY = Identity()
HERE = f"org_name={IDENTITY.org}&project_name={IDENTITY.project}"
VALUE = b"conformance \xc3\xa4 $HOME"

numbers = itertools.count(1)


@pytest.fixture
def key(platform: Platform) -> Iterator[str]:
    """A key that nobody uses, and that is free again after the test."""
    key = f"conformance.{next(numbers)}"
    yield key
    platform.request(f"{SECRETS}/{key}?{HERE}", method="DELETE")


async def add(server: Server, key: Any, value: Any = VALUE, **more: str) -> Answer:
    body = {"key": key, "value": base64.b64encode(value).decode(), **more}
    return await server.ask("POST", SECRETS, json.dumps(body).encode())


async def get(server: Server, key: str, query: str = HERE) -> Answer:
    return await server.ask("GET", f"{SECRETS}/{key}?{query}")


async def keys(server: Server, query: str = "") -> Any:
    answer = await server.ask("GET", f"{SECRETS}?{query}")
    assert answer.status == 200
    return [secret["key"] for secret in answer.json()]


def uri(key: str, *, org: Optional[str] = IDENTITY.org) -> str:
    place = f"{org}/{IDENTITY.project}" if org else IDENTITY.project
    return f"secret://{IDENTITY.cluster}/{place}/{key}"


async def log_of(server: Server, platform: Platform, job: str, status: str) -> bytes:
    platform.wait_for(job, status)
    return unchunked((await server.ask("GET", f"/monitoring/jobs/{job}/log")).body)


@pytest.mark.real_server
async def test_secret_is_listed_without_its_value(server: Server, key: str) -> None:
    place = {"org_name": IDENTITY.org, "project_name": IDENTITY.project}
    shown = {"key": key, "owner": IDENTITY.project, **place}

    answer = await add(server, key, **place)

    assert (answer.status, answer.json()) == (201, shown)
    for query in (HERE, ""):  # the older client says nothing of where
        listed = await server.ask("GET", f"{SECRETS}?{query}")
        assert shown in listed.json()


async def test_value_comes_back_and_can_be_replaced_and_removed(server: Server, key: str) -> None:
    for value in (VALUE, b"", bytes(range(256))):
        assert (await add(server, key, value)).status == 201
        assert base64.b64decode((await get(server, key)).json()["value"]) == value
    assert (await keys(server)).count(key) == 1

    removed = await server.ask("DELETE", f"{SECRETS}/{key}?{HERE}")

    assert (removed.status, removed.body) == (204, b"")
    assert key not in await keys(server)


@pytest.mark.parametrize("method", ["GET", pytest.param("DELETE", marks=pytest.mark.real_server)])
async def test_unknown_secret_is_404(server: Server, method: str) -> None:
    answer = await server.ask(method, f"{SECRETS}/unknown?{HERE}")

    assert has_error(answer, 404, "'unknown' not found")


async def test_answer_with_a_value_is_of_a_kind_that_no_client_logs(
    server: Server, key: str
) -> None:
    await add(server, key)

    assert (await get(server, key)).kind == "application/vnd.neuro-local+json"


async def test_other_projects_have_no_secrets_here(server: Server, key: str) -> None:
    await add(server, key)

    assert await keys(server, "project_name=other") == []
    assert has_error(await get(server, key, "project_name=other"), 400, "'other'")
    assert has_error(await add(server, key, project_name="other"), 400, "'other'")
    assert (await add(server, key, b"new", org_name=IDENTITY.org)).status == 201


@pytest.mark.parametrize(
    "name", ["", ".", "..", "..a", "a/b", "/a", "a b", "ä", "a\n", "a\0", "x" * 254, 5, None]
)
async def test_what_is_no_key_is_refused(server: Server, platform: Platform, name: Any) -> None:
    before = sorted(platform.state.glob("secrets/**/*"))

    answer = await add(server, name)

    assert answer.status == 400, answer
    assert sorted(platform.state.glob("secrets/**/*")) == before


@pytest.mark.parametrize("name", [".a", "a.new", "-", "A_b-C.1", "x" * 253])
async def test_any_key_of_the_platform_is_taken(server: Server, name: str) -> None:
    assert (await add(server, name)).status == 201
    assert name in await keys(server)
    assert (await server.ask("DELETE", f"{SECRETS}/{name}")).status == 204


@pytest.mark.parametrize(
    "body, words",
    [
        ({"key": "a"}, "'value' is not of type str"),
        ({"key": "a", "value": "not base64!"}, "not in base64"),
        ({"key": "a", "value": "A" * (2**20 + 4)}, "longer than"),
        (["a"], "must be a JSON object"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_is_no_secret_is_refused(server: Server, body: Any, words: str) -> None:
    answer = await server.ask("POST", SECRETS, json.dumps(body).encode())

    assert has_error(answer, 400, words)


async def test_files_are_their_owners_only(server: Server, platform: Platform, key: str) -> None:
    await add(server, key)

    folder = platform.state / "secrets"
    assert (folder / "values" / key).read_bytes() == VALUE
    modes = {path.stat().st_mode & 0o077 for path in folder.glob("values/*")}
    assert modes == {0} and (folder / "values").stat().st_mode & 0o077 == 0


@pytest.mark.real_server
@pytest.mark.parametrize("org", [IDENTITY.org, None], ids=["newer", "older"])
async def test_job_gets_secrets_as_variables_and_as_files(
    server: Server, platform: Platform, key: str, org: Optional[str]
) -> None:
    await add(server, key)
    given = {"SECRET": uri(key, org=org)}
    files = [{"src_secret_uri": uri(key, org=org), "dst_path": "/secrets/deep/file"}]

    job = await submit(
        server,
        secret_env=given,
        secret_volumes=files,
        entrypoint="sh -c 'printf %s \"$SECRET\"; cat /secrets/deep/file; >/secrets/deep/file'",
    )

    container = job.json()["container"]
    assert (container["secret_env"], container["secret_volumes"]) == (given, files)
    log = await log_of(server, platform, job.json()["id"], "failed")
    assert log.startswith(VALUE + VALUE)
    assert b"Read-only file system" in log
    assert platform.state.joinpath("secrets/values", key).read_bytes() == VALUE


async def test_values_are_in_no_record_of_the_job(
    server: Server, platform: Platform, key: str
) -> None:
    value = b"conformance-of-no-record"
    await add(server, key, value)
    job = (await submit(server, secret_env={"A": uri(key)}, entrypoint="true")).json()["id"]
    platform.wait_for(job, "succeeded")

    shown = await server.ask("GET", f"/api/v1/jobs/{job}")

    assert value not in shown.body
    records = [path for path in files_below(platform.state) if value in path.read_bytes()]
    assert records == [platform.state / "secrets" / "values" / key]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a state folder but those of storage and images."""
    for path in folder.iterdir():
        if path.is_file():
            yield path
        elif path.is_dir() and path.name in ("secrets", "logs", "client"):
            yield from (inner for inner in path.rglob("*") if inner.is_file())


async def test_running_job_keeps_the_file_of_a_removed_secret(
    server: Server, platform: Platform, key: str, start_job: Callable[..., Job]
) -> None:
    await add(server, key, b"old")
    script = "sh -c 'while [ ! -e /tmp/go ]; do sleep 0.1; done; cat /secret'"
    volume = {"src_secret_uri": uri(key), "dst_path": "/secret"}
    job = start_job(script, secret_volumes=[volume])

    await add(server, key, b"new")
    await server.ask("DELETE", f"{SECRETS}/{key}")
    touch = {"command": "touch /tmp/go", "stdin": True, "stdout": True, "stderr": True}
    created = await server.ask(
        "POST",
        f"/monitoring/jobs/{job.id}/exec_create",
        json.dumps({**touch, "tty": False}).encode(),
    )
    started = f"/monitoring/jobs/{job.id}/{created.json()['exec_id']}/exec_start"
    async with server.websocket(started):
        assert await log_of(server, platform, job.id, "succeeded") == b"old"


async def test_job_with_missing_secrets_fails_and_names_them(
    server: Server, platform: Platform, key: str
) -> None:
    await add(server, key)
    wanted = {"A": uri(key), "B": uri("missing-2"), "C": uri("missing-1")}

    job = (await submit(server, secret_env=wanted, entrypoint="true")).json()["id"]

    platform.wait_for(job, "failed")
    history = (await server.ask("GET", f"/api/v1/jobs/{job}")).json()["history"]
    assert history["description"] == "Missing secrets: 'missing-1', 'missing-2'"


@pytest.mark.parametrize("value", [b"\xff", b"a\0b"])
async def test_what_is_no_text_is_no_variable(
    server: Server, platform: Platform, key: str, value: bytes
) -> None:
    await add(server, key, value)

    job = (await submit(server, secret_env={"A": uri(key)}, entrypoint="true")).json()["id"]

    platform.wait_for(job, "failed")
    history = (await server.ask("GET", f"/api/v1/jobs/{job}")).json()["history"]
    assert "use it as a file" in history["description"]


@pytest.mark.parametrize(
    "bad",
    [
        "secret:a",
        "secret://local/a",
        "secret://other/user/a",
        "secret://local/other/a",
        "secret://local/user/../a",
        "secret://local/user/..",
        "storage://local/user/a",
        "",
    ],
)
async def test_job_with_an_address_of_no_secret_is_refused(server: Server, bad: str) -> None:
    variable = await submit(server, secret_env={"A": bad}, entrypoint="true")
    volume = {"src_secret_uri": bad, "dst_path": "/secret"}
    file = await submit(server, secret_volumes=[volume], entrypoint="true")

    assert (variable.status, file.status) == (400, 400)
