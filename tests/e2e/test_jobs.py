"""What the real client does with jobs: ps, run, logs, exec, attach, port-forward, save."""

from __future__ import annotations

import itertools
import json
import re
import socket
from datetime import datetime, timedelta, timezone
from typing import Iterator

import pytest
from clients import APOLO

from .commands import wait_until
from .conftest import PLAIN_IMAGE, SANDBOX, only_on, only_with
from .platform import Job, Platform, fetch

numbers = itertools.count(1)


@pytest.fixture
def name(platform: Platform) -> Iterator[str]:
    """A name for one job, which ends with the test."""
    name = f"test-{next(numbers)}"
    yield name
    platform.end_jobs(name=name)


@pytest.fixture
def sleeper(platform: Platform, name: str) -> Job:
    """A running job that does nothing."""
    return platform.start_job("sleep 600", name=name, tags=["sleepers", f"tag:{name}"])


def ids(platform: Platform, *options: str) -> list[str]:
    return platform.neuro("-q", "ps", *options).stdout.split()


def filled(options: list[str], job: Job) -> list[str]:
    """Put in the job's name, and the moment of ten minutes ago."""
    moment = datetime.now(timezone.utc) - timedelta(minutes=10)
    return [word.replace("NAME", job.name).replace("PAST", moment.isoformat()) for word in options]


@only_on(SANDBOX)  # a filter does not ask what a job runs in
@pytest.mark.parametrize(
    "options",
    [
        ["--name", "NAME"],
        ["--tag", "tag:NAME"],
        ["--tag", "sleepers", "--tag", "tag:NAME"],
        ["--status", "running", "--tag", "tag:NAME"],
        ["--owner", "ME", "--tag", "tag:NAME"],
        ["-a", "--since", "PAST", "--tag", "tag:NAME"],
    ],
)
def test_ps_finds(platform: Platform, sleeper: Job, options: list[str]) -> None:
    assert ids(platform, *filled(options, sleeper)) == [sleeper.id]


@only_on(SANDBOX)
@pytest.mark.parametrize(
    "options",
    [
        ["--name", "NAME-x"],
        ["--tag", "tag:NAME", "--tag", "other"],
        ["--status", "succeeded", "--tag", "tag:NAME"],
        ["--owner", "somebody", "--tag", "tag:NAME"],
        ["-a", "--until", "PAST", "--tag", "tag:NAME"],
    ],
)
def test_ps_leaves_out(platform: Platform, sleeper: Job, options: list[str]) -> None:
    assert ids(platform, *filled(options, sleeper)) == []


def test_ps_shows_ended_jobs_when_asked(platform: Platform, sleeper: Job) -> None:
    platform.neuro("kill", sleeper.name)

    assert ids(platform, "--name", sleeper.name) == []
    assert ids(platform, "-a", "--name", sleeper.name) == [sleeper.id]


def test_status_tells_how_a_job_ended(platform: Platform, name: str) -> None:
    platform.neuro("run", "--name", name, "-T", PLAIN_IMAGE, "sh", "-c", "exit 5", code=5)

    shown = platform.neuro("status", name).stdout

    assert re.search(r"Exit code\s+5", shown)
    assert "failed" in shown


@pytest.mark.parametrize(
    "script, lines",
    [
        ("echo line", 1),
        ("echo line; sleep 1; echo line", 2),
        ("sleep 1; echo line", 1),
        ("for i in $(seq 3000); do echo line; done", 3000),
        ("for i in $(seq 8); do echo line; sleep 0.2; done", 8),
        ("printf line", 1),
        ("echo line >&2", 1),
    ],
    ids=["quick", "slow", "late", "chatty", "steady", "without line end", "on stderr"],
)
def test_run_shows_the_output_once(platform: Platform, script: str, lines: int) -> None:
    result = platform.neuro("run", "-T", PLAIN_IMAGE, "sh", "-c", script)

    assert (result.stdout + result.stderr).count("line") == lines


@pytest.mark.parametrize("seconds", [0, 1])
def test_run_shows_why_a_job_failed(platform: Platform, seconds: int) -> None:
    script = f"sleep {seconds}; echo reason >&2; exit 6"

    result = platform.neuro("run", "-T", PLAIN_IMAGE, "sh", "-c", script, code=6)

    assert (result.stdout + result.stderr).count("reason") == 1


def test_run_of_a_taken_name_is_refused(platform: Platform, sleeper: Job) -> None:
    result = platform.neuro("run", "--name", sleeper.name, PLAIN_IMAGE, "true", code=65)

    assert "already exists" in result.stderr


def test_name_is_free_after_a_kill(platform: Platform, sleeper: Job) -> None:
    platform.neuro("kill", sleeper.name)

    platform.neuro("run", "-T", "--name", sleeper.name, PLAIN_IMAGE, "true")


