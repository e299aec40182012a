"""Processes beside a job's main one, in the protocols of both clients, frame by frame."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List
from urllib.parse import quote

import pytest
from e2e.platform import Job, processes_with

from .conftest import has_error
from .wire import BINARY, PING, PONG, TEXT, Frame, RawSocket, Server

MIB = 2**20
BOTH = "echo out; sleep 0.2; echo err >&2; sleep 0.2; exit 7"
READING = 'read x; echo "got $x"'


def sh(script: str) -> str:
    return f"sh -c {shlex.quote(script)}"


def newer(job: Job, command: str, *, tty: int = 0, stdin: int = 1, stdout: int = 1) -> str:
    flags = f"tty={tty}&stdin={stdin}&stdout={stdout}&stderr={1 - tty}"
    return f"/monitoring/jobs/{job.id}/exec?cmd={quote(command)}&{flags}"


def exit_of(frames: List[Frame]) -> int:
    """Return the code of the last frame, which every exec of the newer client ends with."""
    assert frames[-1].opcode == BINARY and frames[-1].payload[:1] == b"\3", frames
    return int(json.loads(frames[-1].payload[1:])["exit_code"])


# The newer client


@pytest.mark.real_server
async def test_each_stream_has_its_channel_and_the_code_ends_it(
    server: Server, sleeper: Job
) -> None:
    async with server.websocket(newer(sleeper, sh(BOTH))) as socket:
        frames = await socket.until_closed()

    assert frames == [
        Frame(BINARY, b"\1out\n"),
        Frame(BINARY, b"\2err\n"),
        Frame(BINARY, b'\3{"exit_code": 7}'),
    ]


@pytest.mark.real_server
@pytest.mark.parametrize("code", [0, 1, 127, 255])
async def test_code_of_the_process_is_passed_on(server: Server, sleeper: Job, code: int) -> None:
    async with server.websocket(newer(sleeper, sh(f"exit {code}"))) as socket:
        frames = await socket.until_closed()

    assert len(frames) == 1 and exit_of(frames) == code


async def test_death_by_a_signal_is_a_code_as_in_a_shell(server: Server, sleeper: Job) -> None:
    async with server.websocket(newer(sleeper, sh("kill -9 $$"))) as socket:
        assert exit_of(await socket.until_closed()) == 128 + 9


async def test_command_that_does_not_exist_says_so(server: Server, sleeper: Job) -> None:
    async with server.websocket(newer(sleeper, "no-such-command")) as socket:
        frames = await socket.until_closed()

    assert exit_of(frames) == 127
    assert b"no-such-command" in frames[0].payload


@pytest.mark.real_server
async def test_input_comes_on_channel_zero(server: Server, sleeper: Job) -> None:
    async with server.websocket(newer(sleeper, sh(READING))) as socket:
        for payload in (b"\0", b"\0a ", b"\0\xc3", b"\0\xa9\n"):
            await socket.send(payload)
        frames = await socket.until_closed()

    assert frames[0].payload == "\1got a é\n".encode()
    assert exit_of(frames) == 0


async def test_process_that_is_given_no_input_reads_its_end(server: Server, sleeper: Job) -> None:
    async with server.websocket(newer(sleeper, "cat", stdin=0)) as socket:
        assert exit_of(await socket.until_closed()) == 0


async def test_output_that_nobody_asked_for_is_not_sent(server: Server, sleeper: Job) -> None:
    async with server.websocket(newer(sleeper, sh(BOTH), stdout=0)) as socket:
        frames = await socket.until_closed()

    assert [frame.payload for frame in frames[:-1]] == [b"\2err\n"]
    assert exit_of(frames) == 7


async def test_megabytes_go_through_both_ways_unchanged(server: Server, sleeper: Job) -> None:
    data = os.urandom(2 * MIB)
    back = b""
    async with server.websocket(newer(sleeper, f"head -c {len(data)}")) as socket:
        for start in range(0, len(data), 2**18):
            await socket.send(b"\0" + data[start : start + 2**18])
        frames = await socket.until_closed()

    back = b"".join(frame.payload[1:] for frame in frames[:-1])
    assert {frame.payload[:1] for frame in frames[:-1]} == {b"\1"}
    assert back == data


@pytest.mark.real_server
async def test_terminal_has_its_size_and_one_channel(server: Server, sleeper: Job) -> None:
    script = "test -t 0 && test -t 2 && read x; stty size; echo err >&2"
    async with server.websocket(newer(sleeper, sh(script), tty=1)) as socket:
        await socket.send(b'\4{"height": 33, "width": 77}')
        await socket.send(b"\0\n")
        frames = await socket.until_closed()

    assert {frame.payload[:1] for frame in frames[:-1]} == {b"\1"}
    shown = b"".join(frame.payload[1:] for frame in frames[:-1])
    assert b"33 77\r\n" in shown and b"err\r\n" in shown
    assert exit_of(frames) == 0


async def test_frames_that_mean_nothing_are_ignored(server: Server, sleeper: Job) -> None:
    async with server.websocket(newer(sleeper, sh(READING), tty=1)) as socket:
        await socket.send(b"\0text\n", TEXT)
        for payload in (b"", b"\1", b"\xff", b"\4", b"\4{}", b"\4[1, 2]", b"\4" + b"[" * 10_000):
            await socket.send(payload)
        for size in (b'"width": 1e999', b'"width": 0', b'"width": 70000', b'"width": "9"'):
            await socket.send(b'\4{"height": 24, ' + size + b"}")
        await socket.send(b"\0line\n")
        frames = await socket.until_closed()

    assert b"got line" in b"".join(frame.payload for frame in frames)
    assert exit_of(frames) == 0


async def test_ping_is_answered_while_the_process_reads_nothing(
    server: Server, sleeper: Job
) -> None:
    async with server.websocket(newer(sleeper, "sleep 600")) as socket:
        await socket.send(b"\0" + bytes(MIB // 2))  # more than a pipe holds
        await socket.send(b"are you there", PING)
        assert await socket.frame() == Frame(PONG, b"are you there")


async def test_terminal_with_two_outputs_is_refused(server: Server, sleeper: Job) -> None:
    target = f"/monitoring/jobs/{sleeper.id}/exec?cmd=ls&tty=1&stdin=1&stdout=1&stderr=1"

    assert has_error(await server.refusal(target), 400, "a terminal has one output")


@pytest.mark.real_server
async def test_exec_in_an_ended_job_is_404(server: Server, finished: Job) -> None:
    assert has_error(await server.refusal(newer(finished, "ls")), 404, "is not running")


@pytest.mark.parametrize("command", ["", "  ", "--", "a 'b", "a\0b"])
async def test_command_that_is_none_is_refused(server: Server, sleeper: Job, command: str) -> None:
    assert has_error(await server.refusal(newer(sleeper, command)), 400, "command")


@pytest.mark.real_server
async def test_words_of_a_command_go_without_a_shell(server: Server, sleeper: Job) -> None:
    command = "-- printf '%s|' 'a b' $HOME '&&' \"c\\\"d\" *"

    async with server.websocket(newer(sleeper, command)) as socket:
        frames = await socket.until_closed()

    assert frames[0].payload == b"""\1a b|$HOME|&&|c"d|*|"""


