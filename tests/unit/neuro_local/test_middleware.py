"""What clients are told when neuro-local itself fails, which no request should bring about."""

from __future__ import annotations

import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from neuro_local.api.middleware import errors


async def test_failure_of_ours_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise RuntimeError("where the secret lies")

    app = web.Application(middlewares=[errors])
    app.add_routes([web.get("/", fail)])

    with caplog.at_level(logging.ERROR):
        async with TestClient(TestServer(app)) as client, client.get("/") as response:
            status, headers, body = response.status, response.headers, await response.read()

    assert (status, headers["Content-Type"]) == (500, "application/json; charset=utf-8")
    assert set(json.loads(body)) == {"error"}
    assert "`neuro-local logs` shows why" in headers["X-Error"]
    assert b"secret" not in body
    assert "where the secret lies" in caplog.text


async def test_connection_that_a_handler_loses_elsewhere_is_a_failure_of_ours() -> None:
    async def fail(request: web.Request) -> web.Response:
        raise ConnectionResetError("not the client's")

    app = web.Application(middlewares=[errors])
    app.add_routes([web.get("/", fail)])

    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        assert response.status == 500
