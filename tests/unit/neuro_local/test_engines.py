"""The contract of `engines.base`, for every engine alike."""

from __future__ import annotations

import asyncio
import itertools
import os
import zipfile
from pathlib import Path
from typing import AsyncIterator, Iterator

import pytest
from enginekit import (
    DEADLINE,
    Output,
    Result,
    docker_engine_at,
    executed,
    ran,
    ready,
    result,
    shared_cache,
    start,
)

from neuro_local.engines.base import Engine, Mount, Size, Task
from neuro_local.engines.sandbox.engine import SandboxEngine
from neuro_local.errors import NotRunning, StartFailed

LISTEN = (
    "import socket, sys; s = socket.create_server(('{host}', 80), family=socket.{family})\n"
    "print('listening', flush=True)\n"
    "while True: c, _ = s.accept(); c.sendall(b'{word}'); c.close()"
)
# Sends back all that it was sent, once no more comes.
ECHO = (
    "import socket; s = socket.create_server(('{host}', 80)); print('listening', flush=True)\n"
    "c, _ = s.accept(); c.sendall(b''.join(iter(lambda: c.recv(65536), b''))); c.close()\n"
    "s.accept()"
)
names = itertools.count()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_cache(tmp_path_factory)


@pytest.fixture(params=["sandbox", "docker"])
async def engine(request: pytest.FixtureRequest, world: Path, cache: Path) -> AsyncIterator[Engine]:
    made: Engine
    if request.param == "sandbox":
        made = SandboxEngine(world / "state", cache=cache, environ=os.environ)
    else:
        made = docker_engine_at(request.getfixturevalue("docker_engine").host)
    await ready(made)
    yield made
    await made.close()


@pytest.fixture
async def idle(engine: Engine) -> Task:
    """A job that does nothing until its standard input ends."""
    return await start(engine, "cat")


@pytest.fixture
def image() -> Iterator[str]:
    yield f"image:test-{next(names)}"


@pytest.mark.parametrize("code", [0, 7, 255])
async def test_exit_code(engine: Engine, code: int) -> None:
    assert (await ran(engine, "sh", "-c", f"exit {code}")).code == code


# The process 1 of a container takes no deadly signals from inside.
@pytest.mark.parametrize("engine", ["sandbox"], indirect=True)
@pytest.mark.parametrize("name, code", [("KILL", 137), ("TERM", 143)])
async def test_exit_code_of_a_signal(engine: Engine, name: str, code: int) -> None:
    assert (await ran(engine, "sh", "-c", f"kill -{name} $$")).code == code


async def test_both_channels_are_kept_apart(engine: Engine) -> None:
    assert await ran(engine, "sh", "-c", "echo a; echo b >&2") == Result(0, "a\n", "b\n")


async def test_large_output_arrives_whole(engine: Engine) -> None:
    done = await ran(engine, "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")

    assert len(done.out) == 3_000_000


async def test_standard_input_reaches_the_process_and_ends(idle: Task) -> None:
    reading = asyncio.create_task(result(idle.main))
    await idle.main.write(b"hello\n" * 50_000)
    await idle.main.write(b"bye\n")
    await idle.main.close_stdin()
    await idle.main.close_stdin()

    assert (await reading).out == "hello\n" * 50_000 + "bye\n"


async def test_input_after_the_end_is_ignored(engine: Engine) -> None:
    task = await start(engine, "true")
    await task.main.wait()

    await task.main.write(b"anyone?" * 100_000)
    await task.main.close_stdin()
    await task.main.resize(Size(1, 1))


async def test_terminal_has_one_channel_and_can_be_resized(engine: Engine) -> None:
    script = "tty >&2; trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    task = await start(engine, "bash", "-c", script, tty=True)
    output = Output(task.main)
    await output.until("ready")
    await task.main.resize(Size(120, 40))
    await output.until("40 120")

    assert "/dev/pts/" in output.text


