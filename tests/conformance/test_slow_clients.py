"""A client that dawdles, or is gone, is nobody else's trouble."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import AsyncIterator, Callable

import pytest
from e2e.platform import Job, Platform

from .conftest import Folder
from .test_transfers import EXTRA_MEMORY, GIB, MIB, Memory
from .wire import UPGRADE, Server, Wire

CONFIG = "/api/v1/config"

# What others may notice of it. Seconds; a machine that is busy with other tests has its pauses.
PATIENCE = 10.0


@asynccontextmanager
async def unread(server: Server) -> AsyncIterator[Wire]:
    """Connect without reading ahead: what the server sends stays with it."""
    async with server.connected() as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        yield wire


async def others_are_served(server: Server, folder: Folder) -> None:
    began = time.monotonic()
    assert (await server.ask("GET", CONFIG)).status == 200
    assert (await folder.ask("PUT", "other", "CREATE", b"data")).status == 201
    assert (await folder.ask("GET", "other", "OPEN")).body == b"data"
    assert time.monotonic() - began < PATIENCE


async def test_a_hundred_slow_heads_hold_nobody_up(server: Server, folder: Folder) -> None:
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(server.connected()) for _ in range(100)]
        head = server.head("GET", CONFIG)
        for wire in wires:
            await wire.send(head[:20])

        await others_are_served(server, folder)

        await wires[0].send(head[20:])
        assert (await wires[0].answer()).status == 200


async def test_slow_uploads_hold_nobody_up_and_arrive(server: Server, folder: Folder) -> None:
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(server.connected()) for _ in range(30)]
        for number, wire in enumerate(wires):
            length = {"Content-Length": "3"}
            await wire.send(server.head("PUT", folder.url(f"slow{number}", "CREATE"), length))
            await wire.send(b"a")

        await others_are_served(server, folder)

        for piece in (b"b", b"c"):
            for wire in wires:
                await wire.send(piece)
        statuses = [(await wire.answer()).status for wire in wires]
    assert set(statuses) == {201}
    stored = {path.read_bytes() for path in folder.disk.glob("slow*")}
    assert stored == {b"abc"}


async def test_slow_body_of_a_job_holds_nobody_up(server: Server, folder: Folder) -> None:
    async with server.connected() as wire:
        await wire.send(server.head("POST", "/api/v1/jobs", {"Content-Length": "2"}) + b"[")

        await others_are_served(server, folder)

        await wire.send(b"]")
        assert (await wire.answer()).status == 400


async def test_slow_downloads_hold_nobody_up_and_no_memory(
    server: Server, folder: Folder, platform: Platform
) -> None:
    with (folder.disk / "large").open("wb") as file:
        file.truncate(5 * GIB)
    memory = Memory(platform.pid)

    async with AsyncExitStack() as stack:
        for _ in range(20):
            wire = await stack.enter_async_context(unread(server))
            await wire.send(server.head("GET", folder.url("large", "OPEN")))
        await others_are_served(server, folder)
        await asyncio.sleep(0.5)

        await others_are_served(server, folder)

    assert memory.grown() < EXTRA_MEMORY + 20 * 2 * MIB  # a piece in hand and one on its way


@pytest.mark.parametrize("path", ["log", "attach?stdin=1&stdout=1&stderr=1&logs=1"])
async def test_slow_watcher_holds_up_neither_job_nor_memory(
    server: Server,
    folder: Folder,
    platform: Platform,
    start_job: Callable[..., Job],
    path: str,
) -> None:
    job = start_job("sh -c 'read x; head -c 60000000 /dev/zero'")
    memory = Memory(platform.pid)
    target = f"/monitoring/jobs/{job.id}/{path}"

    async with unread(server) as wire:
        await wire.send(server.head("GET", target, {} if path == "log" else UPGRADE))
        async with server.websocket(f"/monitoring/jobs/{job.id}/attach?tty=0&stdin=1") as input_:
            await input_.send(b"\0\n")
            platform.wait_for(job.id, "succeeded")
        await others_are_served(server, folder)

    assert memory.grown() < EXTRA_MEMORY


async def test_slow_exec_holds_up_itself_alone(
    server: Server, folder: Folder, platform: Platform, sleeper: Job
) -> None:
    memory = Memory(platform.pid)
    target = f"/monitoring/jobs/{sleeper.id}/exec?cmd=cat%20/dev/zero&tty=0&stdin=1&stdout=1"

    async with server.websocket(target):
        await asyncio.sleep(0.5)
        await others_are_served(server, folder)

    assert memory.grown() < EXTRA_MEMORY
