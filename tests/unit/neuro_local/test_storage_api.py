"""The API of storage on a disk that fails or dawdles; all else about it is in tests/conformance."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Tuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from neuro_local.api.keys import STORAGE
from neuro_local.api.middleware import errors
from neuro_local.api.storage import routes
from neuro_local.services.storage import StorageService

MIB = 1024 * 1024
NDJSON = {"Accept": "application/x-ndjson"}

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "storage" / "user"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    app = web.Application(middlewares=[errors])
    app[STORAGE] = StorageService(tmp_path / "storage", cluster="local", org="ORG", home="user")
    app.add_routes(routes("/storage"))
    async with TestClient(TestServer(app)) as client:
        yield client


async def ask(client: Client, method: str, path: str, **options: Any) -> Tuple[int, str, bytes]:
    async with client.request(method, "/storage" + path, **options) as response:
        return response.status, response.content_type, await response.read()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come true in 10 s"
        await asyncio.sleep(0.01)


async def test_a_download_that_cannot_be_completed_breaks_the_connection(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a").write_bytes(bytes(4 * MIB))
    pread = os.pread

    def shrinking(fd: int, size: int, offset: int) -> bytes:
        return pread(fd, size, offset) if offset == 0 else b""

    monkeypatch.setattr(os, "pread", shrinking)

    with pytest.raises(Exception, match="payload|reset|disconnected|lost"):
        await ask(client, "GET", "/user/a?op=OPEN")


async def test_a_full_disk_is_named(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuro_local.services.storage._write_all", full)

    status, kind, body = await ask(client, "PUT", "/user/a?op=CREATE", data=b"data")

    assert (status, kind) == (400, "application/json")
    payload = {"error": "'/user/a': No space left on device.", "errno": "ENOSPC"}
    assert json.loads(body) == payload


async def test_the_loop_stays_free_while_the_disk_is_slow(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*args: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)

    monkeypatch.setattr("neuro_local.services.storage._write_all", slow)
    upload = asyncio.create_task(ask(client, "PUT", "/user/a?op=CREATE", data=b"data"))

    await until(lambda: (home / "a").exists(), "the upload")
    assert (await ask(client, "GET", "/user/a?op=GETFILESTATUS"))[0] == 200
    release.set()

    assert (await upload)[0] == 201


async def test_a_late_error_is_a_line_of_the_stream(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a").mkdir()
    (home / "a" / "f").touch()

    def busy(*args: Any, **options: Any) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "rmdir", busy)

    status, _, body = await ask(client, "DELETE", "/user/a?op=DELETE", headers=NDJSON)

    assert status == 200
    assert [json.loads(line) for line in body.splitlines()] == [
        {"path": "/user/a/f", "is_dir": False},
        {"error": "'/user/a': Device or resource busy.", "errno": "EBUSY"},
    ]
