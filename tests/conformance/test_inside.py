"""Reaching into a job: its ports, byte by byte, its file system as an image, its processes."""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Callable, Dict, List

import pytest
from e2e.platform import Job, Platform

from .conftest import has_error, lines
from .wire import BINARY, Answer, Frame, Server

# One that sends back what it is sent, one that speaks first and hangs up, one that breaks off.
SERVERS = """
import socket, socketserver, struct, threading

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)

class Greet(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello")

class Break(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

for port, handler in (7001, Echo), (7002, Greet), (7003, Break):
    server = Server(("0.0.0.0", port), handler)
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"""


@pytest.fixture
async def job(server: Server, start_job: Callable[..., Job]) -> Job:
    """A job in which three servers listen."""
    job = start_job("python3 -c '%s'" % SERVERS.replace("'", '"'))
    async with server.websocket(f"/monitoring/jobs/{job.id}/log_ws") as log:
        await log.until(b"ready")
    return job


LONG = "9" * 5000
SHORT = "{:.20}".format  # for what tests are called


def at(job: Job, port: object) -> str:
    return f"/monitoring/jobs/{job.id}/port_forward/{port}"


@pytest.mark.real_server
async def test_port_carries_bytes_without_channels(server: Server, job: Job) -> None:
    async with server.websocket(at(job, 7001)) as socket:
        for payload in (b"\0\1\2\3\4", b"x", b"\xff" * 1000):
            await socket.send(payload)
            assert await socket.frame() == Frame(BINARY, payload)
        await socket.hang_up()


async def test_megabytes_go_through_a_port_unchanged(server: Server, job: Job) -> None:
    data, back = os.urandom(2**21), b""

    async with server.websocket(at(job, 7001)) as socket:
        for start in range(0, len(data), 2**16):
            await socket.send(data[start : start + 2**16])
        while len(back) < len(data):
            back += (await socket.frame()).payload

    assert back == data


@pytest.mark.real_server
async def test_port_closes_when_its_server_does(server: Server, job: Job) -> None:
    async with server.websocket(at(job, 7002)) as socket:
        assert await socket.payload() == b"hello"


async def test_port_whose_server_breaks_off_is_closed_in_order(server: Server, job: Job) -> None:
    async with server.websocket(at(job, 7003)) as socket:
        await socket.send(b"xxx")
        assert await socket.payload() == b""


@pytest.mark.real_server
async def test_port_that_nothing_listens_on_is_400(server: Server, sleeper: Job) -> None:
    answer = await server.refusal(at(sleeper, 7009))

    assert has_error(answer, 400, f"nothing answers on port 7009 of job {sleeper.id}")
    assert answer.headers["x-error"].startswith("nothing answers")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "7001x", "%D9%A3", LONG], ids=SHORT)
async def test_port_that_is_none_is_refused(server: Server, sleeper: Job, port: str) -> None:
    assert has_error(await server.refusal(at(sleeper, port)), 400, "is not a port number")


async def test_port_of_an_ended_job_is_refused(server: Server, finished: Job) -> None:
    assert has_error(await server.refusal(at(finished, 80)), 404, "is not running")


# Saving


async def save(server: Server, job: Job, image: Any) -> List[Any]:
    body = json.dumps({"container": {"image": image}}).encode()
    answer = await server.ask("POST", f"/monitoring/jobs/{job.id}/save", body)
    assert answer.status == 200, answer
    return list(lines(answer))


@pytest.mark.real_server
@pytest.mark.parametrize("path", ["neuro-local/user/conformance:v1", "user/conformance:v1"])
async def test_save_tells_its_steps_in_order(server: Server, sleeper: Job, path: str) -> None:
    image = f"127.0.0.1:{server.port}/{path}"

    steps = await save(server, sleeper, image)

    details = {"container": sleeper.id, "image": image}
    assert steps[0] == {"status": "CommitStarted", "details": details}
    assert steps[1] == {"status": "CommitFinished"}
    assert all("error" not in step for step in steps)


async def test_save_of_an_ended_job_is_a_line_with_the_reason(
    server: Server, finished: Job
) -> None:
    steps = await save(server, finished, f"127.0.0.1:{server.port}/user/conformance:v2")

    assert "is not running" in steps[-1]["error"]
    assert steps[-1]["errorDetail"] == {"message": steps[-1]["error"]}


@pytest.mark.parametrize("image", ["ubuntu", "ghcr.io/a/b:1", "127.0.0.1:1/user/x:v1", ""])
async def test_save_to_another_registry_is_400(server: Server, sleeper: Job, image: str) -> None:
    body = json.dumps({"container": {"image": image}}).encode()

    answer = await server.ask("POST", f"/monitoring/jobs/{sleeper.id}/save", body)

    assert has_error(answer, 400, "only images of this platform can be saved to")


@pytest.mark.real_server
async def test_save_of_an_unknown_job_is_400(server: Server) -> None:
    answer = await server.ask("POST", "/monitoring/jobs/unknown/save", b"{}")

    assert has_error(answer, 400, "no such job")


def login(server: Server) -> Dict[str, str]:
    """What both clients send to the registry."""
    word = base64.b64encode(f"user:{server.token}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


@pytest.mark.real_server
@pytest.mark.parametrize("org", ["neuro-local/", ""], ids=["newer", "older"])
async def test_saved_images_and_their_tags_are_listed(
    server: Server, sleeper: Job, org: str
) -> None:
    for tag in "v2", "v1":
        await save(server, sleeper, f"127.0.0.1:{server.port}/{org}user/listed:{tag}")

    names = await server.ask("GET", "/v2/_catalog?n=30", headers=login(server))
    tags = await server.ask("GET", f"/v2/{org}user/listed/tags/list?n=30", headers=login(server))

    assert "user/listed" in names.json()["repositories"]
    assert tags.json() == {"name": f"{org}user/listed", "tags": ["v1", "v2"]}


@pytest.mark.real_server
@pytest.mark.parametrize("org", ["neuro-local/", ""], ids=["newer", "older"])
async def test_tags_of_an_unknown_image_are_404(server: Server, org: str) -> None:
    answer = await server.ask("GET", f"/v2/{org}user/never/tags/list", headers=login(server))

    assert answer.status == 404
    assert [error["code"] for error in answer.json()["errors"]] == ["NAME_UNKNOWN"]


# Killing its processes


async def kill(server: Server, job: Job) -> Answer:
    return await server.ask("POST", f"/monitoring/jobs/{job.id}/kill")


async def test_killed_processes_are_a_failure_of_the_job(
    server: Server, platform: Platform, start_job: Callable[..., Job]
) -> None:
    job = start_job("sh -c 'trap \"exit 0\" TERM; sleep 600 & wait'")

    assert (await kill(server, job)).status == 204

    assert platform.wait_for(job.id, "failed").exit_code == 137


async def test_processes_of_an_ended_job_cannot_be_killed(server: Server, finished: Job) -> None:
    assert has_error(await kill(server, finished), 404, "is not running")


async def test_processes_of_an_unknown_job_cannot_be_killed(server: Server) -> None:
    answer = await server.ask("POST", "/monitoring/jobs/unknown/kill")

    assert has_error(answer, 400, "no such job unknown")
