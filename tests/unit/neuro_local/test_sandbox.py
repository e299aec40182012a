"""What is true of the sandbox alone: how it is kept apart from this machine, and cleans up."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import AsyncIterator, List, Set, cast

import pytest
from enginekit import (
    DEADLINE,
    Output,
    Result,
    eventually,
    executed,
    ran,
    ready,
    shared_cache,
    start,
)

from neuro_local.engines.base import Mount
from neuro_local.engines.sandbox import trash
from neuro_local.engines.sandbox.engine import SandboxEngine
from neuro_local.engines.sandbox.layers import MAX_LAYERS
from neuro_local.engines.sandbox.task import SandboxTask
from neuro_local.errors import EngineUnavailable, SaveFailed, StartFailed

LISTEN = (
    "import socket; s = socket.create_server(('0.0.0.0', 80)); print('up', flush=True); input()"
)
# A server that owns an engine and a job, for the tests that let it die.
OWNER = """
import asyncio, pathlib, sys
from neuro_local.engines.base import TaskSpec
from neuro_local.engines.sandbox.engine import SandboxEngine

async def main(folder, cache):
    engine = SandboxEngine(folder / "state", cache=cache, environ={})
    await engine.start()
    script = "trap '' TERM; sleep 12345 & echo up; wait"
    task = await engine.run(TaskSpec("job-orphan", "plain", ["sh", "-c", script]))
    async for chunk in task.main.output():
        print(chunk.data.decode(), end="", flush=True)

asyncio.run(main(*map(pathlib.Path, sys.argv[1:])))
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root could do this harm")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root needs no user namespace")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_cache(tmp_path_factory)


@pytest.fixture
async def engine(world: Path, cache: Path) -> AsyncIterator[SandboxEngine]:
    made = SandboxEngine(world / "state", cache=cache, environ={})
    await ready(made)
    yield made
    await made.close()


async def test_job_writes_do_not_reach_this_machine(engine: SandboxEngine) -> None:
    mark = f"neuro-local-{os.getpid()}"
    folders = ["/usr", "/etc", "/var", "/opt", "/root", "/home", "/srv", "/tmp", "/run", "/"]
    script = "for folder; do echo x > $folder/$0 || exit 1; done"

    assert (await ran(engine, "sh", "-c", script, mark, *folders)).code == 0
    assert not [folder for folder in folders if os.path.exists(f"{folder}/{mark}")]


async def test_job_sees_neither_the_state_nor_the_home_folders(
    engine: SandboxEngine, world: Path
) -> None:
    done = await ran(engine, "ls", str(world), str(Path(__file__)), str(Path.cwd()))

    assert (done.code, done.out) == (2, "")


async def test_job_can_neither_mount_nor_make_a_device(engine: SandboxEngine) -> None:
    script = "mount -t tmpfs none /mnt; mknod /dev/disk b 8 0; echo 1 > /proc/sys/vm/swappiness"
    before = Path("/proc/sys/vm/swappiness").read_text()

    done = await ran(engine, "sh", "-c", f"{script}; grep -c /mnt /proc/mounts; ls /dev/disk")

    assert done.out == "0\n"
    assert Path("/proc/sys/vm/swappiness").read_text() == before


@as_root
async def test_root_keeps_few_capabilities(engine: SandboxEngine) -> None:
    done = await ran(engine, "grep", "CapEff", "/proc/self/status")

    assert int(done.out.split()[1], 16) == 0xA00405FB


@as_user
async def test_user_stays_a_user_and_has_no_capabilities(engine: SandboxEngine) -> None:
    done = await ran(engine, "sh", "-c", "id -u; grep CapEff /proc/self/status")

    assert done.out.split() == [str(os.getuid()), "CapEff:", "0" * 16]


async def test_exit_code_reaches_a_server_that_was_busy_when_the_job_ended(
    engine: SandboxEngine,
) -> None:
    task = cast(SandboxTask, await start(engine, "sh", "-c", "sleep 0.5; exit 3"))
    assert task._handle is not None
    asking = [asyncio.ensure_future(task.connect(80)) for _ in range(10)]
    await asyncio.sleep(0)
    # The loop stands still until init has gone: ten answers, the code and the end are all there.
    assert select.select([task._handle], [], [], DEADLINE)[0]
    time.sleep(0.1)

    assert await task.main.wait() == 3
    await asyncio.gather(*asking, return_exceptions=True)
    await task.remove()


