"""What a job uses, as `top` shows it."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict

import pytest
from e2e.platform import Job, Platform

from .conftest import has_error
from .wire import TEXT, RawSocket, Server

BUSY = "python3 -c 'held = bytearray(64 << 20)\nwhile True: pass'"


def at(job: Job) -> str:
    return f"/monitoring/jobs/{job.id}/top"


async def told(socket: RawSocket) -> Dict[str, Any]:
    frame = await socket.frame()
    assert frame.opcode == TEXT
    payload: Dict[str, Any] = json.loads(frame.payload)
    return payload


@pytest.mark.real_server
async def test_frames_of_text_have_what_either_client_needs(server: Server, sleeper: Job) -> None:
    async with server.websocket(at(sleeper)) as socket:
        first, second = await told(socket), await told(socket)

    for payload in first, second:
        assert payload["memory"] == payload["memory_bytes"] / 2**20
        assert payload["cpu"] >= 0
    assert 0.5 < second["timestamp"] - first["timestamp"] < 10


async def test_busy_job_uses_more_than_an_idle_one(
    server: Server, sleeper: Job, start_job: Callable[..., Job]
) -> None:
    busy = start_job(BUSY)
    async with server.websocket(at(busy)) as one, server.websocket(at(sleeper)) as other:
        await told(one)  # since its start, when it did not compute yet
        much, little = await told(one), await told(other)

    assert much["cpu"] > 10 * little["cpu"]
    assert 0.05 < much["cpu"] < 1.5  # of this machine's processors, which others use as well
    assert much["memory"] > 64 > little["memory"] > 0


@pytest.mark.real_server
async def test_socket_closes_with_the_job(
    server: Server, platform: Platform, start_job: Callable[..., Job]
) -> None:
    job = start_job("sleep 600")

    async with server.websocket(at(job)) as socket:
        await told(socket)
        platform.end_job(job.id)
        await socket.until_closed()


async def test_ended_job_uses_nothing(server: Server, finished: Job) -> None:
    async with server.websocket(at(finished)) as socket:
        assert await socket.until_closed() == []


@pytest.mark.real_server
async def test_top_of_an_unknown_job_is_400(server: Server) -> None:
    answer = await server.refusal("/monitoring/jobs/unknown/top")

    assert has_error(answer, 400, "no such job")
