"""Which engine neuro-local takes, and what becomes of jobs when a Docker engine or the server on it
goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from dockercli import Docker as Command
from dockergate import Gate
from dockerimages import Images
from machine import impossible

from .conftest import PLAIN_IMAGE
from .platform import Job, Platform

Make = Callable[..., Platform]
GONE = "The Docker engine does not answer any more"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Returns an instance of those variables, which is taken down in the end."""
    if not sys.platform.startswith("linux"):
        impossible("neuro-local's sandboxes need Linux")
    made: List[Platform] = []

    def make_one(**settings: str) -> Platform:
        made.append(Platform(tmp_path / f"platform{len(made)}", settings=settings))
        return made[-1]

    yield make_one
    for platform in made:
        platform.down()


@pytest.fixture
def gate(docker_engine: Images) -> Iterator[Gate]:
    """A way to the tests' Docker engine that can be shut."""
    gate = Gate(docker_engine.host)
    gate.open()
    yield gate
    gate.shut()


@pytest.fixture
def missing(tmp_path: Path) -> str:
    """The address of an engine that is not there."""
    return f"unix://{tmp_path}/docker.sock"


def containers(host: str, platform: Platform) -> List[str]:
    instance = (platform.state / "instance").read_text()
    label = f"--filter=label=neuro-local.instance={instance}"
    return Command(host)("ps", "--all", "--quiet", label).split()


# Which engine


def test_auto_takes_docker_that_answers(make: Make, docker_engine: Images) -> None:
    platform = make(DOCKER_HOST=docker_engine.host)

    assert "  engine docker\n" in platform.neuro_local("up", "--engine", "auto").stdout


def test_auto_takes_the_sandbox_where_there_is_no_docker(make: Make, missing: str) -> None:
    platform = make(DOCKER_HOST=missing)

    assert "  engine sandbox\n" in platform.neuro_local("up", "--engine", "auto").stdout


def test_docker_that_is_not_there_is_said(make: Make, missing: str) -> None:
    platform = make(DOCKER_HOST=missing)

    refused = platform.neuro_local("up", "--engine", "docker", code=2)

    refused.explains("No Docker engine answers")
    assert "start Docker" in refused.stderr and "--engine sandbox" in refused.stderr
    platform.neuro_local("status", code=1)


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_other_engine_than_the_one_that_runs_is_refused(make: Make, missing: str, by: str) -> None:
    platform = make(DOCKER_HOST=missing)
    platform.neuro_local("up")
    words = ["up", "--engine", "docker"] if by == "flag" else ["up"]
    if by == "variable":
        platform.set("NEURO_LOCAL_ENGINE", "docker")

    refused = platform.neuro_local(*words, code=2)

    refused.explains("it runs already, with the engine sandbox; stop it first")


# Killed


def killed_with_a_job(make: Make, host: str) -> Platform:
    """An instance whose server was killed while a container of it ran."""
    platform = make(NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=host)
    platform.up()
    platform.start_job("sleep 600")
    platform.kill()
    assert len(containers(host, platform)) == 1
    return platform


def test_down_ends_the_containers_of_a_killed_server(make: Make, docker_engine: Images) -> None:
    platform = killed_with_a_job(make, docker_engine.host)

    platform.down()

    assert containers(docker_engine.host, platform) == []


def test_other_engine_ends_the_containers_of_a_killed_server(
    make: Make, docker_engine: Images
) -> None:
    platform = killed_with_a_job(make, docker_engine.host)

    platform.neuro_local("up", "--engine", "sandbox")

    assert containers(docker_engine.host, platform) == []


def test_containers_of_an_engine_that_is_away_end_later(
    make: Make, docker_engine: Images, gate: Gate
) -> None:
    platform = killed_with_a_job(make, gate.host)
    gate.shut()
    said = platform.neuro_local("up", "--engine", "auto").stdout
    assert "  engine sandbox\n" in said
    assert "may still run" in platform.neuro_local("logs").stdout
    assert len(containers(docker_engine.host, platform)) == 1

    gate.open()
    platform.down()

    assert containers(docker_engine.host, platform) == []


# Gone


def create_job(platform: Platform, image: str) -> Job:
    """Start a job past the client, and return how it ended."""
    body = {"image": image, "preset_name": "cpu-small", "entrypoint": "true"}
    status, answer = platform.request(
        "/api/v1/jobs?from_preset", method="POST", body=json.dumps(body).encode()
    )
    assert status == 202, answer
    return platform.wait_for(json.loads(answer)["id"], "failed")


@pytest.mark.parametrize("image", [PLAIN_IMAGE, "image:mine"])
def test_jobs_of_an_engine_that_went_say_so(make: Make, gate: Gate, image: str) -> None:
    platform = make(NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=gate.host)
    platform.up()
    gate.shut()

    full = image.replace("image:", platform.url.removeprefix("http://") + "/user/")
    job = create_job(platform, full)

    _, body = platform.request(f"/api/v1/jobs/{job.id}")
    assert json.loads(body)["history"]["description"].startswith(GONE)
    assert job.reason == "ContainerCannotRun"


def test_images_of_an_engine_that_went_say_so(make: Make, gate: Gate) -> None:
    platform = make(NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=gate.host)
    platform.up()
    gate.shut()

    status, body = platform.request("/v2/_catalog")

    assert status == 503
    told = json.loads(body)
    assert told["error"].startswith(GONE) and told["errors"][0]["message"] == told["error"]
    platform.neuro("image", "ls", code=None).explains(GONE)


# Out of memory


def test_job_out_of_memory_has_the_platforms_reason(make: Make, docker_engine: Images) -> None:
    platform = make(NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=docker_engine.host)
    platform.up()
    job = platform.start_job("""python -c 'x = b"x" * 2**33'""")

    ended = platform.wait_for(job.id, "failed", timeout=60)

    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)


def test_killed_job_was_not_out_of_memory(make: Make, docker_engine: Images) -> None:
    platform = make(NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=docker_engine.host)
    platform.up()
    job = platform.start_job("sleep 600")

    platform.request(f"/monitoring/jobs/{job.id}/kill", method="POST")

    ended = platform.wait_for(job.id, "failed")
    assert (ended.reason, ended.exit_code) == ("Error", 137)