async def test_exit_code_comes_before_what_init_has_not_read(engine: SandboxEngine) -> None:
    task = cast(SandboxTask, await start(engine, "sh", "-c", "sleep 0.2; exit 3"))
    assert task._handle is not None
    signal.pidfd_send_signal(task._handle, signal.SIGSTOP)
    await asyncio.sleep(0.5)
    asking = [asyncio.ensure_future(task.connect(80)) for _ in range(10)]
    await asyncio.sleep(0.1)

    signal.pidfd_send_signal(task._handle, signal.SIGCONT)
    time.sleep(0.5)  # the loop stands still until init has gone

    assert await task.main.wait() == 3
    await asyncio.gather(*asking, return_exceptions=True)
    await task.remove()


async def test_process_that_is_over_is_let_go_while_its_job_runs(engine: SandboxEngine) -> None:
    task = await start(engine, "sleep", "1000")
    await executed(task, "true")
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        assert (await executed(task, "sh", "-c", "echo x; exit 4")).code == 4

    # Less than one for each; the trash of earlier tests opens and closes some at the same time.
    assert len(os.listdir("/proc/self/fd")) < before + 10
    await task.remove()


async def test_process_inherits_its_three_streams_and_nothing_else(engine: SandboxEngine) -> None:
    done = await ran(engine, "bash", "-c", "echo /proc/$$/fd/*")

    assert [Path(word).name for word in done.out.split() if Path(word).name != "255"] in (
        ["0", "1", "2"],
        ["0", "1", "2", "3"],  # the folder being listed
    )


async def test_signals_work_as_outside(engine: SandboxEngine) -> None:
    done = await ran(engine, "bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}")

    assert done.out == "y\n141\n"


async def test_orphans_are_reaped(engine: SandboxEngine) -> None:
    task = await start(engine, "cat")
    await executed(task, "sh", "-c", "(sleep 0 &) & (sleep 0 &)")

    done = await executed(task, "sh", "-c", "sleep 0.1; grep -l Z.*zombie /proc/[0-9]*/status")

    assert done == Result(1, "", "")


async def test_listening_job_is_not_seen_outside(engine: SandboxEngine) -> None:
    before = listening_on(80)
    task = await start(engine, "python", "-c", LISTEN)
    await Output(task.main).until("up")

    assert listening_on(80) == before
    (await task.connect(80)).close()


