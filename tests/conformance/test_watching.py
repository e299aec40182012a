"""A job's output as the two clients watch it: logs, and attaching, frame by frame."""

from __future__ import annotations

import asyncio
import re
from typing import Callable, Dict, List

import pytest
from e2e.platform import Job, Platform
from processes import open_files

from .conftest import has_error, unchunked
from .wire import BINARY, CLOSE, PING, PONG, TEXT, Frame, Server

# Answers to a line of input on both streams, far enough apart to keep their order.
ANSWERING = """sh -c 'read x; echo "out $x"; sleep 0.2; echo "err $x" >&2; sleep 0.2; exit 5'"""
NEW_ATTACH = "attach?tty=0&stdin=1&stdout=1&stderr=1"
OLD_ATTACH = "attach?stdin=1&stdout=1&stderr=1&logs=1"
PROTOCOL = "v2.channels.neu.ro"


def at(job: Job, path: str) -> str:
    return f"/monitoring/jobs/{job.id}/{path}"


async def status(server: Server, job: Job) -> str:
    return str((await server.ask("GET", f"/api/v1/jobs/{job.id}")).json()["status"])


async def shown(platform: Platform, job: Job) -> None:
    """Wait until somebody reads the job's output: attach shows what comes from then on."""
    while open_logs(platform, job) < 2:  # the first is the writer's
        await asyncio.sleep(0.01)


def open_logs(platform: Platform, job: Job) -> int:
    return sum(path.endswith(f"{job.id}.log") for path in open_files(platform.pid))


# Logs


@pytest.mark.real_server
async def test_newer_log_is_binary_frames_and_then_the_end(server: Server, finished: Job) -> None:
    async with server.websocket(at(finished, "log_ws")) as socket:
        frames = await socket.until_closed()

    assert {frame.opcode for frame in frames} == {BINARY}
    assert b"".join(frame.payload for frame in frames) == b"said\ncomplained\n"


@pytest.mark.real_server
async def test_older_log_is_chunked_text_and_then_the_end(server: Server, finished: Job) -> None:
    answer = await server.ask("GET", at(finished, "log"))

    assert (answer.status, answer.kind) == (200, "text/plain")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-encoding" not in answer.headers
    assert unchunked(answer.body) == b"said\ncomplained\n"


