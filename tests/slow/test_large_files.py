"""A file of 5 GiB, whole, both ways, without the server holding more of it than a piece."""

from __future__ import annotations

import asyncio
import shutil

from conformance.conftest import Folder, folder, platform, server
from conformance.test_transfers import EXTRA_MEMORY, GIB, MIB, Memory, memory
from machine import impossible

__all__ = ["folder", "memory", "platform", "server"]

SIZE = 5 * GIB
MARK = b"the end"


async def test_five_gibibytes_come_down(folder: Folder, memory: Memory) -> None:
    with (folder.disk / "a").open("wb") as file:
        file.truncate(SIZE - len(MARK))
        file.seek(0, 2)
        file.write(MARK)
    loop, tail, received = asyncio.get_running_loop(), b"", 0

    async with folder.server.connected() as wire:
        await wire.send(folder.server.head("GET", folder.url("a", "OPEN"), {"Connection": "close"}))
        assert (await wire.head()).headers["content-length"] == str(SIZE)
        began = loop.time()
        while data := await wire.reader.read(MIB):
            received += len(data)
            tail = (tail + data)[-len(MARK) :]

    assert (received, tail) == (SIZE, MARK)
    assert memory.grown() < EXTRA_MEMORY
    print(f"{SIZE / MIB / (loop.time() - began):.0f} MiB/s")


async def test_five_gibibytes_go_up_in_pieces_as_clients_send_them(
    folder: Folder, memory: Memory
) -> None:
    if shutil.disk_usage(folder.disk).free < SIZE + GIB:
        impossible(f"{folder.disk} has less than 6 GiB free")
    piece = MARK + bytes(MIB - 2 * len(MARK)) + MARK

    async with folder.server.connected() as wire:
        for start in range(0, SIZE, MIB):
            headers = {"Content-Length": str(MIB)}
            method, op = ("PATCH", "WRITE") if start else ("PUT", "CREATE")
            if start:
                headers["Content-Range"] = f"bytes {start}-{start + MIB - 1}/*"
            await wire.send(folder.server.head(method, folder.url("a", op), headers) + piece)
            assert (await wire.answer()).status == (200 if start else 201)

    assert (folder.disk / "a").stat().st_size == SIZE
    with (folder.disk / "a").open("rb") as file:
        for start in (0, GIB, 4 * GIB, SIZE - MIB):
            file.seek(start)
            assert file.read(MIB) == piece
    (folder.disk / "a").unlink()
    assert memory.grown() < EXTRA_MEMORY
