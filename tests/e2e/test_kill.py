"""`kill`, `kill_...` and `ps`: what they find, and what they leave alone."""

from __future__ import annotations

import re

import pytest

from .conftest import Render, no_job
from .platform import Platform
from .project import Project


@no_job
def test_kill_of_a_training_that_does_not_run_is_a_success(ready: Project) -> None:
    result = ready.make("kill_training")

    assert "nothing to kill" in result.stdout


def test_kill_training_ends_the_named_run_only(ready: Project) -> None:
    jobs = [ready.start_job("training", run=run).id for run in ("one", "two")]

    ready.make("kill_training", RUN="one")

    assert [ready.platform.job(job).status for job in jobs] == ["cancelled", "running"]


@pytest.mark.parametrize("kind", ["jupyter", "tensorboard", "filebrowser"])
def test_kill_by_name_ends_that_job_only(ready: Project, kind: str) -> None:
    killed = ready.start_job(kind).id
    other = ready.start_job("training").id

    said = ready.make(f"kill_{kind}").stdout

    assert f"Killed: {kind}-{ready.slug}" in said.splitlines()
    assert ready.platform.job(killed).status == "cancelled"
    assert ready.platform.job(other).status == "running"


def test_kill_ends_all_jobs_of_this_project_and_of_no_other(ready: Project) -> None:
    own = [ready.start_job(kind).id for kind in ("training", "setup")]
    stranger = ready.platform.start_job("sleep 600").id

    said = ready.make("kill").stdout

    named = {line for line in said.splitlines() if line.startswith("Killed: ")}
    assert named == {f"Killed: {kind}-{ready.slug}" for kind in ("training", "setup")}
    assert [ready.platform.job(job).status for job in own] == ["cancelled", "cancelled"]
    assert ready.platform.job(stranger).status == "running"
    ready.platform.end_job(stranger)


@no_job
@pytest.mark.parametrize("target", ["kill", "kill_jupyter"])
def test_kill_with_nothing_running_is_a_success(ready: Project, target: str) -> None:
    assert "nothing to kill" in ready.make(target).stdout


@no_job
def test_kill_fails_when_the_platform_is_gone(render: Render, dead_platform: Platform) -> None:
    render(dead_platform).fails("kill", says="could not list the jobs")


@no_job
@pytest.mark.parametrize("target", ["kill", "ps"])
def test_target_fails_when_the_login_expired(
    render: Render, expired_platform: Platform, target: str
) -> None:
    render(expired_platform).fails(target, says="could not list the jobs")


def test_ps_lists_the_jobs_of_this_project_only(ready: Project) -> None:
    ready.start_job("training")
    stranger = ready.platform.start_job("sleep 600", name=f"{ready.slug}-x")

    shown = ready.make("ps").stdout

    line = next(line for line in shown.splitlines() if f"training-{ready.slug}" in line)
    assert re.search(r"running .*(ago|now) ", line)
    assert f"{ready.slug}-x" not in shown
    ready.platform.end_job(stranger.id)
