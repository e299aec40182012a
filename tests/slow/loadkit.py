"""What the load tests and the benchmarks share: many requests at once, past jobs, and what the
server costs this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Iterable, List, Sequence

import aiohttp
from e2e.commands import wait_until
from e2e.platform import Job, Platform
from e2e.sockets import family

# What the server's Python reads to note its memory.
INSIDE = Path(__file__).with_name("inside")

# What a connection may take on a machine that is busy with fifty jobs. Seconds.
PATIENCE = 120.0


class Api:
    """The platform's API for many tasks of one event loop."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def create(self, command: str, **more: object) -> str:
        """Start a job of the plain base and return its id."""
        body = {"image": "python", "preset_name": "cpu-small", "entrypoint": command, **more}
        async with self.session.post("/api/v1/jobs?from_preset", json=body) as answer:
            text = await answer.text()
            assert answer.status == 202, text
            return str(json.loads(text)["id"])

    async def job(self, id: str) -> Job:
        async with self.session.get(f"/api/v1/jobs/{id}") as answer:
            return Job.parse(json.loads(await answer.text()))

    async def kill(self, id: str) -> None:
        async with self.session.delete(f"/api/v1/jobs/{id}") as answer:
            assert answer.status == 204, await answer.text()

    async def log(self, id: str) -> bytes:
        """Follow a job's log to its end, in the older client's way."""
        async with self.session.get(f"/monitoring/jobs/{id}/log") as answer:
            return await answer.read()

    async def socket_log(self, id: str) -> bytes:
        """Follow a job's log to its end, in the newer client's way."""
        async with self.session.ws_connect(f"/monitoring/jobs/{id}/log_ws") as socket:
            return b"".join([message.data async for message in socket])

    async def ended(self, id: str) -> Job:
        """Return the job once it has ended; its log ends with it."""
        await self.log(id)
        return await self.job(id)

    async def until_running(self, id: str) -> Job:
        while (job := await self.job(id)).status == "pending":
            await asyncio.sleep(0.05)
        return job

    async def exec(self, id: str, command: str) -> bytes:
        """Run a command in a job, in the newer client's way, and return all frames as one."""
        query = {"cmd": command, "tty": "0", "stdin": "1", "stdout": "1", "stderr": "1"}
        path = f"/monitoring/jobs/{id}/exec"
        async with self.session.ws_connect(path, params=query) as socket:
            return b"".join([message.data async for message in socket])

    async def exec_the_older_way(self, id: str, command: str) -> bytes:
        base = f"/monitoring/jobs/{id}"
        body = {"command": command, "stdin": True, "stdout": True, "stderr": True, "tty": False}
        async with self.session.post(f"{base}/exec_create", json=body) as answer:
            exec_id = json.loads(await answer.text())["exec_id"]
        async with self.session.ws_connect(f"{base}/{exec_id}/exec_start") as socket:
            async with self.session.get(f"{base}/{exec_id}/exec_inspect") as answer:
                await answer.read()
            return b"".join([message.data async for message in socket])


@asynccontextmanager
async def api(platform: Platform) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(
        platform.url,
        headers={"Authorization": f"Bearer {platform.token}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, connect=PATIENCE, sock_connect=PATIENCE),
    ) as session:
        yield Api(session)


@dataclass(frozen=True)
class Footprint:
    """What a server holds of this machine. Memory in bytes, that of its own only."""

    memory: int
    descriptors: int
    threads: int
    processes: int
    files: int

    @classmethod
    def of(cls, platform: Platform) -> Footprint:
        process = Path("/proc", str(platform.pid))
        return cls(
            memory=memory_of(platform.pid),
            descriptors=len(os.listdir(process / "fd")),
            threads=len(os.listdir(process / "task")),
            processes=len(family(platform.pid)),
            files=sum(1 for _ in files_of(platform)),
        )

    def __str__(self) -> str:
        return (
            f"{self.memory / 2**20:.1f} MiB, {self.descriptors} descriptors,"
            f" {self.threads} threads, {self.processes} processes, {self.files} files"
        )


def memory_of(pid: int) -> int:
    """Return the memory that is this process's own: neither files nor what it shares."""
    for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Anonymous":
            return int(rest.split()[0]) * 1024
    raise AssertionError(f"process {pid} tells nothing of its memory")


def alive_in(platform: Platform) -> int:
    """Return how many bytes of memory are alive in a server that was started to note that (the
    variables HEAP_NOTES and PYTHONPATH), SQLite's own left out."""
    notes = Path(platform.plain_env["HEAP_NOTES"])
    notes.unlink(missing_ok=True)
    os.kill(platform.pid, signal.SIGUSR1)
    wait_until(notes.exists, "the server has noted what is alive")
    return int(notes.read_text())


def files_of(platform: Platform) -> List[Path]:
    """Return what is in the state folder, without the jobs' logs: those are kept."""
    logs = platform.state / "logs"
    found: List[Path] = []
    for folder, folders, files in os.walk(platform.state):
        if Path(folder) == logs:
            continue
        found += [Path(folder, name) for name in [*folders, *files]]
    return found


def at_rest(platform: Platform) -> Footprint:
    """Return the footprint once all that ended is gone: bubblewraps, folders, connections."""
    engine = platform.state / "engine"

    def is_quiet() -> bool:
        return (
            not os.listdir(engine / "jobs")
            and not os.listdir(engine / "trash")
            and len(family(platform.pid)) == 1
        )

    (engine / "trash").mkdir(exist_ok=True)
    wait_until(is_quiet, "nothing is left of the jobs", 60)
    return Footprint.of(platform)


def add_past_jobs(platform: Platform, count: int) -> None:
    """Give a stopped instance so many copies of its newest job, each with an id of its own."""
    with sqlite3.connect(platform.state / "jobs.db") as db:
        columns = "id, name, status, record"
        newest = f"SELECT {columns} FROM jobs ORDER BY number DESC LIMIT 1"
        id, *rest, record = db.execute(newest).fetchone()
        rows: List[Sequence[Any]] = []
        for number in range(count):
            copy = f"job-00000000-0000-4000-8000-{number:012d}"
            rows.append((copy, *rest, record.replace(id, copy)))
        db.executemany(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?)", rows)
    db.close()


def count_of(variable: str, default: int) -> int:
    """Return how often a test does something: CI has minutes, a person may have an hour."""
    return int(os.environ.get(variable) or default)


async def each(
    numbers: Iterable[int], do: Callable[[int], Awaitable[None]], *, at_once: int
) -> None:
    """Do something for each number, for so many of them at a time."""
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            await do(number)

    await asyncio.gather(*(worker() for _ in range(at_once)))
