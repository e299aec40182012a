"""Answers that fail after they have begun, in ways that no request should bring about."""

from __future__ import annotations

import json
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from neuro_local.api import inside
from neuro_local.api.keys import IMAGES, JOBS
from neuro_local.api.middleware import FAILED, errors
from neuro_local.api.streams import streamed
from neuro_local.errors import NotRunning


class Broken:
    """Stands for the services that a save asks."""

    id = "job-1"

    def get(self, id_or_name: str) -> Broken:
        return self

    def to_save(self, image: str) -> str:
        return image

    async def save(self, job_id: str, image: str) -> None:
        raise RuntimeError("where the secret lies")


async def test_save_that_fails_in_a_way_of_ours_ends_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = web.Application(middlewares=[errors])
    app[JOBS] = app[IMAGES] = cast(Any, Broken())
    app.add_routes(inside.routes())
    body = {"container": {"image": "image"}}

    async with TestClient(TestServer(app)) as client:
        async with client.post("/monitoring/jobs/job-1/save", json=body) as answer:
            assert answer.status == 200
            said = [json.loads(line) for line in (await answer.text()).splitlines()]

    assert [line.get("status") for line in said] == ["CommitStarted", None]
    assert said[1] == {"error": FAILED, "errorDetail": {"message": FAILED}}
    assert "where the secret lies" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("ours"), NotRunning("theirs"), OSError(5, "disk")])
async def test_answer_that_cannot_go_on_breaks_off(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        async with streamed(request, {}) as response:
            await response.write(b"begun")
            raise error
        return response

    app = web.Application(middlewares=[errors])
    app.add_routes([web.get("/", fail)])

    async with TestClient(TestServer(app)) as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get("/") as answer:
                assert answer.status == 200
                await answer.read()

    assert str(error) in caplog.text
    assert ("Traceback" in caplog.text) == (not isinstance(error, NotRunning))
