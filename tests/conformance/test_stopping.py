"""The server stops in good time whatever its clients are at, and hangs up on each of them."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Callable

from e2e.platform import Platform

from .conftest import server_of
from .test_slow_clients import unread
from .test_transfers import GIB

# Seconds. Jobs are given five of them to end by themselves.
PATIENCE = 30.0


async def test_server_stops_though_its_clients_go_on(
    start_instance: Callable[..., Platform],
) -> None:
    own = start_instance()
    server = server_of(own)
    job = own.start_job("sleep 600")
    with own.storage("large").open("wb") as file:
        file.truncate(5 * GIB)
    monitoring = f"/monitoring/jobs/{job.id}"

    async with AsyncExitStack() as stack:
        wires = [
            (await stack.enter_async_context(server.websocket(f"{monitoring}/{path}"))).wire
            for path in (
                "log_ws",
                "attach?tty=0&stdin=1&stdout=1&stderr=1",
                "attach?stdin=1&stdout=1&stderr=1&logs=1",
                "exec?cmd=cat&tty=0&stdin=1&stdout=1&stderr=1",
            )
        ]
        download = await stack.enter_async_context(unread(server))
        await download.send(server.head("GET", "/storage/user/large?op=OPEN"))
        upload = await stack.enter_async_context(server.connected())
        length = {"Content-Length": "1000"}
        await upload.send(server.head("PUT", "/storage/user/half?op=CREATE", length) + b"half")
        idle = await stack.enter_async_context(server.connected())
        log = await stack.enter_async_context(server.connected())
        await log.send(server.head("GET", f"{monitoring}/log"))

        began = time.monotonic()
        own.down()

        assert time.monotonic() - began < PATIENCE
        for wire in (*wires, upload, idle, log):
            await wire.rest()
    assert b"Traceback" not in (own.state / "server.log").read_bytes()
    # Of less than its first block, nothing was kept.
    assert not own.storage("half").exists()
