"""A job that waits for its image: what is shown of it, what can be done to it, how that ends.

Its instance has a cache of its own, with the plain base and nothing else, and its way to the
package index leads to one that takes requests and never answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List
from urllib.parse import urlsplit

import pytest
from e2e.commands import wait_until
from e2e.platform import Job, Platform

from .conftest import has_error, lines, unchunked
from .wire import Answer, Server

JOBS = "/api/v1/jobs"
# Of the catalogue, so that it is made from PyPI at first.
IMAGE = "filebrowser/filebrowser"
NEW_ATTACH = "attach?tty=0&stdin=1&stdout=1&stderr=1"
OLD_ATTACH = "attach?stdin=1&stdout=1&stderr=1&logs=1"
# For what must not happen. Seconds.
MOMENT = 0.5


class SilentIndex:
    """Takes connections and says nothing, until it hangs up on those it has."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._taken: List[socket.socket] = []
        self.asked = 0
        threading.Thread(target=self._take, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _take(self) -> None:
        while True:
            try:
                self._taken.append(self._listener.accept()[0])
            except OSError:  # it was closed
                return
            self.asked += 1

    def hang_up(self) -> None:
        while self._taken:
            self._taken.pop().close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()


@pytest.fixture(scope="module")
def index() -> Iterator[SilentIndex]:
    index = SilentIndex()
    yield index
    index.close()


def settings(index: SilentIndex, cache: Path) -> Dict[str, str]:
    proxy = f"http://127.0.0.1:{index.port}"
    return {
        "XDG_CACHE_HOME": str(cache),
        # Jobs do not reach this machine's own ports: so it stands in for this machine's proxy.
        "http_proxy": proxy,
        "https_proxy": proxy,
        "no_proxy": "127.0.0.1,localhost",
        "PIP_INDEX_URL": "http://index.invalid/simple",
        "PIP_TRUSTED_HOST": "index.invalid",
        "PIP_RETRIES": "0",
        "PIP_DEFAULT_TIMEOUT": "600",
        # Whatever else this machine has packages in.
        "PIP_CONFIG_FILE": os.devnull,
        **dict.fromkeys(("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"), ""),
    }


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, index: SilentIndex) -> Iterator[Platform]:
    """In place of the one that the other tests share."""
    folder = tmp_path_factory.mktemp("pending")
    cache = folder / "cache"
    platform = Platform(folder / "instance", settings=settings(index, cache))
    platform.up()
    yield platform
    platform.down()


@pytest.fixture
def waiting(platform: Platform, index: SilentIndex) -> Iterator[Job]:
    """A job with a page and a name, whose image is being made."""
    asked = {"name": "waiting", "http": {"port": 80, "requires_auth": True}}
    job = submitted(platform, **asked)
    wait_until(lambda: index.asked, "the index is asked")
    yield job
    platform.end_job(job.id)


def submitted(platform: Platform, **fields: Any) -> Job:
    """Return a job that is seen to wait for its image."""
    body = json.dumps({"image": IMAGE, "preset_name": "cpu-small", **fields}).encode()
    status, answer = platform.request(f"{JOBS}?from_preset", method="POST", body=body)
    assert status == 202, answer

    def pulling() -> bool:
        return platform.job(json.loads(answer)["id"]).reason == "Pulling"

    wait_until(pulling, "the job waits for its image")
    return platform.job(json.loads(answer)["id"])


async def shown(server: Server, job: Job) -> Dict[str, Any]:
    answer = await server.ask("GET", f"{JOBS}/{job.id}")
    payload: Dict[str, Any] = answer.json()
    return payload


async def kill(server: Server, job: Job) -> None:
    assert (await server.ask("DELETE", f"{JOBS}/{job.id}")).status == 204


def at(job: Job, path: str) -> str:
    return f"/monitoring/jobs/{job.id}/{path}"


# What is shown


@pytest.mark.real_server
async def test_waiting_job_has_not_started(server: Server, waiting: Job) -> None:
    job = await shown(server, waiting)

    history = job["history"]
    assert (job["status"], history["status"]) == ("pending", "pending")
    assert not {"started_at", "finished_at", "exit_code"} & set(history)
    assert history["created_at"] and history["run_time_seconds"] == 0
    # Since it was created; and why it waits, in a sentence.
    assert [step["reason"] for step in job["statuses"]] == ["Creating", "Pulling"]
    assert "is made on first use" in history["description"]


async def test_waiting_job_is_listed_among_the_active(server: Server, waiting: Job) -> None:
    for status, expected in [("pending", [waiting.id]), ("running", [])]:
        answer = await server.ask("GET", f"{JOBS}?status={status}&name={waiting.name}")
        assert [job["id"] for job in json.loads(unchunked(answer.body))["jobs"]] == expected


async def test_page_of_a_waiting_job_is_there_and_asks_to_wait(
    server: Server, waiting: Job
) -> None:
    url = urlsplit((await shown(server, waiting))["http_url"])
    page = Server(url.port or 0, "")

    assert (await visit(page, "/")).status == 401
    entered = await visit(page, f"{url.path}?{url.query}")
    assert entered.status == 303
    answer = await visit(page, "/", entered.headers["set-cookie"].partition(";")[0])

    assert (answer.status, answer.kind) == (502, "text/html")
    assert b"does not answer on port 80 yet" in answer.body