def test_run_sees_its_environment_and_nobody_elses(platform: Platform) -> None:
    result = platform.neuro("run", "-T", "--env", "GREETING=hello $USER", PLAIN_IMAGE, "env")

    assert "GREETING=hello $USER" in result.stdout
    assert "NEURO_JOB_ID=job-" in result.stdout
    assert platform.token not in result.stdout
    assert "NEURO_PASSED_CONFIG" not in result.stdout


@only_with(APOLO)
def test_log_since_a_moment_leaves_out_what_was_before(platform: Platform, name: str) -> None:
    waits = "while [ ! -e /tmp/go ]; do sleep 0.1; done"
    platform.start_job(f"sh -c 'echo early; {waits}; echo late; sleep 600'", name=name)
    with platform.start_neuro("logs", name) as whole:
        whole.wait_for("early")
        moment = datetime.now(timezone.utc).isoformat()
        platform.neuro("exec", "-T", name, "touch", "/tmp/go")
        whole.wait_for("late")

    with platform.start_neuro("logs", "--since", moment, name) as recent:
        recent.wait_for("late")
        assert "early" not in recent.stdout


@only_with(APOLO)
def test_log_with_timestamps(platform: Platform, name: str) -> None:
    platform.neuro("run", "-T", "--name", name, PLAIN_IMAGE, "seq", "3")

    log = platform.neuro("logs", "--timestamps", name).stdout

    stamped = re.findall(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ([123])$", log, re.MULTILINE)
    assert stamped == ["1", "2", "3"]


def test_log_follows_until_the_job_ends(platform: Platform, name: str) -> None:
    platform.start_job("sh -c 'echo first; sleep 1; echo last'", name=name)

    log = platform.neuro("logs", name).stdout

    assert log.count("first") == log.count("last") == 1


def test_log_of_bytes_that_are_no_text_arrives(platform: Platform, name: str) -> None:
    platform.neuro("run", "-T", "--name", name, PLAIN_IMAGE, "printf", r"a\377b\n")

    assert "a" in platform.neuro("logs", name).stdout


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_of_exec_arrives(platform: Platform, sleeper: Job, code: int) -> None:
    platform.neuro("exec", "-T", sleeper.name, "sh", "-c", f"exit {code}", code=code)


def test_streams_of_exec_stay_apart(platform: Platform, sleeper: Job) -> None:
    result = platform.neuro("exec", "-T", sleeper.name, "sh", "-c", "echo to out; echo to err >&2")

    assert "to out" in result.stdout and "to out" not in result.stderr
    assert "to err" in result.stderr and "to err" not in result.stdout


def test_exec_of_a_command_that_does_not_exist(platform: Platform, sleeper: Job) -> None:
    result = platform.neuro("exec", "-T", sleeper.name, "no-such-command", code=None)

    # 126 is what Docker before version 23 says.
    assert result.code in (126, 127)


def test_exec_shares_the_jobs_files_and_processes(platform: Platform, sleeper: Job) -> None:
    platform.neuro("exec", "-T", sleeper.name, "touch", "/tmp/mark")

    script = "ls /tmp/mark; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    result = platform.neuro("exec", "-T", sleeper.name, "sh", "-c", script)

    assert "/tmp/mark" in result.stdout
    assert "sleep 600" in result.stdout


def test_exec_in_a_job_that_ended_is_refused(platform: Platform, sleeper: Job) -> None:
    platform.neuro("kill", sleeper.name)

    platform.neuro("exec", "-T", sleeper.id, "true", code=platform.client.not_running)


def test_exec_in_an_unknown_job_is_refused(platform: Platform) -> None:
    platform.neuro("exec", "-T", "no-such-job", "true", code=65)


def test_exec_with_a_terminal_has_its_size(platform: Platform, sleeper: Job) -> None:
    with platform.neuro_at_terminal(
        "exec", "-t", sleeper.name, "bash", height=33, width=123
    ) as terminal:
        terminal.type("until [ \"$(stty size)\" = '33 123' ]; do sleep 0.1; done; echo it fi''ts\n")
        terminal.wait_for("it fits")
        terminal.type("exit 9\n")
        terminal.wait(code=9)


def test_exec_with_a_terminal_takes_ctrl_c(platform: Platform, sleeper: Job) -> None:
    with platform.neuro_at_terminal("exec", "-t", sleeper.name, "bash") as terminal:
        # Not before the sleep's own shell has the terminal.
        terminal.type("sh -c 'echo rea\"\"dy; exec sleep 600'\n")
        terminal.wait_for("ready")
        terminal.type("\x03")
        terminal.type("echo interr''upted; exit\n")
        terminal.wait_for("interrupted")
        terminal.wait(code=None)


def test_run_with_a_terminal_takes_input(platform: Platform, name: str) -> None:
    with platform.neuro_at_terminal("run", "-t", "--name", name, PLAIN_IMAGE, "bash") as terminal:
        platform.wait_for(name, "running")
        terminal.type("test -t 0 && echo a ter''minal; exit\n")
        terminal.wait_for("a terminal")
        terminal.wait()


def test_attach_shows_what_comes_and_ends_with_the_job(platform: Platform, name: str) -> None:
    platform.start_job("sh -c 'while [ ! -e /tmp/go ]; do echo tick; sleep 0.2; done'", name=name)

    with platform.start_neuro("attach", name) as attached:
        attached.wait_for("tick")
        # With any code: the job may end, and take this along, as soon as the file is there.
        platform.neuro("exec", "-T", name, "touch", "/tmp/go", code=None)
        attached.wait()


def test_keys_that_detach_leave_the_job_running(platform: Platform, name: str) -> None:
    platform.start_job("sh -c 'while :; do echo tick; sleep 0.2; done'", name=name, tty=True)

    with platform.neuro_at_terminal("attach", name) as terminal:
        terminal.wait_for("tick")
        terminal.type("\x10\x11")  # Ctrl-P Ctrl-Q
        terminal.wait()

    assert platform.job(name).status == "running"


def test_attach_to_a_job_that_was_killed_ends(platform: Platform, name: str) -> None:
    platform.start_job("sh -c 'while :; do echo tick; sleep 0.2; done'", name=name)

    with platform.start_neuro("attach", name) as attached:
        attached.wait_for("tick")
        platform.neuro("kill", name)
        attached.wait()


def test_port_forward_reaches_a_server_in_the_job(platform: Platform, name: str) -> None:
    platform.start_job("python3 -m http.server 8123 --directory /usr", name=name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with platform.start_neuro("port-forward", name, f"{port}:8123"):
        body = wait_until(
            lambda: page(f"http://127.0.0.1:{port}/"), "the server in the job answers"
        )

    assert b"Directory listing" in body


def test_saved_job_is_an_image_to_run(platform: Platform, name: str, sleeper: Job) -> None:
    platform.neuro("exec", "-T", name, "sh", "-c", "echo kept >/opt/kept")

    platform.neuro("save", name, f"image:{name}:v1")

    result = platform.neuro("run", "-T", f"image:{name}:v1", "cat", "/opt/kept")
    assert "kept" in result.stdout
    assert platform.job(name).status == "running"


@only_on(SANDBOX)  # a container's /tmp is a folder like any other
def test_saved_image_has_nothing_in_tmp(platform: Platform, name: str, sleeper: Job) -> None:
    platform.neuro("exec", "-T", name, "touch", "/tmp/gone")

    platform.neuro("save", name, f"image:{name}")

    assert "gone" not in platform.neuro("run", "-T", f"image:{name}", "ls", "/tmp").stdout


def test_plain_image_knows_nothing_of_saved_ones(
    platform: Platform, name: str, sleeper: Job
) -> None:
    platform.neuro("exec", "-T", name, "touch", f"/opt/{name}")
    platform.neuro("save", name, f"image:{name}")

    platform.neuro("run", "-T", PLAIN_IMAGE, "ls", f"/opt/{name}", code=2)


def test_save_of_a_job_that_ended_is_refused(platform: Platform, sleeper: Job) -> None:
    platform.neuro("kill", sleeper.name)

    platform.neuro("save", sleeper.id, f"image:{sleeper.name}", code=76)


def test_plain_base_has_python_and_pip(platform: Platform) -> None:
    script = "python --version && pip --version && python3 -m pip --version"

    result = platform.neuro("run", "-T", PLAIN_IMAGE, "sh", "-c", script)

    assert len(re.findall(r"^pip \d", result.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize("missing", ["--restart=always", "--pass-config"])
def test_what_is_lacking_is_named(platform: Platform, missing: str) -> None:
    result = platform.neuro("run", missing, PLAIN_IMAGE, "true", code=None)

    assert result.code != 0
    result.explains("neuro-local does not support")


@only_on(SANDBOX)
def test_top_shows_what_a_job_uses(platform: Platform, sleeper: Job) -> None:
    with platform.start_neuro("top", sleeper.name) as top:
        top.wait_for("MEMORY")
        top.wait_for(" 0.000 ")


@only_with(APOLO)  # the older client cannot
@only_on(SANDBOX)
def test_life_span_can_be_made_longer(platform: Platform, sleeper: Job) -> None:
    platform.neuro("job", "bump-life-span", sleeper.name, "1h30m")

    _, body = platform.request(f"/api/v1/jobs/{sleeper.id}")
    assert json.loads(body)["max_run_time_minutes"] == 90


def page(url: str) -> bytes:
    try:
        status, body = fetch(url)
    except OSError:
        return b""
    return body if status == 200 else b""
