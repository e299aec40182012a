"""Much at once, and much one after the other: jobs, followers of a log, past jobs.

How much is set by variables; without them it is what CI has the minutes for:
LOAD_JOBS (50 at once), LOAD_FOLLOWERS (100), LOAD_LINES (60,000), LOAD_PAST (5,000), LOAD_CHURN
(10,000 short jobs), LOAD_EXECS (300).
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Iterator, List, Tuple

import aiohttp
import pytest
from e2e.platform import Platform
from loadkit import (
    INSIDE,
    Api,
    Footprint,
    add_past_jobs,
    alive_in,
    api,
    at_rest,
    count_of,
    each,
    memory_of,
)

JOBS = count_of("LOAD_JOBS", 50)
FOLLOWERS = count_of("LOAD_FOLLOWERS", 100)
LINES = count_of("LOAD_LINES", 60_000)
PAST = count_of("LOAD_PAST", 5_000)
CHURN = count_of("LOAD_CHURN", 10_000)
EXECS = count_of("LOAD_EXECS", 300)

# How often a churn stops to be measured, after a third of it to warm up.
SAMPLES = 10
# What a job may add to the server's memory, as the straight line through the samples has it. Bytes.
LEAK = 500

# They measure one another if they run side by side.
pytestmark = [pytest.mark.xdist_group("load"), pytest.mark.timeout(3600)]

# What lets all jobs go on at the same moment: a file in a volume that they share.
GATE = {"src_storage_uri": "storage://local/user/gate", "dst_path": "/gate", "read_only": True}
AT_THE_GATE = "until [ -e /gate/open ]; do sleep 0.1; done"

# A limit of open files lower than this machine's, as a login shell's may be.
FEW_FILES = ("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path, wrapper=FEW_FILES)
    platform.up()
    platform.storage("gate").mkdir()
    yield platform
    platform.down()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Api]:
    async with api(platform) as made:
        yield made


def open_gate(platform: Platform) -> None:
    (platform.storage("gate") / "open").touch()


def shell(script: str) -> str:
    return f"sh -c '{script}'"


async def test_jobs_at_once_start_log_and_end_with_their_own_codes(
    platform: Platform, client: Api
) -> None:
    def script(number: int) -> str:
        said = f"echo out {number}; echo err {number} >&2"
        return shell(f"{AT_THE_GATE}; {said}; exit {number % 256}")

    ids = await asyncio.gather(
        *(client.create(script(number), volumes=[GATE]) for number in range(JOBS))
    )
    running = await asyncio.gather(*map(client.until_running, ids))
    assert {job.status for job in running} == {"running"}
    shown = await asyncio.to_thread(platform.neuro, "--quiet", "ps")
    assert sorted(shown.stdout.split()) == sorted(ids)
    assert Footprint.of(platform).threads < 20

    open_gate(platform)

    ended = await asyncio.gather(*map(client.ended, ids))
    assert [(job.status, job.exit_code) for job in ended] == [
        ("failed" if number % 256 else "succeeded", number % 256) for number in range(JOBS)
    ]
    logs = await asyncio.gather(*map(client.socket_log, ids))
    assert [sorted(log.splitlines()) for log in logs] == [
        [b"err %d" % number, b"out %d" % number] for number in range(JOBS)
    ]
    said = await asyncio.to_thread(platform.neuro, "logs", ids[-1])
    assert f"out {JOBS - 1}\n" in said.stdout


async def test_followers_see_every_line_once_and_slow_ones_are_in_nobodys_way(
    platform: Platform, client: Api
) -> None:
    slowly = "for i in $(seq 200); do echo line $i; sleep 0.01; done"
    at_full_speed = f'seq -f "line %.0f $(printf %090d 0)" {LINES}'
    job = await client.create(
        shell(f"echo first; {AT_THE_GATE}; {slowly}; {at_full_speed}"), volumes=[GATE]
    )
    lines = [f"line {number}" for number in range(1, 201)]
    lines += [f"line {number} {'0' * 90}" for number in range(1, LINES + 1)]
    expected = "\n".join(["first", *lines, ""]).encode()
    slow_ones = FOLLOWERS // 5
    release = asyncio.Event()
    followers = [Follower(client, job, over_socket=bool(number % 2)) for number in range(FOLLOWERS)]
    slow, quick = followers[:slow_ones], followers[slow_ones:]
    reading = [asyncio.create_task(follower.follow(release)) for follower in slow]
    following = [asyncio.create_task(follower.follow()) for follower in quick]
    await asyncio.gather(*(follower.connected.wait() for follower in followers))
    before = memory_of(platform.pid)
    with platform.start_neuro("logs", job) as neuro:
        await asyncio.to_thread(neuro.wait_for, "first\n")

        open_gate(platform)

        assert [said == expected for said in await asyncio.gather(*following)] == [True] * len(
            following
        )
        said = (await asyncio.to_thread(neuro.wait)).stdout
        assert said.encode().startswith(expected)
    grown = memory_of(platform.pid) - before
    assert not any(task.done() for task in reading)
    # Whatever they have not read: the server keeps it on disk, not in memory.
    assert grown < min(0.5 * slow_ones * len(expected), FOLLOWERS * 2**18), f"{grown / 2**20} MiB"
    release.set()
    assert [said == expected for said in await asyncio.gather(*reading)] == [True] * slow_ones


class Follower:
    """Follows a log to its end; a slow one begins to read when it is told."""

    def __init__(self, client: Api, job: str, *, over_socket: bool) -> None:
        self._client = client
        self._path = f"/monitoring/jobs/{job}/" + ("log_ws" if over_socket else "log")
        self._over_socket = over_socket
        self.connected = asyncio.Event()

    async def follow(self, release: asyncio.Event | None = None) -> bytes:
        if self._over_socket:
            async with self._client.session.ws_connect(self._path) as socket:
                self.connected.set()
                if release:
                    await release.wait()
                return b"".join([message.data async for message in socket])
        async with self._client.session.get(self._path) as answer:
            self.connected.set()
            if release:
                await release.wait()
            return await answer.read()


def test_ps_is_no_slower_for_thousands_of_past_jobs(platform: Platform, tmp_path: Path) -> None:
    empty = Platform(tmp_path / "empty")
    empty.up()
    try:
        running = with_past_jobs(platform)
        times: Dict[Platform, List[float]] = {platform: [], empty: []}
        for one in (platform, empty):
            one.neuro("ps")  # logs in
        for _ in range(5):
            for one, measured in times.items():
                started = time.perf_counter()
                said = one.neuro("--quiet", "ps").stdout.split()
                measured.append(time.perf_counter() - started)
                assert said == ([running] if one is platform else [])

        # Nearly all of it is the client's own start; 5,000 jobs in its way would be seconds.
        with_past, without = (statistics.median(times[one]) for one in (platform, empty))
        assert with_past < 1.5 * without
    finally:
        empty.down()


async def test_whole_past_is_listed_while_others_are_served(platform: Platform) -> None:
    running = with_past_jobs(platform)
    async with api(platform) as client:
        listing = asyncio.create_task(lines_of(client, {}))
        served = 0
        while not listing.done():
            assert (await client.job(running)).status == "running"
            served += 1

        assert len(await listing) == PAST + 2
        assert served > 10


async def test_slow_reader_of_a_listing_costs_no_memory(platform: Platform) -> None:
    with_past_jobs(platform)
    async with api(platform) as client:
        size = len(await client_bytes(client, "/api/v1/jobs"))
        before = memory_of(platform.pid)
        reader = socket.create_connection(("127.0.0.1", int(platform.url.rpartition(":")[2])))
        with reader:
            request = (
                f"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {platform.token}"
            )
            reader.sendall(f"{request}\r\n\r\n".encode())
            await asyncio.sleep(2)
            assert memory_of(platform.pid) - before < size / 2


def test_job_is_found_as_soon_by_a_name_that_thousands_had(platform: Platform) -> None:
    with_past_jobs(platform, name="train-again")
    for name in ("train-again", "only-once"):
        platform.start_job("sleep 1000", name=name)
    times: Dict[str, List[float]] = {"train-again": [], "only-once": []}

    for _ in range(5):
        for name, measured in times.items():
            started = time.perf_counter()
            assert f"{name}" in platform.neuro("status", name).stdout
            measured.append(time.perf_counter() - started)

    # The newer client asks for all jobs of that name, takes the first and hangs up.
    usual, once = (statistics.median(times[name]) for name in times)
    assert usual < 1.5 * once


def with_past_jobs(platform: Platform, **more: Any) -> str:
    """Give an instance its past, and start a job; returns its id."""
    ended = platform.start_job("sleep 1000", **more)
    platform.end_job(ended.id)
    platform.wait_for(ended.id, "cancelled")
    platform.down()
    add_past_jobs(platform, PAST)
    platform.up()
    return platform.start_job("sleep 1000").id


async def lines_of(client: Api, query: Dict[str, str]) -> List[bytes]:
    headers = {"Accept": "application/x-ndjson"}
    async with client.session.get("/api/v1/jobs", params=query, headers=headers) as answer:
        return [line async for line in answer.content]


async def client_bytes(client: Api, path: str) -> bytes:
    async with client.session.get(path) as answer:
        return await answer.read()


# What the jobs of a churn are; `None` where the job does not end by itself with a code.


async def succeeds(client: Api, number: int) -> None:
    id = await client.create(shell(f"echo {number}"))
    assert await client.log(id) == b"%d\n" % number
    assert (await client.job(id)).exit_code == 0


async def fails(client: Api, number: int) -> None:
    id = await client.create(shell("exit 3"))
    assert (await client.ended(id)).exit_code == 3


async def cannot_start(client: Api, number: int) -> None:
    id = await client.create("no-such-command")
    assert (await client.ended(id)).reason == "ContainerCannotRun"


async def is_killed_at_once(client: Api, number: int) -> None:
    id = await client.create("sleep 1000")
    await client.kill(id)
    assert (await client.ended(id)).status == "cancelled"


async def is_entered_and_killed(client: Api, number: int) -> None:
    id = await client.create("sleep 1000")
    await client.until_running(id)
    assert b"entered" in await client.exec(id, "echo entered")
    await client.kill(id)
    assert (await client.ended(id)).status == "cancelled"


async def has_a_page(client: Api, number: int) -> None:
    id = await client.create("sleep 0.2", http={"port": 80, "requires_auth": False})
    job = await client.until_running(id)
    if job.http_url:
        try:
            async with client.session.get(job.http_url) as answer:
                await answer.read()
        except aiohttp.ClientError:  # it was too late
            pass
    assert (await client.ended(id)).exit_code == 0


async def is_attached_to(client: Api, number: int) -> None:
    """As the newer client's `run` in the foreground, which leaves before its last questions."""
    id = await client.create("head -n 1")
    await client.until_running(id)
    attach = f"/monitoring/jobs/{id}/attach?tty=0&stdin=1&stdout=1&stderr=1"
    log = asyncio.create_task(client.socket_log(id))
    async with client.session.ws_connect(attach) as socket_:
        await socket_.send_bytes(b"\0attached\n")
        shown = b"".join([message.data async for message in socket_])
    assert b"attached\n" in shown + await log
    assert (await client.job(id)).exit_code == 0


