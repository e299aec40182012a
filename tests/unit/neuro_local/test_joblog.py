"""A job's log can be read while it grows, and after a crash."""

import asyncio
import contextlib
import re
import resource
import signal
from pathlib import Path
from typing import Iterator, List

import pytest

from neuro_local.joblog import JobLog, as_bytes


@pytest.fixture
def log(tmp_path: Path) -> JobLog:
    return JobLog(tmp_path / "job.log")


async def collect(log: JobLog) -> List[bytes]:
    return [record.data async for record in log.read()]


async def test_reader_follows_until_the_log_is_closed(log: JobLog) -> None:
    log.open()
    log.append(1, b"one")
    reader = asyncio.create_task(collect(log))
    await asyncio.sleep(0)

    log.append(2, b"two")
    log.close()

    assert await reader == [b"one", b"two"]


async def test_bytes_come_back_as_they_were(log: JobLog) -> None:
    log.open()
    log.append(1, bytes(range(256)))
    log.close()

    assert await collect(log) == [bytes(range(256))]


async def test_log_that_never_began_is_empty(log: JobLog) -> None:
    assert await collect(log) == []


async def test_record_cut_off_by_a_crash_is_the_end(log: JobLog, tmp_path: Path) -> None:
    log.open()
    log.append(1, b"whole")
    log.append(1, b"cut")
    log.close()
    path = tmp_path / "job.log"
    path.write_bytes(path.read_bytes()[:-1])

    assert await collect(log) == [b"whole"]


async def test_timestamps_stand_once_before_each_line(log: JobLog) -> None:
    log.open()
    for piece in (b"first ", b"line\nsecond\n"):
        log.append(1, piece)
    log.close()

    text = b"".join([piece async for piece in as_bytes(log.read(), timestamps=True)]).decode()

    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    assert re.fullmatch(rf"{stamp} first line\n{stamp} second\n", text)


async def test_since_leaves_out_what_came_before(log: JobLog) -> None:
    log.open()
    log.append(1, b"early")
    log.append(1, b"late")
    log.close()
    times = [record.time async for record in log.read()]

    pieces = [piece async for piece in as_bytes(log.read(), since=times[1])]

    assert pieces[-1] == b"late"
    assert b"early" not in pieces or times[0] == times[1]


async def test_reading_from_the_end_shows_what_is_to_come(log: JobLog) -> None:
    log.open()
    log.append(1, b"old")
    reader = log.read(from_end=True)
    coming = asyncio.ensure_future(reader.__anext__())
    await asyncio.sleep(0)

    log.append(1, b"new")

    assert (await coming).data == b"new"
    log.close()


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond the size, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_piece_without_room_is_left_out_whole_and_told_of_later(log: JobLog) -> None:
    log.open()
    log.append(1, b"before")
    with file_limit(40):
        log.append(1, b"lost" * 100)
        log.append(1, b"lost too" * 100)
    log.append(1, b"after")
    log.close()

    told = b"[neuro-local lost output of this job here: File too large]\n"
    assert await collect(log) == [b"before", told + b"after"]
    assert log.lost == "File too large"


async def test_reader_is_told_of_a_gap_that_never_found_room(log: JobLog) -> None:
    log.open()
    log.append(1, b"before")
    reader = asyncio.create_task(collect(log))
    await asyncio.sleep(0)
    with file_limit(40):
        log.append(1, b"lost" * 100)
        log.close()

    shown = await reader
    assert shown[0] == b"before" and b"lost output" in shown[1]


async def test_discarded_log_leaves_no_file(log: JobLog, tmp_path: Path) -> None:
    log.open()

    log.discard()

    assert list(tmp_path.iterdir()) == []
