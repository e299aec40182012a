"""Bytes on their way: whole files, ranges, pieces, many writers, and files larger than memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Optional

import pytest
from e2e.platform import Platform
from processes import open_files

from .conftest import Folder, has_error

MIB = 2**20
GIB = 2**30
TEN = b"0123456789"

# What moving a large file may take of the server's memory, whatever the file's size.
EXTRA_MEMORY = 48 * MIB


class Memory:
    """How much more memory a process holds at its peak than in the beginning."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        (self._folder / "clear_refs").write_text("5")  # the peak begins anew (proc(5))
        self._before = self._kib("VmRSS")

    def grown(self) -> int:
        return (self._kib("VmHWM") - self._before) * 1024

    def _kib(self, field: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        raise AssertionError(f"the kernel does not tell {field}")


@pytest.fixture
def memory(platform: Platform) -> Memory:
    return Memory(platform.pid)


# Whole files


@pytest.mark.real_server
@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 1])
async def test_file_comes_back_as_it_was_sent(folder: Folder, size: int) -> None:
    data = os.urandom(size)

    created = await folder.ask("PUT", "a/b", "CREATE", data)
    answer = await folder.ask("GET", "a/b", "OPEN")

    assert (created.status, created.body) == (201, b"")
    assert (folder.disk / "a/b").read_bytes() == data
    assert (answer.status, answer.headers["content-length"]) == (200, str(size))
    assert answer.body == data


@pytest.mark.real_server
async def test_create_truncates(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(TEN)

    await folder.ask("PUT", "a", "CREATE", b"new")

    assert (folder.disk / "a").read_bytes() == b"new"


async def test_body_may_come_in_chunks_of_unknown_number(folder: Folder) -> None:
    chunked = {"Transfer-Encoding": "chunked", "Connection": "close"}
    head = folder.server.head("PUT", folder.url("a", "CREATE"), chunked)

    answer = await folder.server.say(head + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n")

    assert answer.status == 201
    assert (folder.disk / "a").read_bytes() == b"abcdefg"


async def test_body_may_wait_until_it_is_asked_for(folder: Folder) -> None:
    headers = {"Expect": "100-continue", "Content-Length": "4"}
    async with folder.server.connected() as wire:
        await wire.send(folder.server.head("PUT", folder.url("a", "CREATE"), headers))
        assert (await wire.head()).status == 100
        await wire.send(b"data")
        assert (await wire.answer()).status == 201

    assert (folder.disk / "a").read_bytes() == b"data"


# Ranges


@pytest.mark.parametrize(
    "header, span, data",
    [
        pytest.param("bytes=4-", "4-9", b"456789", marks=pytest.mark.real_server),
        pytest.param("bytes=0-", "0-9", TEN, marks=pytest.mark.real_server),
        ("bytes=2-5", "2-5", b"2345"),
        ("bytes=9-9", "9-9", b"9"),
        ("bytes=8-99", "8-9", b"89"),
        ("bytes=-3", "7-9", b"789"),
        ("bytes=-99", "0-9", TEN),
    ],
)
async def test_range_is_answered_with_its_part(
    folder: Folder, header: str, span: str, data: bytes
) -> None:
    (folder.disk / "a").write_bytes(TEN)

    answer = await folder.ask("GET", "a", "OPEN", headers={"Range": header})

    assert (answer.status, answer.body) == (206, data)
    assert answer.headers["content-range"] == f"bytes {span}/10"
    assert answer.headers["content-length"] == str(len(data))


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("bytes=10-", marks=pytest.mark.real_server),
        "bytes=99-",
        "bytes=5-2",
        "bytes=x",
        "bytes=--1",
        "bytes=0-1,3-4",
        "bytes=99999999999999999999999-",
        "lines=1-2",
    ],
)
async def test_range_outside_of_the_file_is_refused(folder: Folder, header: str) -> None:
    (folder.disk / "a").write_bytes(TEN)

    answer = await folder.ask("GET", "a", "OPEN", headers={"Range": header})

    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert answer.json() == {"error": f"Range '{header}' is not within 10 bytes."}


async def test_empty_file_has_no_range(folder: Folder) -> None:
    (folder.disk / "a").touch()

    answer = await folder.ask("GET", "a", "OPEN", headers={"Range": "bytes=0-"})

    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */0")


# Pieces


@pytest.mark.real_server
async def test_file_is_put_together_from_pieces_as_clients_send_them(folder: Folder) -> None:
    data = os.urandom(2 * MIB + 5)

    await folder.ask("PUT", "a", "CREATE", data[:MIB])
    for start in range(MIB, len(data), MIB):
        answer = await folder.write("a", start, data[start : start + MIB])
        assert (answer.status, answer.body) == (200, b"")

    assert (folder.disk / "a").read_bytes() == data


