"""What check, login and setup call of the client, whole, on success and on failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import List

import pytest
from baking import Project, Reply, options
from targets import REMOTE, ROOT, TAG, no_stamp, sentence


def test_check_says_one_line_each(project: Project) -> None:
    result = project.make("check")

    assert result.code == 0
    assert result.calls == [["--version"], ["config", "show"], ["--quiet", "ps", *TAG]]
    assert [line.split(":")[0] for line in result.out.splitlines()] == [
        "ok       client",
        "ok       login",
        "ok       preset",
        "ok       names",
        "ok       image",
    ]
    assert "26.9.0" in result.out
    assert "Name: alice  Cluster: local" in result.out


@pytest.mark.parametrize(
    ("arguments", "reply", "problem"),
    [
        ([], Reply("--version", 1, err="broken"), "the client does not start"),
        ([], Reply("config show", 77, err="Not logged in"), "make login"),
        ([], Reply("--quiet ps", 74, err="Connection error"), "no connection"),
        (["PRESET=huge"], Reply("never"), "there is no preset huge"),
        (["PRESET=cpu"], Reply("never"), "to one of: cpu-small gpu-small"),
        (["RUN=Upper"], Reply("never"), "training-my-project-Upper does not fit"),
    ],
)
def test_check_names_the_problem(
    project: Project, arguments: List[str], reply: Reply, problem: str
) -> None:
    result = project.make("check", *arguments, replies=[reply])

    assert result.code != 0
    assert problem in result.err
    assert reply.err in result.err


def test_check_wants_setup(project: Project) -> None:
    no_stamp(project)

    result = project.make("check")

    assert result.code != 0
    assert (
        "problem  the image is not built from requirements/ as they are now: make setup"
        in result.err
    )


def test_login_takes_an_address(project: Project) -> None:
    assert project.make("login").calls == [["login"]]
    assert project.make("login", "LOGIN_URL=http://x/api").calls == [["login", "http://x/api"]]


def test_a_failed_login_is_a_failure(project: Project) -> None:
    result = project.make("login", replies=[Reply("login", 1)])

    assert result.code != 0
    assert sentence(result.err).startswith("login: not logged in")


def test_setup_makes_six_calls(project: Project) -> None:
    no_stamp(project)

    result = project.make("setup")

    assert result.code == 0, result.err
    tag = options(result.calls[2], "--tag")[1]
    assert re.fullmatch(r"setup:[\d-]+", tag)
    assert result.calls == [
        ["mkdir", "--parents", ROOT],
        ["cp", "--recursive", "--target-directory", ROOT, "requirements"],
        [
            *["run", "--detach", "--name", "setup-my-project", *TAG, "--tag", tag],
            *["--preset", "cpu-small", "--life-span", "1h"],
            *["--volume", "storage:my-project/requirements:/project/requirements:ro"],
            *["--entrypoint", "sleep 86400", "python:3.12-slim-bookworm"],
        ],
        [
            *["--quiet", "exec", "--no-tty", "setup-my-project"],
            "sh /project/requirements/install.sh",
        ],
        ["save", "setup-my-project", "image:my-project"],
        ["kill", "setup-my-project"],
    ]
    assert project.has(".setup_done")


def test_setup_right_after_setup_does_nothing_and_says_so(project: Project) -> None:
    result = project.make("setup")

    assert result.code == 0
    assert result.calls == []
    assert "The image image:my-project is built" in result.out


@pytest.mark.parametrize("name", ["apt.txt", "pip.txt", "install.sh"])
def test_an_edited_list_makes_setup_stale(project: Project, name: str) -> None:
    later = time.time() + 5
    os.utime(project.path / "requirements" / name, (later, later))

    assert sentence(project.make("run_training").err).endswith("run `make setup`.")
    assert len(project.make("setup").calls) == 6


def test_a_list_edited_during_setup_leaves_it_stale(project: Project) -> None:
    no_stamp(project)
    edit = Reply("save", sh="sleep 0.05; echo numpy >> requirements/pip.txt")

    assert project.make("setup", replies=[edit]).code == 0

    assert project.make("run_training").code != 0


@pytest.mark.parametrize(
    ("words", "step", "calls"),
    [
        ("mkdir", "copying requirements/ to storage", ["mkdir"]),
        ("cp", "copying requirements/ to storage", ["mkdir", "cp"]),
        ("run", "starting a job", ["mkdir", "cp", "run", "ps", "kill"]),
        ("exec", "installing requirements/", ["mkdir", "cp", "run", "exec", "ps", "kill"]),
        ("save", "saving the image", ["mkdir", "cp", "run", "exec", "save", "ps", "kill"]),
    ],
)
def test_a_failing_step_of_setup(project: Project, words: str, step: str, calls: List[str]) -> None:
    no_stamp(project)

    result = project.make("setup", replies=[Reply(words, 3), Reply("ps", out="job-7\n")])

    assert result.code != 0
    assert result.commands == calls
    if "kill" in calls:
        assert options(result.calls[-2], "--tag") == options(result.calls[2], "--tag")[1:]
        assert result.calls[-1] == ["kill", "job-7"]
    assert sentence(result.err).startswith(f"setup: failed while {step}")
    assert not project.has(".setup_done") and not project.has(".setup_done.new")


def test_a_failing_repetition_of_setup_leaves_no_stamp(project: Project) -> None:
    assert project.make("--always-make", "setup", replies=[Reply("exec", 3)]).code != 0

    assert not project.has(".setup_done")


def test_setup_that_cannot_stop_its_job_says_so(project: Project) -> None:
    no_stamp(project)

    result = project.make("setup", replies=[Reply("kill", 3), Reply("ps", out="job-7\n")])

    assert result.code != 0
    assert "its job may still be running: run `make kill`" in result.err
    assert not project.has(".setup_done")


def test_interrupted_setup_stops_its_job(project: Project) -> None:
    no_stamp(project)
    # One process that surely heeds the signal: dash can miss one between two commands, and
    # Python's own handler one that comes just before it sleeps.
    wait = "from signal import *; signal(SIGINT, SIG_DFL); import time; "
    wait += 'open("started", "w"); time.sleep(60)'
    project.reply(
        Reply("exec", sh=f"exec {sys.executable} -IS -c '{wait}'"), Reply("ps", out="job-7\n")
    )
    command, environment = project.command("setup")
    process = subprocess.Popen(
        command,
        cwd=project.path,
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not project.has("started"):
        assert time.monotonic() < deadline, "setup did not reach its exec"
        time.sleep(0.01)

    os.killpg(process.pid, signal.SIGINT)

    assert process.wait(timeout=20) != 0
    assert project.calls()[-1] == ["kill", "job-7"]
    assert not project.has(".setup_done") and not project.has(".setup_done.new")


@pytest.mark.parametrize("target", ["run_training", "run_jupyter", "run_develop"])
def test_jobs_that_need_the_image_ask_for_setup(project: Project, target: str) -> None:
    no_stamp(project)

    result = project.make(target)

    assert result.code != 0
    assert result.calls == []
    assert sentence(result.err) == (
        "The image of the project is missing or older than requirements/, or made from another "
        "BASE_IMAGE or on another platform: run `make setup`."
    )


@pytest.mark.parametrize("changed", ["BASE_IMAGE=debian:12", "APOLO_CONFIG=/another/platform"])
def test_image_made_from_another_base_or_elsewhere_is_none(project: Project, changed: str) -> None:
    name, value = changed.split("=")
    there = replace(project, env={name: value})

    refused = there.make("run_training")
    made = there.make("setup")

    assert refused.code != 0 and refused.calls == []
    assert made.code == 0 and "save" in made.commands
    assert there.make("run_training").code == 0
    assert project.make("run_training").code != 0


def test_another_image_is_made_when_asked_for_and_used_without(project: Project) -> None:
    assert "save" in project.make("setup", "IMAGE=image:other").commands

    no_stamp(project)
    assert project.make("run_training", "IMAGE=image:other").code == 0


def test_a_project_may_do_without_a_list(project: Project) -> None:
    (project.path / "requirements" / "apt.txt").unlink()

    result = project.make("--always-make", "setup")

    assert result.code == 0, result.err
    assert "save" in result.commands


@pytest.mark.parametrize(
    "target",
    [
        target
        for target in REMOTE
        if target not in {"check", "setup", "run_training", "run_jupyter", "run_develop"}
    ],
)
def test_nothing_else_asks_for_setup(project: Project, target: str) -> None:
    no_stamp(project)

    result = project.make(target, replies=[Reply("ps", out="job-1\n")])

    assert result.code == 0, result.err
    assert "setup" not in result.err


def test_jupyter_in_another_image_needs_no_setup(project: Project) -> None:
    no_stamp(project)

    assert project.make("run_jupyter", "JUPYTER_IMAGE=quay.io/jupyter/base").code == 0