async def test_terminal_ends_with_its_process(engine: Engine) -> None:
    done = await ran(engine, "sh", "-c", "echo $TERM; exit 3", tty=True)

    assert (done.code, done.out.strip() != "") == (3, True)


async def test_close_stdin_ends_a_terminals_input(engine: Engine) -> None:
    task = await start(engine, "cat", tty=True)
    await task.main.close_stdin()

    assert (await result(task.main)).code == 0


async def test_environment_working_folder_and_home(engine: Engine, tmp_path: Path) -> None:
    done = await ran(
        engine,
        "sh",
        "-c",
        'echo "$WORD" $HOME $PWD',
        env={"WORD": 'it\'s "a"\nword'},
        working_dir="/data",
        mounts=[Mount(tmp_path, "/data", read_only=False)],
    )

    assert done.out == 'it\'s "a"\nword /root /data\n'


async def test_large_environment_arrives(engine: Engine) -> None:
    big = {f"BIG{n}": "x" * 100_000 for n in range(4)}

    assert (await ran(engine, "sh", "-c", "echo ${#BIG3}", env=big)).out == "100000\n"


async def test_nothing_of_the_servers_environment_leaks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURO_LOCAL_TEST_SECRET", "hush")

    assert "hush" not in (await ran(engine, "env")).out


async def test_entrypoint_comes_before_the_command(engine: Engine) -> None:
    assert (await ran(engine, "a b", "c", entrypoint=["echo", "-n"])).out == "a b c"


@pytest.mark.parametrize("command", ["no-such-command", "/no/such/command"])
async def test_unknown_command_does_not_start(engine: Engine, command: str) -> None:
    with pytest.raises(StartFailed, match=command) as failure:
        await start(engine, command)

    assert failure.value.reason == "ContainerCannotRun"


async def test_file_that_is_no_program_does_not_start(engine: Engine) -> None:
    with pytest.raises(StartFailed, match="/etc/passwd"):
        await start(engine, "/etc/passwd")


# Docker makes it, and so does the platform.
@pytest.mark.parametrize("engine", ["sandbox"], indirect=True)
async def test_missing_working_folder_does_not_start(engine: Engine) -> None:
    with pytest.raises(StartFailed, match="/no/folder"):
        await start(engine, "true", working_dir="/no/folder")


