"""A real server, each test's own folder on its storage, and jobs on it.

Tests marked `real_server` hold what was seen: what the real clients sent and took when they were
driven, or what the platform's own storage server answered. The others hold what its sources say, or
what we chose where the clients leave us free.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional
from urllib.parse import quote, urlencode

import pytest
from e2e.platform import Job, Platform
from machine import impossible, limit

from neuro_local.models import Identity

from .wire import Answer, Server

NDJSON = {"Accept": "application/x-ndjson"}
ORG = Identity().org

# What one test may take. Seconds.
DEADLINE = 120

_numbers = itertools.count(1)


def pytest_itemcollected(item: pytest.Item) -> None:
    limit(item, DEADLINE)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """An instance of its own: no client is used here, so none need be there."""
    if not sys.platform.startswith("linux"):
        impossible("neuro-local's sandboxes need Linux")
    platform = Platform(tmp_path_factory.mktemp("conformance"))
    platform.up()
    yield platform
    platform.down()


@pytest.fixture
def start_instance(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Platform]]:
    """Starts instances for tests that cannot share one; they end with the test."""
    platforms: List[Platform] = []

    def start(**more: Any) -> Platform:
        platforms.append(Platform(tmp_path_factory.mktemp("own"), **more))
        platforms[-1].up()
        return platforms[-1]

    yield start
    for platform in platforms:
        platform.down()


def server_of(platform: Platform) -> Server:
    return Server(int(platform.url.rpartition(":")[2]), platform.token)


@pytest.fixture
def server(platform: Platform) -> Iterator[Server]:
    """The server; whatever a test does to it, it must not fail in a way of its own."""
    log = platform.state / "server.log"
    before = log.stat().st_size
    yield server_of(platform)
    with log.open("rb") as file:
        file.seek(before)
        assert b"Traceback" not in file.read()


@dataclass(frozen=True)
class Folder:
    """A folder on storage: `path` as clients name it, `disk` where it lies."""

    server: Server
    path: str
    disk: Path

    def url(self, name: str, op: str, **query: str) -> str:
        path = quote(f"{self.path}/{name}" if name else self.path)
        return f"/storage{path}?{urlencode({'op': op, **query})}"

    async def ask(
        self,
        method: str,
        name: str,
        op: str,
        body: bytes = b"",
        headers: Optional[Mapping[str, str]] = None,
        **query: str,
    ) -> Answer:
        return await self.server.ask(method, self.url(name, op, **query), body, headers)

    async def write(self, name: str, start: int, body: bytes) -> Answer:
        span = f"bytes {start}-{start + len(body) - 1}/*"
        return await self.ask("PATCH", name, "WRITE", body, {"Content-Range": span})

    async def names(self) -> List[str]:
        """Return what the server lists."""
        answer = await self.ask("GET", "", "LISTSTATUS", headers=NDJSON)
        assert answer.status == 200, answer
        return sorted(line["FileStatus"]["path"] for line in lines(answer))


@pytest.fixture
def folder(server: Server, platform: Platform) -> Folder:
    """An empty folder of the test's own."""
    name = f"conformance-{os.getpid()}-{next(_numbers)}"
    platform.storage(name).mkdir(parents=True)
    return Folder(server, f"/user/{name}", platform.storage(name))


@pytest.fixture
def start_job(platform: Platform) -> Iterator[Callable[..., Job]]:
    """Starts jobs, each with a name of its own, that end with the test."""
    started: List[Job] = []

    def start(command: str, **more: Any) -> Job:
        more.setdefault("name", f"c-{next(_numbers)}")
        started.append(platform.start_job(command, **more))
        return started[-1]

    yield start
    for job in started:
        platform.end_job(job.id)


@pytest.fixture(scope="session")
def sleeper(platform: Platform) -> Job:
    """A job that does nothing, for what can be done to any job."""
    return platform.start_job("sleep 3600", name="conformance-sleeper")


@pytest.fixture(scope="session")
def finished(platform: Platform) -> Job:
    """A job that wrote to both streams and failed."""
    script = "sh -c 'echo said; sleep 0.1; echo complained >&2; sleep 0.5; exit 3'"
    return platform.wait_for(platform.start_job(script, name="conformance-done").id, "failed")


def lines(answer: Answer) -> List[Dict[str, Any]]:
    """Return the objects of a streamed answer."""
    assert answer.kind == "application/x-ndjson", answer
    body = answer.body
    if answer.headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    assert not body or body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


def unchunked(body: bytes) -> bytes:
    """Return a chunked body's content (RFC 9112, section 7.1); it must be whole."""
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert body == b"\r\n"
            return content
        content += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def has_error(answer: Answer, status: int, words: str, errno: Optional[str] = None) -> bool:
    """Whether both clients read this error, in the body and, for WebSockets, in the header."""
    payload = answer.json()
    assert (answer.status, payload.get("errno")) == (status, errno), answer
    assert set(payload) <= {"error", "errno"}
    assert words in payload["error"], answer
    assert answer.headers["x-error"], answer
    return True
