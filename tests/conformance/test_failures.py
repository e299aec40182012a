"""What goes wrong on this machine in the middle of an answer, or before it: each answer is whole,
or ends so that the client sees that it is not."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator

import pytest
from e2e.platform import Platform, is_root
from faults.disks import mounted

from .conftest import NDJSON, Folder, has_error, lines, server_of, unchunked

JOBS = "/api/v1/jobs"
FAILED = "neuro-local failed; `neuro-local logs` shows why"

StartInstance = Callable[..., Platform]


@pytest.fixture
def damaged(start_instance: StartInstance) -> Platform:
    """An instance with two ended jobs, of which one has a record that cannot be read."""
    platform = start_instance()
    jobs = [platform.start_job("sleep 600").id for _ in range(2)]
    for job in jobs:
        platform.end_job(job)
        platform.wait_for(job, "cancelled")
    with sqlite3.connect(platform.state / "jobs.db") as db:
        db.execute("UPDATE jobs SET record = 'nonsense' WHERE id = ?", (jobs[1],))
    db.close()
    return platform


def damaged_job(platform: Platform) -> str:
    with sqlite3.connect(platform.state / "jobs.db") as db:
        (id,) = db.execute("SELECT id FROM jobs WHERE record = 'nonsense'").fetchone()
    db.close()
    return str(id)


def log_of(platform: Platform) -> str:
    return (platform.state / "server.log").read_text()


async def test_failure_of_the_server_is_a_500_without_its_reason(damaged: Platform) -> None:
    target = f"{JOBS}/{damaged_job(damaged)}"

    answer = await server_of(damaged).ask("GET", target)

    assert has_error(answer, 500, FAILED)
    assert answer.headers["x-error"] == FAILED
    assert f"GET {target}" in log_of(damaged) and "JSONDecodeError" in log_of(damaged)


async def test_failure_of_the_server_refuses_a_socket_alike(damaged: Platform) -> None:
    target = f"/monitoring/jobs/{damaged_job(damaged)}/log_ws"

    assert has_error(await server_of(damaged).refusal(target), 500, FAILED)


@pytest.mark.parametrize("accept", [NDJSON, {}], ids=["lines", "object"])
async def test_listing_that_cannot_go_on_breaks_off(
    damaged: Platform, accept: Dict[str, str]
) -> None:
    server = server_of(damaged)
    async with server.connected() as wire:
        await wire.send(server.head("GET", JOBS, accept))
        try:
            said = await wire.rest()
        except ConnectionResetError:
            said = b""

    # It has begun, so it is neither ended nor followed by another answer.
    assert said.count(b"HTTP/1.1") <= 1 and b" 500 " not in said
    assert not said.endswith(b"0\r\n\r\n")
    assert f"GET {JOBS}" in log_of(damaged)
    assert (await server.ask("GET", "/api/v1/config")).status == 200


@contextmanager
def irremovable(folder: Path) -> Iterator[Dict[str, str]]:
    """Have a folder that nobody can remove, and give the error that says so."""
    if is_root():  # permissions do not keep it from anything
        with mounted(folder, "-t", "tmpfs", "tmpfs"):
            yield {"error": "Device or resource busy.", "errno": "EBUSY"}
    else:
        folder.chmod(0o555)
        try:
            yield {"error": "Permission denied.", "errno": "EACCES"}
        finally:
            folder.chmod(0o755)


async def test_removal_that_cannot_go_on_ends_with_a_line_that_says_so(folder: Folder) -> None:
    # Entries come in the order of the disk: some folders shall be gone before this one's turn.
    names = [f"tree/{number}" for number in range(300)]
    for name in names:
        (folder.disk / name).mkdir(parents=True)
        (folder.disk / name / "file").touch()
    (folder.disk / "tree" / "150" / "file").rename(folder.disk / "tree" / "150" / "kept")
    with irremovable(folder.disk / "tree" / "150") as error:
        answer = await folder.ask("DELETE", "tree", "DELETE", headers=NDJSON, recursive="true")

    *removed, last = lines(answer)
    assert answer.status == 200 and removed
    assert last["errno"] == error["errno"]
    assert last["error"].startswith(f"'{folder.path}/tree/150")
    assert last["error"].endswith(f": {error['error']}")
    gone = [entry["path"] for entry in removed if entry["is_dir"]]
    left = {path.name for path in (folder.disk / "tree").iterdir()}
    assert left == {str(n) for n in range(300)} - {path.rpartition("/")[2] for path in gone}
    assert "150" in left


async def test_save_that_fails_in_a_way_of_its_own_ends_with_a_line(
    start_instance: StartInstance,
) -> None:
    platform = start_instance()
    server, job = server_of(platform), platform.start_job("sleep 600")
    images = platform.state / "engine" / "images"
    images.rmdir()
    images.write_text("no folder")
    image = f"127.0.0.1:{server.port}/user/none:v1"
    body = json.dumps({"container": {"image": image}}).encode()

    answer = await server.ask("POST", f"/monitoring/jobs/{job.id}/save", body)

    os.unlink(images)
    images.mkdir()
    assert answer.status == 200
    assert unchunked(answer.body).count(b"\n") == 2
    first, last = lines(answer)
    assert first["status"] == "CommitStarted"
    assert last["errorDetail"] == {"message": last["error"]}