async def test_read_only_mount_refuses_writes(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("kept")
    mount = Mount(tmp_path, "/data", read_only=True)

    done = await ran(
        engine, "sh", "-c", "cat /data/old; echo x > /data/old; rm /data/old", mounts=[mount]
    )

    assert (done.out, done.err.count("Read-only")) == ("kept", 2)
    assert (tmp_path / "old").read_text() == "kept"


async def test_writable_mount_writes_through_also_nested(engine: Engine, tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    mounts = [Mount(inner, "/project/data/inner", False), Mount(outer, "/project/data", False)]

    await ran(engine, "sh", "-c", "cd /project/data; echo a > f; echo b > inner/f", mounts=mounts)

    assert ((outer / "f").read_text(), (inner / "f").read_text()) == ("a\n", "b\n")


async def test_exec_returns_its_own_code_and_output(idle: Task) -> None:
    done = await executed(idle, "sh", "-c", "echo hi; exit 9")

    assert done == Result(9, "hi\n", "")


async def test_exec_shares_environment_folder_and_processes(engine: Engine) -> None:
    task = await start(engine, "sleep", "1000", env={"A": "b"}, working_dir="/tmp")

    done = await executed(task, "sh", "-c", "echo $A $PWD; grep -l sleep /proc/*/comm")

    assert done.out.startswith("b /tmp\n/proc/")


async def test_exec_on_a_terminal_starts_with_its_size(idle: Task) -> None:
    # A Docker engine before version 23 hands it in a moment later.
    script = 'until [ "$(stty size)" != "0 0" ]; do sleep 0.01; done; stty size'

    done = await executed(idle, "sh", "-c", script, tty=True, size=Size(100, 30))

    assert done.out.split() == ["30", "100"]


@pytest.mark.parametrize("tty", [False, True])
async def test_exec_of_an_unknown_command_says_so(idle: Task, tty: bool) -> None:
    done = await executed(idle, "no-such-command", tty=tty)

    # 126 is what Docker before version 23 says.
    assert done.code in (126, 127) and "no-such-command" in done.out + done.err


async def test_exec_of_no_program_says_so(idle: Task) -> None:
    assert (await executed(idle, "/etc/passwd")).code == 126


async def test_exec_is_killed_with_the_job(idle: Task) -> None:
    process = await idle.exec(["sleep", "1000"])
    await idle.main.close_stdin()

    assert await idle.main.wait() == 0
    assert await process.wait() == 137


async def test_ended_job_takes_no_more(engine: Engine, image: str) -> None:
    task = await start(engine, "true")
    await task.main.wait()

    with pytest.raises(NotRunning):
        await task.exec(["true"])
    with pytest.raises(NotRunning):
        await task.save(image)
    with pytest.raises(NotRunning):
        await task.connect(80)
    await task.stop(1)


async def test_output_ends_although_a_grandchild_holds_it(engine: Engine) -> None:
    done = await ran(engine, "sh", "-c", "sleep 1000 & echo started")

    assert done == Result(0, "started\n", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_connect_to_a_port(engine: Engine, host: str) -> None:
    await assert_connects(engine, host, "AF_INET")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_connection_carries_both_ways_and_ends(engine: Engine, host: str) -> None:
    task = await start(engine, "python", "-c", ECHO.format(host=host))
    output = Output(task.main)
    await output.until("listening")
    sent = os.urandom(3_000_000)

    with await task.connect(80) as connection:
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(sent)
        writer.write_eof()
        received = await asyncio.wait_for(reader.read(), DEADLINE)

    assert received == sent


# Containers have no IPv6, unless the engine was told to give it to them.
@pytest.mark.parametrize("engine", ["sandbox"], indirect=True)
async def test_connect_to_a_port_of_the_newer_protocol(engine: Engine) -> None:
    await assert_connects(engine, "::1", "AF_INET6")


async def test_connect_is_refused_where_nothing_listens(idle: Task) -> None:
    with pytest.raises(ConnectionRefusedError):
        await idle.connect(80)


async def test_two_jobs_of_one_image_are_apart(engine: Engine) -> None:
    tasks = []
    for word in ("one", "two"):
        script = LISTEN.format(host="0.0.0.0", family="AF_INET", word=word)
        tasks.append(await start(engine, "python", "-c", f"open('/{word}', 'w')\n" + script))
        await Output(tasks[-1].main).until("listening")

    assert [await answer_of(task) for task in tasks] == [b"one", b"two"]
    assert (await executed(tasks[0], "ls", "/one", "/two")).out == "/one\n"


async def test_usage_is_told_until_the_job_has_ended(engine: Engine) -> None:
    script = "held = bytearray(64 << 20); print('ready', flush=True)\nwhile True: pass"
    task = await start(engine, "python", "-c", script)
    output = Output(task.main)
    await output.until("ready")

    told = []
    async for usage in task.usage():
        told.append(usage)
        if len(told) == 3:
            await task.stop(0)

    assert len(told) == 3
    assert told[-1].memory > 64 << 20
    assert 0.05 < told[-1].cpu < 1.5  # of this machine's processors, which others use as well


async def test_usage_of_a_dead_job_is_an_error(engine: Engine) -> None:
    task = await start(engine, "true")
    await task.main.wait()

    with pytest.raises(NotRunning):
        await task.usage().__anext__()


async def test_stop_lets_the_job_finish(engine: Engine, tmp_path: Path) -> None:
    script = "trap 'echo bye > /data/marker; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    task = await start(
        engine, "bash", "-c", script, mounts=[Mount(tmp_path, "/data", read_only=False)]
    )
    output = Output(task.main)  # kept: a job whose output nobody holds dies of SIGPIPE
    await output.until("ready")

    await task.stop(20)

    assert await task.main.wait() == 5
    assert (tmp_path / "marker").read_text() == "bye\n"


async def test_stop_kills_what_will_not_go(engine: Engine, tmp_path: Path) -> None:
    script = "trap '' TERM; (while :; do date > /data/alive; echo ready; done) & wait"
    task = await start(
        engine, "bash", "-c", script, mounts=[Mount(tmp_path, "/data", read_only=False)]
    )
    output = Output(task.main)  # kept: a job whose output nobody holds dies of SIGPIPE
    await output.until("ready")

    await task.stop(0.1)
    await task.stop(0.1)

    assert await task.main.wait() == 137
    (tmp_path / "alive").unlink()
    await ran(engine, "true")  # time enough for one more sign of life
    assert not (tmp_path / "alive").exists()


async def test_saved_image_has_what_the_job_changed(engine: Engine, image: str) -> None:
    task = await start(engine, "cat")
    script = """
        echo new > /new; echo x > /root/mine; mkdir -p /project/a; rm -r /opt/venv/bin/pip3
        rm -r /opt/venv/include; mkdir /opt/venv/include; touch /opt/venv/include/only
    """
    assert (await executed(task, "sh", "-c", script)).code == 0
    await task.save(image)
    assert (await executed(task, "sh", "-c", "cat /new")).out == "new\n"
    await task.remove()

    look = "cat /new /root/mine; ls -d /project/a; ls /opt/venv/bin/pip3; ls /opt/venv/include"
    done = await ran(engine, "sh", "-c", look, image=image)

    assert done.out == "new\nx\n/project/a\nonly\n"
    assert "pip3" in done.err
    assert image in await engine.images()


async def test_what_a_saved_image_lost_stays_lost_in_its_children(
    engine: Engine, image: str
) -> None:
    base = "plain"
    for script in ("echo 1 > /a; echo 1 > /b", "rm /a; mkdir /d; echo 1 > /d/old", "rm -r /d"):
        task = await start(engine, "cat", image=base)
        assert (await executed(task, "sh", "-c", script)).code == 0
        await task.save(image)
        await task.remove()
        base = image

    done = await ran(engine, "sh", "-c", "mkdir /d; ls /a /b /d", image=image)

    assert done.out == "/b\n\n/d:\n"


async def test_installed_package_lives_on_in_the_image(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path)
    task = await start(engine, "cat", mounts=[Mount(tmp_path, "/source", read_only=True)])
    installed = await executed(task, "pip", "install", "--no-index", f"/source/{wheel}")
    assert installed.code == 0, installed
    await task.save(image)
    await task.remove()

    assert (await ran(engine, "greet", image=image)).out == "hello from a package\n"


async def test_images_are_sorted_and_outlive_their_jobs(engine: Engine) -> None:
    task = await start(engine, "cat")
    await task.save("zzz:1")
    await task.save("aaa:1")

    await task.remove()
    found = list(await engine.images())

    assert found == sorted(found) and {"aaa:1", "zzz:1"} <= set(found)


async def test_remove_ends_the_job_and_can_be_repeated(idle: Task) -> None:
    reading = asyncio.create_task(result(idle.main))

    await idle.remove()
    await idle.remove()

    assert (await reading).code == 137


async def assert_connects(engine: Engine, host: str, family: str) -> None:
    task = await start(engine, "python", "-c", LISTEN.format(host=host, family=family, word="hi"))
    output = Output(task.main)  # kept: a job whose output nobody holds dies of SIGPIPE
    await output.until("listening")

    assert await answer_of(task) == b"hi"


async def answer_of(task: Task) -> bytes:
    with await task.connect(80) as connection:
        return await asyncio.get_running_loop().sock_recv(connection, 100)


def make_wheel(folder: Path) -> str:
    """A package with a console script, installable without a network."""
    name, info = "greeting-1-py3-none-any.whl", "greeting-1.dist-info"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("greeting.py", "def main(): print('hello from a package')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ngreet = greeting:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