async def test_job_cannot_reach_this_machines_loopback(engine: SandboxEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = (
            "import http.client, os\n"
            "proxy = http.client.HTTPConnection(os.environ['http_proxy'][7:])\n"
            f"proxy.request('GET', 'http://localhost:{port}/')\n"
            "print(proxy.getresponse().status)"
        )

        done = await ran(engine, "python", "-c", script)

    assert done == Result(0, "403\n", "")


async def test_death_of_the_server_ends_its_jobs(world: Path, cache: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(world), str(cache)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert owner.stdout and owner.stdout.readline() == b"up\n"
        await eventually(lambda: "sleep" in map(name, descendants(owner.pid)), "the job's child")
        jobs = descendants(owner.pid)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()

    await eventually(lambda: not any(map(name, jobs)), "the orphaned job's end")


async def test_next_life_clears_what_the_last_one_left(
    world: Path, cache: Path, engine: SandboxEngine
) -> None:
    folders = ("jobs/job-old", "layers/half.new", "trash/old")
    left = [world / "state" / folder for folder in folders]
    for folder in left:
        (folder / "work" / "work").mkdir(parents=True)
        (folder / "work" / "work").chmod(0)

    await SandboxEngine(world / "state", cache=cache, environ={}).start()

    assert not [folder for folder in left[:2] if folder.exists()]
    await eventually(trash_is_empty)
    assert os.listdir(world / "state" / "trash") == []


async def test_half_made_base_is_made_anew(tmp_path: Path) -> None:
    engine = SandboxEngine(tmp_path / "state", cache=tmp_path / "cache", environ={})
    making = asyncio.create_task(engine.start())
    await eventually(
        lambda: list(tmp_path.glob("cache/building/base*/*/upper/opt/venv")), "a beginning"
    )
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    assert not list(tmp_path.glob("cache/layers/*"))

    await engine.start()

    assert (await ran(engine, "pip", "--version")).code == 0


async def test_ended_job_does_not_wait_for_the_disk(
    engine: SandboxEngine, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await eventually(trash_is_empty)
    disk_is_free = threading.Event()

    def slow(tree: Path) -> None:
        disk_is_free.wait()
        trash.delete(tree)

    task = await start(engine, "cat")
    with monkeypatch.context() as patched:
        patched.setattr(trash, "delete", slow)
        await asyncio.wait_for(task.remove(), 5)
        left = os.listdir(world / "state" / "trash")
    disk_is_free.set()

    assert len(left) == 1
    await eventually(lambda: not os.listdir(world / "state" / "trash"), "an empty trash")


async def test_state_that_jobs_would_see_is_refused(tmp_path: Path) -> None:
    engine = SandboxEngine(Path("/var/lib/neuro-local"), cache=tmp_path, environ={})

    with pytest.raises(EngineUnavailable, match="/var/lib/neuro-local"):
        await engine.start()


async def test_image_of_a_python_that_is_gone_is_refused(
    engine: SandboxEngine, world: Path
) -> None:
    task = await start(engine, "cat")
    await task.save("image:stale")
    for record in (world / "state" / "images").glob("*.json"):
        changed = {**json.loads(record.read_text()), "python": "/no/python3"}
        record.write_text(json.dumps(changed))

    with pytest.raises(StartFailed, match="/no/python3") as failure:
        await start(engine, "true", image="image:stale")

    assert failure.value.reason == "ErrImagePull"


@pytest.mark.parametrize("deep", [False, True], ids=["many", "long paths"])
async def test_stack_of_images_has_a_limit_that_works(
    tmp_path: Path, cache: Path, deep: bool
) -> None:
    folder = tmp_path / ("d" * 90) / ("e" * 90) / ("f" * 90) if deep else tmp_path
    engine = SandboxEngine(folder / "state", cache=cache, environ={})
    await engine.start()
    saved = 0

    with pytest.raises(SaveFailed, match="Start over from a job on the plain image"):
        while True:
            task = await start(engine, "cat", image="image:deep")
            await executed(task, "sh", "-c", "echo x >> /log")
            await task.save("image:deep")
            saved += 1
    log = await ran(engine, "cat", "/log", image="image:deep")
    await engine.close()

    assert log.out == "x\n" * saved
    # The plain base is a layer too.
    assert 3 < saved < MAX_LAYERS - 1 if deep else saved == MAX_LAYERS - 1


async def test_saving_again_frees_the_layer_before(engine: SandboxEngine, world: Path) -> None:
    task = await start(engine, "cat")
    await task.save("image:again")
    before = set(os.listdir(world / "state" / "layers"))
    await task.save("image:again")

    after = set(os.listdir(world / "state" / "layers"))

    assert (len(after), len(after - before)) == (len(before), 1)


async def test_removed_jobs_leave_nothing_behind(engine: SandboxEngine, world: Path) -> None:
    async def life() -> None:
        task = await start(engine, "cat", tty=True)
        await executed(task, "true")
        process = await task.exec(["cat"])
        with pytest.raises(ConnectionRefusedError):
            await task.connect(80)
        await task.remove()
        assert await process.wait() == 137

    await life()
    await eventually(trash_is_empty)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        await life()

    await eventually(trash_is_empty)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(world / "state" / "jobs") == []
    assert os.listdir(world / "state" / "trash") == []


async def test_failed_starts_leave_nothing_behind(
    engine: SandboxEngine, world: Path, tmp_path: Path
) -> None:
    for spec in ({"working_dir": "/no"}, {"mounts": [Mount(tmp_path / "no", "/data", False)]}):
        with pytest.raises(StartFailed):
            await start(engine, "true", **spec)

    assert os.listdir(world / "state" / "jobs") == []


def trash_is_empty() -> bool:
    return trash.WORKER not in [thread.name for thread in threading.enumerate()]


def listening_on(port: int) -> List[str]:
    tables = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]


def name(pid: int) -> str:
    """Return a process's command, "" once it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    command, _, fields = words.partition("(")[2].rpartition(")")
    return "" if fields.split()[0] == "Z" else command


def descendants(pid: int) -> Set[int]:
    children = {
        int(child)
        for listed in Path(f"/proc/{pid}/task").glob("*/children")
        for child in listed.read_text().split()
    }
    return children.union(*map(descendants, children))


async def test_files_that_pip_is_configured_with_are_seen(tmp_path: Path, cache: Path) -> None:
    constraints = tmp_path / "elsewhere" / "constraints.txt"
    constraints.parent.mkdir()
    constraints.write_text("six==1.16.0")
    environ = {"PIP_CONSTRAINT": str(constraints)}
    engine = SandboxEngine(tmp_path / "state", cache=cache, environ=environ)
    await engine.start()
    try:
        seen = await ran(engine, "sh", "-c", 'cat "$PIP_CONSTRAINT"; echo >>"$PIP_CONSTRAINT"')
    finally:
        await engine.close()

    assert seen.out == "six==1.16.0"
    assert "Read-only file system" in seen.err