@pytest.mark.real_server
async def test_log_follows_until_the_job_has_ended(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job("sh -c 'echo one; sleep 0.5; echo two'")

    async with server.websocket(at(job, "log_ws")) as socket:
        newer, older = await asyncio.gather(socket.payload(), server.ask("GET", at(job, "log")))

    assert newer == unchunked(older.body) == b"one\ntwo\n"
    assert await status(server, job) == "succeeded"


@pytest.mark.real_server
async def test_log_has_bytes_that_are_no_text(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job(r"sh -c 'sleep 0.3; printf \\000\\377\\001'")

    async with server.websocket(at(job, "log_ws")) as socket:
        assert await socket.payload() == b"\0\xff\1"


async def test_log_with_timestamps_has_one_before_each_line(server: Server, finished: Job) -> None:
    target = at(finished, "log_ws?timestamps=true&separator=---&debug=true")

    async with server.websocket(target) as socket:
        said, complained = (await socket.payload()).decode().splitlines()

    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    assert re.fullmatch(f"{stamp} said", said) and re.fullmatch(f"{stamp} complained", complained)


@pytest.mark.parametrize(
    "since, expected",
    [("2020-01-01T00:00:00%2B00:00", b"said\ncomplained\n"), ("2120-01-01T00:00:00Z", b"")],
)
async def test_log_since_a_moment(
    server: Server, finished: Job, since: str, expected: bytes
) -> None:
    async with server.websocket(at(finished, f"log_ws?since={since}")) as socket:
        assert await socket.payload() == expected


@pytest.mark.parametrize("since", ["yesterday", "0001-01-01T00:00:00-14:00x", "9" * 30])
async def test_log_since_no_moment_is_refused(server: Server, finished: Job, since: str) -> None:
    answer = await server.refusal(at(finished, f"log_ws?since={since}"))

    assert has_error(answer, 400, "is not an ISO 8601 date")


async def test_older_log_since_no_moment_is_refused_before_it_begins(
    server: Server, finished: Job
) -> None:
    async with server.connected() as wire:
        fields = {"Connection": "close"}
        await wire.send(server.head("GET", at(finished, "log?since=yesterday"), fields))
        raw = await wire.rest()

    assert raw.startswith(b"HTTP/1.1 400 ")
    assert raw.count(b"HTTP/1.1") == 1
    assert b"'yesterday' is not an ISO 8601 date" in raw


async def test_older_log_ends_with_the_connection_where_there_are_no_chunks(
    server: Server, finished: Job
) -> None:
    request = server.head("GET", at(finished, "log")).replace(b"HTTP/1.1", b"HTTP/1.0")

    answer = await server.say(request)

    assert (answer.status, answer.body) == (200, b"said\ncomplained\n")


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_log_since_the_ends_of_the_calendar(
    server: Server, finished: Job, since: str
) -> None:
    async with server.websocket(at(finished, f"log_ws?since={since}")) as socket:
        assert await socket.payload() in (b"", b"said\ncomplained\n")


@pytest.mark.real_server
@pytest.mark.parametrize(
    "path",
    ["log_ws", NEW_ATTACH, OLD_ATTACH, "exec?cmd=ls&tty=0&stdin=1", "port_forward/80"],
)
async def test_unknown_job_is_400_at_every_socket(server: Server, path: str) -> None:
    answer = await server.refusal(f"/monitoring/jobs/unknown/{path}")

    assert has_error(answer, 400, "no such job unknown")
    assert answer.headers["x-error"] == "no such job unknown"


@pytest.mark.real_server
async def test_unknown_job_is_400_in_the_older_log_too(server: Server) -> None:
    assert has_error(await server.ask("GET", "/monitoring/jobs/unknown/log"), 400, "no such job")


@pytest.mark.parametrize("path", ["log_ws", "log"])
async def test_follower_that_leaves_is_forgotten(
    server: Server, platform: Platform, start_job: Callable[..., Job], path: str
) -> None:
    job = start_job("sh -c 'echo mark; sleep 600'")
    before = open_logs(platform, job)

    for _ in range(5):
        if path == "log":
            async with server.connected() as wire:
                await wire.send(server.head("GET", at(job, path)))
                await wire.reader.readuntil(b"mark")
        else:
            async with server.websocket(at(job, path)) as socket:
                await socket.until(b"mark")

    while open_logs(platform, job) > before:
        await asyncio.sleep(0.05)


# Attaching, the newer client


@pytest.mark.real_server
async def test_newer_attach_carries_each_stream_on_its_channel(
    server: Server, platform: Platform, start_job: Callable[..., Job]
) -> None:
    job = start_job(ANSWERING)

    async with server.websocket(at(job, NEW_ATTACH), Sec_WebSocket_Protocol=PROTOCOL) as socket:
        await shown(platform, job)
        await socket.send(b"\0")
        await socket.send(b"\0li")
        await socket.send(b"\0ne\n")
        frames = await socket.until_closed()

        # Who was attached takes the job's end from its status, so that must be told by now.
        assert await status(server, job) == "failed"
    assert frames == [Frame(BINARY, b"\1out line\n"), Frame(BINARY, b"\2err line\n")]


@pytest.mark.parametrize(
    "streams, expected",
    [("stdout=1&stderr=0", [b"\1out line\n"]), ("stdout=0&stderr=1", [b"\2err line\n"])],
)
async def test_newer_attach_has_the_streams_it_asked_for(
    server: Server,
    platform: Platform,
    start_job: Callable[..., Job],
    streams: str,
    expected: List[bytes],
) -> None:
    job = start_job(ANSWERING)

    async with server.websocket(at(job, f"attach?tty=0&stdin=1&{streams}")) as socket:
        await shown(platform, job)
        await socket.send(b"\0line\n")
        frames = await socket.until_closed()

    assert [frame.payload for frame in frames] == expected


@pytest.mark.real_server
async def test_newer_attach_to_a_terminal_has_its_size_and_one_channel(
    server: Server, platform: Platform, start_job: Callable[..., Job]
) -> None:
    job = start_job("sh -c 'read x; stty size; echo err >&2'", tty=True)

    async with server.websocket(at(job, "attach?tty=1&stdin=1&stdout=1&stderr=0")) as socket:
        await shown(platform, job)
        await socket.send(b'\4{"height": 33, "width": 77}')
        await socket.send(b"\0line\n")
        frames = await socket.until_closed()

    assert {frame.payload[:1] for frame in frames} == {b"\1"}
    said = b"".join(frame.payload[1:] for frame in frames)
    assert b"33 77\r\n" in said and b"err\r\n" in said


@pytest.mark.real_server
async def test_newer_attach_to_an_ended_job_is_404(server: Server, finished: Job) -> None:
    for path in (NEW_ATTACH, "attach?tty=0&stdin=1"):
        answer = await server.refusal(at(finished, path))

        assert has_error(answer, 404, "is not running")
        assert answer.headers["x-error"]


@pytest.mark.real_server
async def test_terminal_with_two_outputs_is_refused(server: Server, sleeper: Job) -> None:
    answer = await server.refusal(at(sleeper, "attach?tty=1&stdin=1&stdout=1&stderr=1"))

    assert has_error(answer, 400, "a terminal has one output")


@pytest.mark.real_server
async def test_protocol_that_was_asked_for_is_spoken(server: Server, sleeper: Job) -> None:
    async with server.websocket(at(sleeper, NEW_ATTACH), Sec_WebSocket_Protocol=PROTOCOL):
        pass
    async with server.websocket(at(sleeper, NEW_ATTACH), Sec_WebSocket_Protocol="unknown"):
        pass


# Attaching, the older client


@pytest.mark.real_server
async def test_older_attach_takes_bare_input_and_has_no_third_channel(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job(ANSWERING)

    async with server.websocket(at(job, OLD_ATTACH)) as socket:
        await socket.send(b"")
        await socket.send(b"li")
        await socket.send(b"ne\n")
        frames = await socket.until_closed()

        assert await status(server, job) == "failed"
    assert frames == [Frame(BINARY, b"\1out line\n"), Frame(BINARY, b"\2err line\n")]


@pytest.mark.real_server
async def test_older_attach_replays_what_was_before(
    server: Server, platform: Platform, start_job: Callable[..., Job]
) -> None:
    job = start_job("sh -c 'echo before; read x'")
    while b"before" not in (platform.state / "logs" / f"{job.id}.log").read_bytes():
        await asyncio.sleep(0.01)

    async with server.websocket(at(job, OLD_ATTACH)) as socket:
        assert await socket.until(b"before\n") == b"\1before\n"


async def test_attach_goes_on_when_somebody_elses_log_ends(
    server: Server, start_job: Callable[..., Job]
) -> None:
    """A log and an attach that open together count as one client's, of which one shows all."""
    job = start_job("sh -c 'while read x; do echo $x; done'")

    async with server.websocket(at(job, "log_ws")) as log:
        async with server.websocket(at(job, OLD_ATTACH)) as socket:
            await socket.send(b"first\n")
            await log.until(b"first\n")
            await log.hang_up()
            # Nobody tells when attach has taken over; what comes before that is lost.
            frame = asyncio.create_task(socket.frame())
            while not frame.done():
                await socket.send(b"second\n")
                await asyncio.sleep(0.05)
            assert set((await frame).payload.split(b"\n")) == {b"\1second", b""}


@pytest.mark.real_server
async def test_older_attach_to_an_ended_job_is_accepted_and_ends(
    server: Server, finished: Job
) -> None:
    async with server.websocket(at(finished, OLD_ATTACH)) as socket:
        assert await socket.until_closed() == []


@pytest.mark.real_server
async def test_older_attach_to_a_terminal_is_left_by_its_keys(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job("sh -c 'read x; read y'", tty=True)

    async with server.websocket(at(job, OLD_ATTACH)) as socket:
        resized = await server.ask("POST", at(job, "resize?w=77&h=33"))
        await socket.send(b"\x10")
        await socket.send(b"\x11")
        assert b"\3" not in [frame.payload[:1] for frame in await socket.until_closed()]

    assert resized.status == 200
    assert await status(server, job) == "running"


@pytest.mark.real_server
async def test_older_resize_of_an_ended_job_is_400(server: Server, finished: Job) -> None:
    answer = await server.ask("POST", at(finished, "resize?w=77&h=33"))

    assert has_error(answer, 400, "is not running")


@pytest.mark.parametrize(
    "query",
    ["", "w=1", "w=x&h=1", "w=0&h=1", "w=-1&h=1", "w=65536&h=1", "w=" + "9" * 5000],
    ids="{:.20}".format,
)
async def test_size_that_no_terminal_has_is_refused(
    server: Server, start_job: Callable[..., Job], query: str
) -> None:
    job = start_job("sleep 600", tty=True)

    answer = await server.ask("POST", at(job, f"resize?{query}"))

    assert has_error(answer, 400, "whole numbers from 1 to 65535")


# Sockets in general


@pytest.mark.parametrize("path", ["log_ws", NEW_ATTACH, OLD_ATTACH])
async def test_ping_is_answered(server: Server, sleeper: Job, path: str) -> None:
    async with server.websocket(at(sleeper, path)) as socket:
        await socket.send(b"are you there", PING)
        assert await socket.frame() == Frame(PONG, b"are you there")
        await socket.hang_up()


@pytest.mark.parametrize("path", ["log_ws", NEW_ATTACH, OLD_ATTACH])
async def test_frames_that_mean_nothing_are_ignored(
    server: Server, start_job: Callable[..., Job], path: str
) -> None:
    job = start_job("sleep 600")
    async with server.websocket(at(job, path)) as socket:
        await socket.send(b"text", TEXT)
        for payload in (b"", b"\5", b"\xff" * 1000, b"\4", b"\4{", b"\4[]", b"\4" + b"[" * 10_000):
            await socket.send(payload)
        for size in ('{"width": 1e999, "height": 1}', '{"width": -1, "height": 70000}'):
            await socket.send(b"\4" + size.encode())
        await socket.send(b"still there", PING)
        assert await socket.frame() == Frame(PONG, b"still there")


@pytest.mark.parametrize("path", ["log_ws", NEW_ATTACH, OLD_ATTACH])
async def test_frame_that_no_client_sends_is_not_waited_for(
    server: Server, sleeper: Job, path: str
) -> None:
    async with server.websocket(at(sleeper, path)) as socket:
        await socket.wire.send(bytes([0x80 | BINARY, 0x80 | 127]) + (2**30).to_bytes(8, "big"))

        assert await socket.frame() == Frame(CLOSE, (1009).to_bytes(2, "big"))


@pytest.mark.parametrize(
    "header",
    [
        {"Sec_WebSocket_Version": "12"},
        {"Sec_WebSocket_Key": "short"},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["log_ws", NEW_ATTACH, "exec?cmd=ls&tty=0&stdin=1"])
async def test_handshake_that_is_none_is_refused(
    server: Server, sleeper: Job, path: str, header: Dict[str, str]
) -> None:
    assert has_error(await server.refusal(at(sleeper, path), **header), 400, "")


@pytest.mark.parametrize("path", ["log_ws", NEW_ATTACH, OLD_ATTACH, "exec?cmd=ls&tty=0&stdin=1"])
async def test_plain_request_at_a_socket_is_refused(
    server: Server, sleeper: Job, path: str
) -> None:
    answer = await server.ask("GET", at(sleeper, path))

    assert has_error(answer, 400, "")
