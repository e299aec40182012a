"""What the Docker engine does beside the contract that all engines share."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List, Mapping

import pytest
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from dockergate import Gate
from dockerimages import Images
from enginekit import DEADLINE, Output, docker_engine_at, executed, ran, result, start

from neuro_local.engines.base import Mount, Task, TaskSpec
from neuro_local.engines.docker.engine import DockerEngine
from neuro_local.engines.docker.leftovers import Traces, clear_all
from neuro_local.errors import EngineUnavailable, SaveFailed, StartFailed

SERVER = (
    "import socket; s = socket.create_server(('127.0.0.1', 80)); print('listening', flush=True)\n"
    "while True: c, _ = s.accept(); c.sendall(b'hi'); c.close()"
)
# How long a package may take that comes over the network. Seconds.
DOWNLOAD = 300.0
NO_PYTHON = "rm -f /opt/venv/bin/python* /usr/bin/python*"
NO_BASH = "apt-get -qq update && apt-get -qq install busybox >/dev/null && rm /bin/bash"


@pytest.fixture
def host(docker_engine: Images) -> str:
    return docker_engine.host


@pytest.fixture
async def engine(host: str) -> AsyncIterator[DockerEngine]:
    made = docker_engine_at(host)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def api(host: str) -> AsyncIterator[Docker]:
    """The Docker engine itself."""
    async with Docker(host) as api:
        yield api


@pytest.fixture
def gate(host: str) -> Iterator[Gate]:
    """A way to the Docker engine that can be shut."""
    gate = Gate(host)
    gate.open()
    yield gate
    gate.shut()


async def containers(api: Docker, **labels: str) -> List[Mapping[str, Any]]:
    """Return what the engine says of the containers with those labels."""
    wanted = [f"neuro-local.{name}={value}" for name, value in labels.items()]
    found = await api.containers.list(all="true", filters=json.dumps({"label": wanted}))
    shown: List[Mapping[str, Any]] = []
    for container in found:
        with suppress(DockerError):  # gone since
            shown.append(await container.show())
    return shown


async def image_config(api: Docker, engine: DockerEngine, name: str) -> Dict[str, Any]:
    found = await api.images.inspect(f"neuro-local/{engine.instance}/{name}")
    config: Dict[str, Any] = found["Config"]
    return config


# What a job's container is


async def test_container_is_labelled_and_publishes_nothing(
    engine: DockerEngine, api: Docker
) -> None:
    await start(engine, "cat")

    [details] = await containers(api, instance=engine.instance)

    assert details["Config"]["Labels"]["neuro-local.job"] == "job-01234567-89ab"
    assert not details["HostConfig"]["PortBindings"] and not details["NetworkSettings"]["Ports"]
    # A second copy of every log would fill the disk, beside the one that neuro-local keeps.
    assert details["HostConfig"]["LogConfig"]["Type"] == "none"


async def test_preset_limits_the_job(engine: DockerEngine, api: Docker) -> None:
    task = await start(engine, "cat", cpu=0.5, memory_mb=256, shm=True)
    size = await executed(task, "df", "--block-size=1M", "--output=size", "/dev/shm")
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    limit = await executed(task, "sh", "-c", script)
    [details] = await containers(api, instance=engine.instance)

    assert size.out.split()[-1] == "256"
    assert limit.out.strip() == str(256 * 2**20)
    assert details["HostConfig"]["NanoCpus"] == 500_000_000
    if (await api.system.info())["SwapLimit"]:  # no swap beside it
        assert details["HostConfig"]["MemorySwap"] == 256 * 2**20


async def test_job_of_more_memory_than_its_preset_is_killed(engine: DockerEngine) -> None:
    task = await start(engine, "python", "-c", "x = b'x' * 10**9", memory_mb=64)

    assert (await result(task.main)).code == 137
    assert await task.out_of_memory()


async def test_job_that_is_killed_was_not_out_of_memory(engine: DockerEngine) -> None:
    task = await start(engine, "cat", memory_mb=64)

    await task.stop(grace=0)

    assert (await result(task.main)).code == 137
    assert not await task.out_of_memory()


async def test_preset_of_a_larger_machine_has_what_there_is(engine: DockerEngine) -> None:
    assert (await ran(engine, "true", cpu=1000, memory_mb=10**6)).code == 0


# Ends


async def test_close_removes_its_own_containers_and_no_others(
    host: str, engine: DockerEngine, api: Docker
) -> None:
    other = docker_engine_at(host)
    await other.start()
    try:
        theirs = await start(other, "cat")
        task = await start(engine, "cat")
        await task.save("user/mine:1")
        # As a user may start one by hand.
        saved = f"neuro-local/{engine.instance}/user/mine:1"
        by_hand = await api.containers.create({"Image": saved, "Cmd": ["sleep", "1000"]})
        await by_hand.start()
        try:
            await engine.close()

            assert await containers(api, instance=engine.instance) == []
            assert (await by_hand.show())["State"]["Running"]
            assert (await executed(theirs, "echo", "alive")).out == "alive\n"
        finally:
            await by_hand.delete(force=True)
    finally:
        await other.close()
        await engine.start()  # for the fixture to close


async def test_next_start_ends_what_a_killed_server_left(
    host: str, engine: DockerEngine, api: Docker
) -> None:
    task = await start(engine, "cat")

    again = docker_engine_at(host, engine.instance)
    await again.start()
    await again.close()

    assert await asyncio.wait_for(task.main.wait(), DEADLINE) == 137
    assert await containers(api, instance=engine.instance) == []


async def test_what_a_killed_server_left_ends_without_a_start(
    host: str, api: Docker, tmp_path: Path
) -> None:
    traces = tmp_path / "containers"
    killed = docker_engine_at(host, traces=traces)
    await killed.start()
    await start(killed, "cat")

    await clear_all(Traces(traces), killed.instance)

    assert await containers(api, instance=killed.instance) == []
    assert not traces.exists()
    await killed.close()


async def test_engine_that_is_away_is_cleared_once_it_is_back(
    gate: Gate, api: Docker, tmp_path: Path
) -> None:
    traces = tmp_path / "containers"
    killed = docker_engine_at(gate.host, traces=traces)
    await killed.start()
    await start(killed, "cat")
    gate.shut()
    await killed.close()

    await clear_all(Traces(traces), killed.instance)
    assert traces.read_text() == f"{gate.path}\n"
    assert len(await containers(api, instance=killed.instance)) == 1

    gate.open()
    await clear_all(Traces(traces), killed.instance)
    assert await containers(api, instance=killed.instance) == []
    assert not traces.exists()


async def test_traces_of_two_engines_do_not_disturb_each_other(
    host: str, gate: Gate, tmp_path: Path
) -> None:
    traces = Traces(tmp_path / "containers")
    first = docker_engine_at(gate.host, traces=tmp_path / "containers")
    second = docker_engine_at(host, first.instance, tmp_path / "containers")
    await first.start()
    gate.shut()
    await first.close()

    await second.start()
    assert len(traces.sockets) == 2
    await second.close()

    assert traces.sockets == [gate.path]


async def test_cancelled_start_leaves_no_container(engine: DockerEngine, api: Docker) -> None:
    starting = asyncio.create_task(start(engine, "cat"))
    while not starting.done() and not await containers(api, instance=engine.instance):
        await asyncio.sleep(0.01)
    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting

    assert await containers(api, instance=engine.instance) == []


async def test_job_whose_container_somebody_removes_has_ended(
    engine: DockerEngine, api: Docker
) -> None:
    task = await start(engine, "cat")
    [details] = await containers(api, instance=engine.instance)

    await api.containers.container(details["Id"]).delete(force=True)

    assert await asyncio.wait_for(task.main.wait(), DEADLINE) == 137
    await task.remove()


# Images


@pytest.mark.parametrize("image", ["no-such-registry.invalid/image:1", "no-such-image-anywhere"])
async def test_image_that_cannot_be_pulled_says_why(engine: DockerEngine, image: str) -> None:
    told: List[str] = []

    with pytest.raises(StartFailed, match=image) as failure:
        await asyncio.wait_for(engine.run(TaskSpec("job-0", image), told.append), DEADLINE)

    assert failure.value.reason == "ErrImagePull"
    assert told == [f"{image} is pulled, which can take minutes"]


@pytest.mark.parametrize(
    "image", ["", "UPPER CASE", "a/../../containers/json?x=", "a#b", "-v", "../plain", "plain\n"]
)
async def test_name_that_is_none_of_an_image_is_refused(engine: DockerEngine, image: str) -> None:
    with pytest.raises(StartFailed) as failure:
        await start(engine, "true", image=image)

    assert failure.value.reason == "ErrImagePull"


async def test_own_image_is_never_looked_for_elsewhere(engine: DockerEngine) -> None:
    with pytest.raises(StartFailed, match="not on this platform"):
        await start(engine, "true", image="plain", own=True)


async def test_saved_image_runs_what_its_base_runs(engine: DockerEngine, api: Docker) -> None:
    task = await start(engine, "word", entrypoint=["tail", "-f", "/dev/null"], working_dir="/tmp")
    await task.save("user/mine:1")

    base = (await api.images.inspect("plain"))["Config"]
    config = await image_config(api, engine, "user/mine:1")

    for key in "Entrypoint", "Cmd", "WorkingDir":
        assert (config[key] or None) in ((base[key] or None), "/"), key
    added = {name: text for name, text in config["Labels"].items() if name not in base["Labels"]}
    assert set(added.values()) == {""}


async def test_image_that_is_replaced_leaves_nothing(engine: DockerEngine, api: Docker) -> None:
    task = await start(engine, "cat")
    await task.save("user/mine:1")
    first = (await api.images.inspect(f"neuro-local/{engine.instance}/user/mine:1"))["Id"]

    await executed(task, "touch", "/more")
    await task.save("user/mine:1")

    assert first not in [image["Id"] for image in await api.images.list(all="true")]


async def test_image_that_is_replaced_keeps_the_name_that_its_user_gave(
    engine: DockerEngine, api: Docker
) -> None:
    task = await start(engine, "cat")
    await task.save("user/mine:1")
    saved = f"neuro-local/{engine.instance}/user/mine:1"
    named = f"neuro-local-tests/{engine.instance}"
    await api.images.tag(saved, named, tag="1")
    try:
        await executed(task, "touch", "/more")
        await task.save("user/mine:1")

        assert await api.images.inspect(f"{named}:1")
    finally:
        await api.images.delete(f"{named}:1")


async def test_image_that_is_discarded_leaves_nothing(engine: DockerEngine, api: Docker) -> None:
    task = await start(engine, "cat")
    await task.save("user/mine:1")
    await task.save("user/mine:2")
    made = (await api.images.inspect(f"neuro-local/{engine.instance}/user/mine:1"))["Id"]

    for _ in range(2):  # repeatable
        await engine.discard("user/mine:1")

    assert await engine.images() == ["user/mine:2"]
    assert made not in [image["Id"] for image in await api.images.list(all="true")]


async def test_image_that_a_job_runs_from_is_discarded_in_the_end(
    engine: DockerEngine, api: Docker
) -> None:
    task = await start(engine, "cat")
    for name in "user/mine:1", "user/again:1":
        await task.save(name)
        await start(engine, "cat", image=name, own=True)
        await engine.discard(name)
        assert name in await engine.images()
    await task.save("user/again:1")  # which is wanted after all

    await engine.close()
    await engine.start()

    assert await engine.images() == ["user/again:1"]


async def test_name_that_no_image_can_have_is_not_saved(engine: DockerEngine) -> None:
    task = await start(engine, "cat")

    with pytest.raises(SaveFailed, match="MINE"):
        await task.save("user/MINE:1")

    assert await engine.images() == []


# Ports


@pytest.mark.parametrize("missing", [NO_PYTHON, f"{NO_PYTHON}; {NO_BASH}"], ids=["bash", "nc"])
async def test_relay_does_with_what_an_image_has(engine: DockerEngine, missing: str) -> None:
    task = await start(engine, "python", "-c", SERVER)
    output = Output(task.main)
    await output.until("listening")
    script = f"{missing}; ln -s busybox /bin/nc"
    left = await executed(task, "sh", "-c", script, within=DOWNLOAD)
    assert left.code == 0, left

    assert await received(task) == b"hi"


async def test_image_without_any_means_refuses(engine: DockerEngine) -> None:
    task = await start(engine, "python", "-c", SERVER)
    output = Output(task.main)
    await output.until("listening")
    await executed(task, "sh", "-c", f"{NO_PYTHON}; rm /bin/bash")

    with pytest.raises(ConnectionRefusedError):
        await task.connect(80)


async def test_relays_end_with_the_job(engine: DockerEngine) -> None:
    task = await start(engine, "python", "-c", SERVER.replace("c.close()", "keep = c"))
    output = Output(task.main)
    await output.until("listening")

    with await task.connect(80) as connection:
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(connection, 2) == b"hi"
        await task.remove()
        assert await asyncio.wait_for(loop.sock_recv(connection, 1), DEADLINE) == b""


async def received(task: Task) -> bytes:
    with await task.connect(80) as connection:
        return await asyncio.get_running_loop().sock_recv(connection, 100)


# Files


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> int:
    """The user who is not root, by number; root is somebody else here."""
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        monkeypatch.setattr(os, "getegid", lambda: 12346)
    return os.geteuid()


WRITE = "mkdir -p /mine/a/b; echo x >/mine/a/b/file; ln -s /outside /mine/link"


async def test_files_of_root_become_the_users(
    host: str, tmp_path: Path, ordinary_user: int
) -> None:
    mine, kept, outside = tmp_path / "mine", tmp_path / "kept", tmp_path / "outside"
    for path in mine, kept:
        path.mkdir()
    outside.write_text("")
    before = outside.stat().st_uid, kept.stat().st_uid
    engine = docker_engine_at(host)
    await engine.start()
    try:
        mounts = [Mount(mine, "/mine", read_only=False), Mount(kept, "/kept", read_only=True)]
        await ran(engine, "sh", "-c", WRITE, mounts=mounts)
    finally:
        await engine.close()

    owners = {path.lstat().st_uid for path in (mine / "a", mine / "a/b/file", mine / "link")}
    assert owners == {ordinary_user}
    assert (outside.stat().st_uid, kept.stat().st_uid) == before


async def test_files_of_a_killed_servers_jobs_become_the_users(
    host: str, tmp_path: Path, ordinary_user: int
) -> None:
    mine, kept = tmp_path / "mine", tmp_path / "kept"
    for path in mine, kept:
        path.mkdir()
    before = kept.stat().st_uid
    killed = docker_engine_at(host, traces=tmp_path / "containers")
    await killed.start()
    mounts = [Mount(mine, "/mine", read_only=False), Mount(kept, "/kept", read_only=True)]
    task = await start(killed, "sh", "-c", f"{WRITE}; echo written; cat", mounts=mounts)
    await Output(task.main).until("written")

    await clear_all(Traces(tmp_path / "containers"), killed.instance)

    owners = {path.lstat().st_uid for path in (mine / "a", mine / "a/b/file", mine / "link")}
    assert owners == {ordinary_user}
    assert kept.stat().st_uid == before
    await killed.close()


# Engines that are not there


async def test_engine_that_goes_is_said(gate: Gate, tmp_path: Path) -> None:
    engine = docker_engine_at(gate.host, traces=tmp_path / "containers")
    await engine.start()
    gate.shut()
    try:
        for call in engine.images(), engine.discard("user/mine:1"), start(engine, "true"):
            with pytest.raises(EngineUnavailable, match="does not answer any more.*: start it"):
                await call
    finally:
        await engine.close()


async def refusal(host: str) -> str:
    with pytest.raises(EngineUnavailable) as failure:
        await docker_engine_at(host).start()
    return str(failure.value)


async def test_no_engine_says_what_to_do(tmp_path: Path) -> None:
    said = await refusal(f"unix://{tmp_path}/docker.sock")

    assert "start Docker" in said and "--engine sandbox" in said


async def test_engine_of_another_machine_is_refused() -> None:
    assert "folders of this machine" in await refusal("tcp://192.0.2.1:2375")


async def test_something_else_on_the_socket_is_no_engine(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "socket"):
        assert "does not answer like a Docker engine" in await refusal(f"unix://{tmp_path}/socket")


async def test_socket_without_permission_says_what_to_do() -> None:
    path = Path(tempfile.mkdtemp(), "socket")  # where everybody may look
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.parent.chmod(0o755)
        path.chmod(0o020)
        as_root = os.geteuid() == 0
        if as_root:
            os.chown(path, 0, grp.getgrnam("daemon").gr_gid)
            os.seteuid(65534)
        try:
            said = await refusal(f"unix://{path}")
        finally:
            if as_root:
                os.seteuid(0)

    assert "may not use the Docker engine" in said and "usermod -aG" in said