KINDS: List[Callable[[Api, int], Awaitable[None]]] = [
    fails,
    cannot_start,
    is_killed_at_once,
    is_entered_and_killed,
    has_a_page,
    is_attached_to,
]


@pytest.fixture
def noting(tmp_path: Path) -> Iterator[Platform]:
    """An instance that notes on demand what is alive in its memory: see alive_in()."""
    settings = {"PYTHONPATH": str(INSIDE), "HEAP_NOTES": str(tmp_path / "notes")}
    platform = Platform(tmp_path / "noting", wrapper=FEW_FILES, settings=settings)
    platform.up()
    yield platform
    platform.down()


async def test_churn_of_short_jobs_leaves_nothing_behind(
    noting: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    async with api(noting) as client:
        warm, end, slope = await churned(noting, client)
    with capsys.disabled():
        print(f"\n{CHURN} jobs: {warm}; {end}; {slope:+.0f} bytes a job")

    assert slope < LEAK, f"{slope:.0f} bytes a job"
    assert end.memory < 1.1 * warm.memory + 2**20, f"{warm}, then {end}"
    assert end.descriptors <= warm.descriptors + 2, f"{warm}, then {end}"
    assert end.threads <= warm.threads + 2, f"{warm}, then {end}"
    assert end.processes == 1
    assert end.files == warm.files
    assert len(list((noting.state / "logs").iterdir())) == CHURN
    listed = await asyncio.to_thread(noting.neuro, "--quiet", "ps", "--all")
    assert len(listed.stdout.split()) == CHURN
    assert not (noting.state / "server.log").read_text()


async def churned(platform: Platform, client: Api) -> Tuple[Footprint, Footprint, float]:
    """Start and end the jobs; return what the server holds after the first third of them and after
    all, and how many bytes each between has added to what is alive in its memory."""

    def one(number: int) -> Awaitable[None]:
        # Every fourth is of another kind than the plainest.
        kind = KINDS[number // 4 % len(KINDS)] if number % 4 == 0 else succeeds
        return kind(client, number)

    async def churn(first: int, end: int) -> Tuple[Footprint, int]:
        await each(range(first, end), one, at_once=24)
        footprint = await asyncio.to_thread(at_rest, platform)
        return footprint, await asyncio.to_thread(alive_in, platform)

    warm_up = CHURN // 3
    ends = [warm_up + (CHURN - warm_up) * n // SAMPLES for n in range(SAMPLES + 1)]
    samples = [await churn(first, end) for first, end in zip([0, *ends], ends)]
    alive = [bytes_ for _, bytes_ in samples]
    print("alive, in KiB:", ", ".join(f"{bytes_ / 1024:.0f}" for bytes_ in alive))
    return samples[0][0], samples[-1][0], statistics.linear_regression(ends, alive).slope


async def test_job_that_is_entered_again_and_again_holds_no_more_for_it(
    platform: Platform, client: Api
) -> None:
    id = await client.create("sleep 1000")
    await client.until_running(id)

    async def enter(number: int) -> None:
        way = client.exec if number % 2 else client.exec_the_older_way
        assert b"%d\n" % number in await way(id, f"echo {number}")

    async def footprint(first: int, end: int) -> Footprint:
        await each(range(first, end), enter, at_once=4)
        return Footprint.of(platform)

    warm = await footprint(0, EXECS // 3)
    end = await footprint(EXECS // 3, EXECS)

    assert end.descriptors <= warm.descriptors + 8, f"{warm}, then {end}"
    assert end.memory < 1.1 * warm.memory + 2**20, f"{warm}, then {end}"
    assert end.processes == warm.processes
