"""No way of spelling a path, and no link that a job makes, leads out of storage."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Callable

import pytest
from e2e.platform import Job, Platform

from .conftest import ORG, Folder, has_error
from .wire import Server

UP = [
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "..%2f..",
    "..%2F",
    "%2e%2e%2f%2e%2e",
    "%2e%2e%5c..%2f",
    ".",
    "%2e",
]
# These only look like a way up: each is an ordinary name.
HARMLESS = [
    "...",
    "%252e%252e",
    "%252e%252e%252f",
    "..%5c..",
    "..\\..",
    "..;",
    "%5c",
    "%c0%ae%c0%ae",
]
# Method, operation and the rest of the query.
REQUESTS = [
    ("GET", "op=GETFILESTATUS"),
    ("GET", "op=LISTSTATUS"),
    ("GET", "op=OPEN"),
    ("GET", "op=GETDISKUSAGE"),
    ("PUT", "op=MKDIRS"),
    ("PUT", "op=CREATE"),
    ("PATCH", "op=WRITE"),
    ("DELETE", "op=DELETE"),
    ("POST", "op=RENAME&destination=/user/stolen"),
]

JOBS = "/api/v1/jobs?from_preset"


@pytest.fixture
def secret(platform: Platform, folder: Folder) -> Path:
    """A file beside the root of storage, where two steps up from a test's folder lead."""
    path = platform.state / f"secret of {folder.disk.name}"
    path.write_bytes(b"secret")
    return path


@pytest.mark.parametrize("up", UP)
@pytest.mark.parametrize("start", ["", "/user", "/user/folder", f"/{ORG}", "//"])
async def test_path_that_could_climb_is_refused(
    server: Server, secret: Path, up: str, start: str
) -> None:
    for method, query in REQUESTS:
        for target in (f"{start}/{up}/{secret.name}", f"{start}/{up}/{up}/{up}", f"{start}/{up}"):
            target = f"/storage{target.replace(' ', '%20')}?{query}"
            answer = await server.ask(method, target, headers={"Content-Range": "bytes 0-0/*"})
            assert has_error(answer, 400, "cannot be a"), target

    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("name", ["secret%00", "%00", "a%00/../b", "a/%00"])
async def test_name_with_a_nul_is_refused(server: Server, folder: Folder, name: str) -> None:
    for method, query in REQUESTS:
        answer = await server.ask(method, f"/storage{folder.path}/{name}?{query}")
        assert has_error(answer, 400, ""), method


@pytest.mark.parametrize("name", HARMLESS)
async def test_name_that_only_looks_like_a_way_up_is_a_name(
    server: Server, folder: Folder, name: str
) -> None:
    target = f"/storage{folder.path}/{name}/f"

    assert (await server.ask("PUT", f"{target}?op=CREATE", b"data")).status == 201

    assert len(await folder.names()) == 1
    assert [path.read_bytes() for path in folder.disk.glob("*/f")] == [b"data"]


@pytest.mark.parametrize("path", ["//etc/passwd", "/%2Fetc/passwd", "/etc/passwd", "/user//etc"])
async def test_absolute_path_is_below_the_root_of_storage(server: Server, path: str) -> None:
    answer = await server.ask("GET", f"/storage{path}?op=OPEN")

    assert answer.status in (400, 404)
    assert b"root" not in answer.body


@pytest.mark.parametrize(
    "destination",
    ["/..", "/user/../../b", "/user/%2e%2e/%2e%2e/b", "/%2e%2e/b", "/user/..%2f..%2fb", "/a%00b"],
)
async def test_renaming_does_not_leave_storage(
    folder: Folder, platform: Platform, destination: str
) -> None:
    (folder.disk / "a").touch()
    before = sorted(platform.state.iterdir())
    target = f"{folder.url('a', 'RENAME')}&destination={destination}"

    assert has_error(await folder.server.ask("POST", target), 400, "cannot be a storage path")

    assert await folder.names() == ["a"]
    assert sorted(platform.state.iterdir()) == before


def job_with_volume(path: str) -> bytes:
    volume = {"src_storage_uri": f"storage://local{path}", "dst_path": "/data"}
    body = {"image": "python", "preset_name": "cpu-small", "volumes": [volume]}
    return json.dumps(body).encode()


LINKS = "/ .. ../../token ../../../.. /proc/self/root link".split()


async def test_links_that_a_job_makes_lead_nowhere(
    server: Server, folder: Folder, platform: Platform, start_job: Callable[..., Job]
) -> None:
    """A job may write what it likes into its volume; others then ask for it by name."""
    commands = [f"ln -s {target} /data/{number}" for number, target in enumerate(LINKS)]
    volume = {"src_storage_uri": f"storage://local{folder.path}", "dst_path": "/data"}
    script = "; ".join([*commands, "touch /data/done", "sleep 600"])
    start_job(f"sh -c '{script}'", volumes=[volume])
    while "done" not in await folder.names():
        await asyncio.sleep(0.01)
    token = platform.state / "token"
    before = token.read_bytes()

    for number in range(len(LINKS)):
        for path in (f"{number}", f"{number}/token", f"{number}/etc/passwd"):
            for method, query in REQUESTS[:-2]:  # the last two take the link itself
                if method == "GET" and "STATUS" in query and "/" not in path:
                    continue
                headers = {"Content-Range": "bytes 0-0/*"}
                target = f"/storage{folder.path}/{path}?{query}"
                answer = await server.ask(method, target, b"x", headers)
                if "GETDISKUSAGE" in query and "/" not in path:
                    assert answer.status == 200  # of the folder that holds the link
                else:
                    assert answer.status == 400, (target, answer)

    assert token.read_bytes() == before


async def test_volume_that_is_a_link_is_not_mounted(
    folder: Folder, platform: Platform, server: Server
) -> None:
    (folder.disk / "link").symlink_to(platform.state)
    for source in ("link", "link/client"):
        answer = await server.ask("POST", JOBS, job_with_volume(f"{folder.path}/{source}"))
        job = answer.json()
        assert answer.status == 202

        ended = platform.wait_for(job["id"], "failed")

        assert ended.reason == "ContainerCannotRun"


@pytest.mark.parametrize("source", ["../..", "%2e%2e/%2e%2e", "a%2f..%2fb", "a%00b"])
async def test_volume_that_could_climb_is_refused(server: Server, source: str) -> None:
    answer = await server.ask("POST", JOBS, job_with_volume(f"/user/{source}"))

    assert has_error(answer, 400, "cannot be a")