async def test_request_that_is_no_websocket_starts_nothing(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job("sleep 600")

    refused = await server.ask("GET", newer(job, "touch /tmp/started"))
    created = await create(server, job, "touch /tmp/started")
    older_refused = await server.ask("GET", f"{older(job)}/{created}/exec_start")

    assert has_error(refused, 400, "only takes WebSockets")
    assert has_error(older_refused, 400, "only takes WebSockets")
    async with server.websocket(newer(job, "ls /tmp/started")) as socket:
        assert exit_of(await socket.until_closed()) == 2


@pytest.mark.parametrize("command", ["cat - -- {mark}", "yes {mark}", "tail -f - {mark}"])
@pytest.mark.parametrize("tty", [0, 1])
@pytest.mark.parametrize("generation", ["newer", "older"])
async def test_process_whose_client_has_left_loses_its_streams(
    server: Server, sleeper: Job, tmp_path: Path, command: str, tty: int, generation: str
) -> None:
    mark = f"mark-of-{tmp_path.name}"
    command = command.format(mark=mark)
    target = newer(sleeper, command, tty=tty)
    if generation == "older":
        exec_id = await create(server, sleeper, command, tty=bool(tty))
        target = f"{older(sleeper)}/{exec_id}/exec_start"

    async with server.websocket(target):
        while not processes_with(mark):
            await asyncio.sleep(0.01)

    while processes_with(mark):
        await asyncio.sleep(0.01)
    if generation == "older":
        assert (await inspect(server, sleeper, exec_id))["running"] is True  # its first look
        while (await inspect(server, sleeper, exec_id))["running"]:
            await asyncio.sleep(0.01)


# The older client: create, start, inspect, and inspect again


def older(job: Job) -> str:
    return f"/monitoring/jobs/{job.id}"


async def create(server: Server, job: Job, command: str, **more: Any) -> str:
    streams = {"stdin": True, "stdout": True, "stderr": True, "tty": False}
    body = json.dumps({"command": command, **streams, **more}).encode()
    answer = await server.ask("POST", f"{older(job)}/exec_create", body)
    created = answer.json()
    assert answer.status == 200 and created["job_id"] == job.id, answer
    return str(created["exec_id"])


async def inspect(server: Server, job: Job, exec_id: str) -> Dict[str, Any]:
    answer = await server.ask("GET", f"{older(job)}/{exec_id}/exec_inspect")
    assert answer.status == 200
    found: Dict[str, Any] = answer.json()
    return found


@asynccontextmanager
async def started(server: Server, job: Job, exec_id: str) -> AsyncIterator[RawSocket]:
    async with server.websocket(f"{older(job)}/{exec_id}/exec_start") as socket:
        yield socket


@pytest.mark.real_server
async def test_older_exec_has_two_channels_and_tells_its_code_when_asked(
    server: Server, sleeper: Job
) -> None:
    exec_id = await create(server, sleeper, sh(BOTH))

    async with started(server, sleeper, exec_id) as socket:
        first = await inspect(server, sleeper, exec_id)
        frames = await socket.until_closed()
    last = await inspect(server, sleeper, exec_id)

    assert frames == [Frame(BINARY, b"\1out\n"), Frame(BINARY, b"\2err\n")]
    whole = {"id", "running", "exit_code", "job_id", "tty", "entrypoint", "command"}
    assert set(first) == set(last) == whole
    assert first["running"] is True
    assert (last["running"], last["exit_code"]) == (False, 7)
    assert (last["id"], last["job_id"], last["tty"]) == (exec_id, sleeper.id, False)


@pytest.mark.real_server
async def test_older_exec_counts_as_running_until_it_was_inspected(
    server: Server, sleeper: Job
) -> None:
    exec_id = await create(server, sleeper, "echo quick")

    async with started(server, sleeper, exec_id) as socket:
        assert await socket.frame() == Frame(BINARY, b"\1quick\n")
        # The client shows nothing if its first look finds the exec ended.
        assert (await inspect(server, sleeper, exec_id))["running"] is True
        assert await socket.until_closed() == []

    assert (await inspect(server, sleeper, exec_id))["running"] is False


@pytest.mark.real_server
async def test_older_exec_takes_bare_input(server: Server, sleeper: Job) -> None:
    exec_id = await create(server, sleeper, sh(READING))

    async with started(server, sleeper, exec_id) as socket:
        await inspect(server, sleeper, exec_id)
        for payload in (b"", b"\0\3li", b"ne\n"):
            await socket.send(payload)
        frames = await socket.until_closed()

    # A shell's read drops the NUL: what counts is that no byte was taken for a channel.
    assert [frame.payload for frame in frames] == [b"\1got \3line\n"]


@pytest.mark.real_server
async def test_older_exec_on_a_terminal_has_its_size(server: Server, sleeper: Job) -> None:
    exec_id = await create(server, sleeper, sh("read x; stty size"), tty=True)

    async with started(server, sleeper, exec_id) as socket:
        resized = await server.ask("POST", f"{older(sleeper)}/{exec_id}/exec_resize?w=77&h=33")
        await inspect(server, sleeper, exec_id)
        await socket.send(b"\n")
        frames = await socket.until_closed()

    assert 200 <= resized.status < 300
    assert {frame.payload[:1] for frame in frames} == {b"\1"}
    assert b"33 77\r\n" in b"".join(frame.payload[1:] for frame in frames)


async def test_older_exec_starts_once(server: Server, sleeper: Job) -> None:
    exec_id = await create(server, sleeper, "echo quick")
    async with started(server, sleeper, exec_id) as socket:
        await inspect(server, sleeper, exec_id)
        await socket.until_closed()

    answer = await server.refusal(f"{older(sleeper)}/{exec_id}/exec_start")

    assert has_error(answer, 400, "was started before")


@pytest.mark.real_server
async def test_older_exec_in_an_ended_or_unknown_job_is_400(server: Server, finished: Job) -> None:
    body = b'{"command": "ls", "stdin": true, "stdout": true, "stderr": true, "tty": false}'

    ended = await server.ask("POST", f"{older(finished)}/exec_create", body)
    unknown = await server.ask("POST", "/monitoring/jobs/unknown/exec_create", body)

    assert has_error(ended, 400, "is not running")
    assert has_error(unknown, 400, "no such job")


async def test_older_execs_that_ended_are_forgotten_after_a_hundred(
    server: Server, sleeper: Job
) -> None:
    async def run(exec_id: str) -> None:
        async with started(server, sleeper, exec_id) as socket:
            await inspect(server, sleeper, exec_id)
            await socket.until_closed()

    ids = [await create(server, sleeper, "true") for _ in range(102)]
    for first in range(0, len(ids), 20):
        await asyncio.gather(*map(run, ids[first : first + 20]))
    await create(server, sleeper, "true")

    forgotten = await server.ask("GET", f"{older(sleeper)}/{ids[0]}/exec_inspect")
    assert has_error(forgotten, 400, "no such exec")
    assert (await inspect(server, sleeper, ids[-1]))["running"] is False


async def test_older_exec_of_a_job_that_ended_meanwhile_is_400(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job("sleep 600")
    exec_id = await create(server, job, "ls")
    await server.ask("DELETE", f"/api/v1/jobs/{job.id}")

    answer = await server.refusal(f"{older(job)}/{exec_id}/exec_start")

    assert has_error(answer, 400, "is not running")


@pytest.mark.parametrize("call", ["GET exec_inspect", "POST exec_resize?w=1&h=1"])
async def test_unknown_exec_is_400(server: Server, sleeper: Job, call: str) -> None:
    method, path = call.split()

    assert has_error(
        await server.ask(method, f"{older(sleeper)}/unknown/{path}"), 400, "no such exec unknown"
    )
    assert has_error(
        await server.refusal(f"{older(sleeper)}/unknown/exec_start"), 400, "no such exec unknown"
    )


@pytest.mark.parametrize("query", ["", "w=1", "w=0&h=1", "w=-1&h=1", "w=65536&h=1", "w=x&h=y"])
async def test_size_that_no_terminal_has_is_refused(
    server: Server, sleeper: Job, query: str
) -> None:
    exec_id = await create(server, sleeper, "sleep 600", tty=True)

    async with started(server, sleeper, exec_id):
        answer = await server.ask("POST", f"{older(sleeper)}/{exec_id}/exec_resize?{query}")

    assert has_error(answer, 400, "whole numbers from 1 to 65535")


@pytest.mark.parametrize("command", [None, 1, "", "a 'b", "a\0b", ["ls"]])
async def test_older_command_that_is_none_is_refused(
    server: Server, sleeper: Job, command: Any
) -> None:
    body = json.dumps({"command": command}).encode()
    answer = await server.ask("POST", f"{older(sleeper)}/exec_create", body)
    if answer.status == 200:  # the words are looked at when it starts
        answer = await server.refusal(f"{older(sleeper)}/{answer.json()['exec_id']}/exec_start")

    assert has_error(answer, 400, "command")