async def visit(page: Server, target: str, cookie: str = "") -> Answer:
    fields = f"Host: 127.0.0.1:{page.port}\r\nConnection: close\r\nCookie: {cookie}\r\n"
    return await page.say(f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode())


# What can be done to it


@pytest.mark.real_server
async def test_logs_of_a_waiting_job_stay_open_until_it_is_killed(
    server: Server, waiting: Job
) -> None:
    async with server.websocket(at(waiting, "log_ws")) as socket, server.connected() as wire:
        await wire.send(server.head("GET", at(waiting, "log"), {"Connection": "close"}))
        head = await wire.head()
        newer = asyncio.create_task(socket.payload())
        older = asyncio.create_task(wire.rest())
        await asyncio.sleep(MOMENT)
        assert head.status == 200
        assert not newer.done() and not older.done()

        await kill(server, waiting)

        assert await newer == unchunked(await older) == b""


@pytest.mark.real_server
async def test_newer_attach_to_a_waiting_job_is_404(server: Server, waiting: Job) -> None:
    answer = await server.refusal(at(waiting, NEW_ATTACH))

    assert has_error(answer, 404, "is not running")
    assert answer.headers["x-error"] == f"job {waiting.id} is not running"


async def test_older_attach_to_a_waiting_job_is_accepted_and_ends(
    server: Server, waiting: Job
) -> None:
    """A refusal would end that client, which looks at the job afterwards in any case."""
    async with server.websocket(at(waiting, OLD_ATTACH)) as socket:
        assert await socket.until_closed() == []


@pytest.mark.real_server
async def test_exec_in_a_waiting_job_is_refused_to_each_client_in_its_way(
    server: Server, waiting: Job
) -> None:
    newer = await server.refusal(at(waiting, "exec?cmd=ls&tty=0&stdin=1&stdout=1&stderr=1"))
    older = await server.ask("POST", at(waiting, "exec_create"), b'{"command": "ls"}')

    assert has_error(newer, 404, "is not running")
    assert has_error(older, 400, "is not running")


async def test_what_needs_a_running_job_is_refused(server: Server, waiting: Job) -> None:
    image = json.dumps({"container": {"image": f"127.0.0.1:{server.port}/user/w:v1"}}).encode()

    saved = await server.ask("POST", at(waiting, "save"), image)

    assert "is not running" in lines(saved)[-1]["error"]
    assert has_error(await server.refusal(at(waiting, "port_forward/80")), 404, "is not running")
    assert has_error(await server.ask("POST", at(waiting, "kill")), 404, "is not running")
    assert has_error(await server.ask("POST", at(waiting, "resize?w=80&h=24")), 400, "not running")


async def test_top_of_a_waiting_job_stays_open_until_it_is_killed(
    server: Server, waiting: Job
) -> None:
    async with server.websocket(at(waiting, "top")) as socket:
        frames = asyncio.create_task(socket.until_closed())
        await asyncio.sleep(MOMENT)
        assert not frames.done()

        await kill(server, waiting)

        assert await frames == []


async def test_life_span_of_a_waiting_job_can_be_changed(server: Server, waiting: Job) -> None:
    target = f"{JOBS}/{waiting.id}/max_run_time_minutes"

    assert (await server.ask("PUT", target, b'{"max_run_time_minutes": 7}')).status == 204

    job = await shown(server, waiting)
    assert (job["max_run_time_minutes"], job["status"]) == (7, "pending")


# How it ends


@pytest.mark.real_server
async def test_waiting_job_that_is_killed_gives_its_name_back(
    server: Server, platform: Platform, waiting: Job
) -> None:
    await kill(server, waiting)

    job = await shown(server, waiting)
    assert (job["status"], job["history"]["reason"]) == ("cancelled", "UserRequested")
    # As the clients want it of each job that has ended, whether it ran or not.
    assert job["history"]["started_at"] == job["history"]["finished_at"]
    assert "http_url" not in await until_without_page(server, waiting)
    assert submitted(platform, name=waiting.name).id != waiting.id
    platform.end_job(waiting.name)


async def until_without_page(server: Server, job: Job) -> Dict[str, Any]:
    for _ in range(100):
        payload = await shown(server, job)
        if "http_url" not in payload:
            break
        await asyncio.sleep(0.05)
    return payload


async def test_job_whose_image_cannot_be_made_says_why(
    server: Server, platform: Platform, index: SilentIndex, waiting: Job
) -> None:
    index.hang_up()

    platform.wait_for(waiting.id, "failed")

    history = (await shown(server, waiting))["history"]
    assert history["reason"] == "ErrImagePull"
    assert history["description"].startswith("The image filebrowser/filebrowser (")
    assert "could not be made: ERROR: " in history["description"]
    assert history["description"].endswith("run that image.")
    assert "exit_code" not in history
    log = await server.ask("GET", at(waiting, "log"))
    assert unchunked(log.body) == b""