@pytest.mark.parametrize(
    "start, data, expected",
    [
        pytest.param(3, b"ab", b"012ab56789", marks=pytest.mark.real_server),
        (9, b"ab", b"012345678ab"),
        (12, b"ab", TEN + b"\0\0ab"),
    ],
)
async def test_piece_replaces_its_range_and_keeps_the_rest(
    folder: Folder, start: int, data: bytes, expected: bytes
) -> None:
    (folder.disk / "a").write_bytes(TEN)

    assert (await folder.write("a", start, data)).status == 200

    assert (folder.disk / "a").read_bytes() == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes 0-1/*",
        "bytes 0-3/*",
        "bytes 2-0/*",
        "bytes 0-/*",
        "bytes=0-2/*",
        "bytes 0-2",
        "bytes 0-2/x",
        "bytes -1-1/*",
        "bytes 0x0-0x2/*",
        "bytes \u0660-\u0662/*",
        "bytes 9999999999999999999-10000000000000000001/*",
    ],
)
async def test_piece_whose_range_does_not_fit_changes_nothing(
    folder: Folder, header: Optional[str]
) -> None:
    (folder.disk / "a").write_bytes(TEN)
    headers = {} if header is None else {"Content-Range": header}

    answer = await folder.ask("PATCH", "a", "WRITE", b"abc", headers)

    assert has_error(answer, 400, "Content-Range")
    assert (folder.disk / "a").read_bytes() == TEN


async def test_piece_beyond_what_the_file_system_holds_is_refused(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(TEN)

    answer = await folder.write("a", 10**18 - 9, b"abc")

    assert answer.status == 400
    assert answer.json()["errno"] in ("EFBIG", "EINVAL")
    assert (folder.disk / "a").read_bytes() == TEN


@pytest.mark.parametrize("last", [1, 3])
async def test_piece_in_chunks_never_leaves_its_range(folder: Folder, last: int) -> None:
    (folder.disk / "a").write_bytes(TEN)
    headers = {
        "Content-Range": f"bytes 0-{last}/*",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
    }
    head = folder.server.head("PATCH", folder.url("a", "WRITE"), headers)

    answer = await folder.server.say(head + b"3\r\nabc\r\n0\r\n\r\n")

    assert has_error(answer, 400, "Content-Range")
    assert (folder.disk / "a").read_bytes()[3:] == TEN[3:]


# Many at once


async def test_writers_of_one_file_keep_to_their_ranges(folder: Folder) -> None:
    data = os.urandom(20 * MIB)
    (folder.disk / "a").touch()

    pieces = range(0, len(data), MIB)
    answers = await asyncio.gather(
        *(folder.write("a", start, data[start : start + MIB]) for start in pieces)
    )

    assert {answer.status for answer in answers} == {200}
    assert (folder.disk / "a").read_bytes() == data


async def test_writers_of_one_name_leave_one_file_of_theirs(folder: Folder) -> None:
    bodies = [bytes([number]) * MIB for number in range(8)]

    answers = await asyncio.gather(*(folder.ask("PUT", "x/y/a", "CREATE", body) for body in bodies))

    assert {answer.status for answer in answers} == {201}
    assert await folder.names() == ["x"]
    stored = (folder.disk / "x/y/a").read_bytes()
    assert len(stored) == MIB and set(stored) <= set(range(8))


async def test_one_of_many_movers_has_moved(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(TEN)

    answers = await asyncio.gather(
        *(
            folder.ask("POST", "a", "RENAME", destination=f"{folder.path}/{number}")
            for number in range(10)
        )
    )

    statuses = sorted(answer.status for answer in answers)
    assert statuses == [204] + 9 * [404]
    assert [path.read_bytes() for path in folder.disk.iterdir()] == [TEN]


async def test_removers_and_makers_of_one_tree_get_in_nobodys_way(folder: Folder) -> None:
    async def make(number: int) -> int:
        return (await folder.ask("PUT", f"t/{number % 5}/{number}", "CREATE", b"x")).status

    async def remove(_: int) -> int:
        return (await folder.ask("DELETE", "t", "DELETE")).status

    async def look(_: int) -> int:
        return (await folder.ask("GET", "t", "LISTSTATUS")).status

    jobs = (make, make, make, remove, look)
    statuses = await asyncio.gather(*(jobs[n % len(jobs)](n) for n in range(100)))

    # What a maker put into a folder that is being removed is in the remover's way.
    assert set(statuses) <= {200, 201, 204, 400, 404}
    assert (await folder.ask("DELETE", "t", "DELETE")).status in (204, 404)
    assert await folder.names() == []


# Cut off


@pytest.mark.real_server
async def test_upload_that_is_cut_off_leaves_what_had_arrived(folder: Folder) -> None:
    headers = {"Content-Length": str(3 * MIB)}
    async with folder.server.connected() as wire:
        await wire.send(folder.server.head("PUT", folder.url("a", "CREATE"), headers))
        await wire.send(b"x" * 2 * MIB)
        await _until_size(folder.disk / "a", 2 * MIB)
        wire.cut()

    assert (await folder.ask("GET", "a", "OPEN")).body == b"x" * 2 * MIB


async def test_upload_that_is_cut_off_early_leaves_the_old_file(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(TEN)
    async with folder.server.connected() as wire:
        await wire.send(
            folder.server.head("PUT", folder.url("a", "CREATE"), {"Content-Length": str(MIB)})
        )
        await wire.send(b"x" * (MIB - 1))
        wire.cut()

    await asyncio.sleep(0.2)
    assert (await folder.ask("GET", "a", "OPEN")).body == TEN


async def test_piece_that_is_cut_off_keeps_the_rest_of_the_file(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(b"o" * 1000)
    headers = {"Content-Length": "500", "Content-Range": "bytes 100-599/*"}
    async with folder.server.connected() as wire:
        await wire.send(folder.server.head("PATCH", folder.url("a", "WRITE"), headers))
        await wire.send(b"x" * 300)
        while (folder.disk / "a").read_bytes().count(b"x") < 300:
            await asyncio.sleep(0.01)
        wire.cut()

    expected = b"o" * 100 + b"x" * 300 + b"o" * 600
    assert (await folder.ask("GET", "a", "OPEN")).body == expected


async def test_download_that_is_cut_off_lets_go_of_the_file(
    folder: Folder, platform: Platform
) -> None:
    with (folder.disk / "a").open("wb") as file:
        file.truncate(GIB)
    async with folder.server.connected() as wire:
        await wire.send(folder.server.head("GET", folder.url("a", "OPEN")))
        assert (await wire.head()).headers["content-length"] == str(GIB)
        wire.cut()

    while any(path.startswith(str(folder.disk)) for path in open_files(platform.pid)):
        await asyncio.sleep(0.01)


# Larger than memory: tests/slow moves the whole of such a file.


async def test_large_file_is_sent_without_being_held(folder: Folder, memory: Memory) -> None:
    with (folder.disk / "a").open("wb") as file:
        file.truncate(5 * GIB)
        file.seek(5 * GIB - 10)
        file.write(TEN)

    tail = await folder.ask("GET", "a", "OPEN", headers={"Range": f"bytes={5 * GIB - 10}-"})
    async with folder.server.connected() as wire:
        await wire.send(folder.server.head("GET", folder.url("a", "OPEN")))
        assert (await wire.head()).headers["content-length"] == str(5 * GIB)
        for _ in range(192):
            assert not any(await wire.reader.readexactly(MIB))

    assert tail.headers["content-range"] == f"bytes {5 * GIB - 10}-{5 * GIB - 1}/{5 * GIB}"
    assert tail.body == TEN
    assert memory.grown() < EXTRA_MEMORY


async def test_large_file_is_taken_without_being_held(folder: Folder, memory: Memory) -> None:
    size, piece = 192 * MIB, os.urandom(MIB)
    head = folder.server.head("PUT", folder.url("a", "CREATE"), {"Content-Length": str(size)})
    async with folder.server.connected() as wire:
        await wire.send(head)
        for _ in range(size // MIB):
            await wire.send(piece)
        assert (await wire.answer()).status == 201

    assert (folder.disk / "a").stat().st_size == size
    assert memory.grown() < EXTRA_MEMORY
    (folder.disk / "a").unlink()


async def test_piece_beyond_four_gibibytes_lands_where_it_belongs(folder: Folder) -> None:
    (folder.disk / "a").touch()

    assert (await folder.write("a", 5 * GIB - 10, TEN)).status == 200

    status = (await folder.ask("GET", "a", "GETFILESTATUS")).json()
    assert status["FileStatus"]["length"] == 5 * GIB
    tail = await folder.ask("GET", "a", "OPEN", headers={"Range": "bytes=-10"})
    assert tail.body == TEN


async def _until_size(path: Path, size: int) -> None:
    while not path.exists() or path.stat().st_size < size:
        await asyncio.sleep(0.01)
