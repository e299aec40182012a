"""Images between docker, the registry and jobs: what is pushed runs, what is saved is pulled."""

from __future__ import annotations

import os
from typing import Iterator

import pytest
from clients import Client
from dockercli import Docker
from e2e.platform import Platform

from neuro_local.models import Identity

from .dockerimage import content_of, make_runnable_image


@pytest.fixture
def platform(
    tmp_path_factory: pytest.TempPathFactory, client: Client, docker: Docker, program: str
) -> Iterator[Platform]:
    """An instance whose jobs are containers of that engine, with a registry."""
    settings = {"NEURO_LOCAL_ENGINE": "docker", "DOCKER_HOST": docker.host}
    platform = Platform(tmp_path_factory.mktemp("platform"), client=client, settings=settings)
    platform.up()
    yield platform
    platform.end_jobs()
    platform.down()


@pytest.fixture
def image(platform: Platform, client: Client, docker: Docker) -> str:
    """A name of the test's own for an image, the same in docker and on the platform."""
    name = f"t{os.urandom(6).hex()}"
    org = f"{Identity().org}/" if client.package == "apolo-cli" else ""
    host = platform.url.removeprefix("http://")
    for tag in "v1", "v2":
        docker.forget_later(f"{name}:{tag}")
        docker.forget_later(f"{host}/{org}user/{name}:{tag}")
    return name


def test_pushed_image_runs_as_a_job(platform: Platform, docker: Docker, image: str) -> None:
    make_runnable_image(docker, f"{image}:v1", b"pushed")
    platform.neuro("image", "push", f"{image}:v1")
    docker.forget()  # it must come from the registry

    ran = platform.neuro("run", "-T", f"image:{image}:v1", "cat /content")

    assert "pushed" in ran.stdout


def test_job_runs_what_was_pushed_last(platform: Platform, docker: Docker, image: str) -> None:
    for content in b"older", b"newer":
        make_runnable_image(docker, f"{image}:v1", content)
        platform.neuro("image", "push", f"{image}:v1")
        docker.forget()

        ran = platform.neuro("run", "-T", f"image:{image}:v1", "cat /content")

        assert content.decode() in ran.stdout


def test_saved_job_can_be_pulled_and_run(platform: Platform, docker: Docker, image: str) -> None:
    make_runnable_image(docker, f"{image}:v1", b"pushed")
    platform.neuro("image", "push", f"{image}:v1")
    script = 'sh -c "echo of the job >/content; read line"'
    started = platform.neuro(
        "-q", "run", "--detach", "-T", "--entrypoint", script, f"image:{image}:v1"
    )
    job = started.stdout.split()[0]
    platform.wait_for(job, "running")

    platform.neuro("job", "save", job, f"image:{image}:v2")
    platform.end_job(job)
    docker.forget()
    platform.neuro("image", "pull", f"image:{image}:v2")
    ran = platform.neuro("run", "-T", f"image:{image}:v2", "cat /content")

    assert content_of(docker, f"{image}:v2") == b"of the job\n"
    assert "of the job" in ran.stdout


def test_image_that_is_in_no_registry_fails_the_job_with_the_platforms_reason(
    platform: Platform, image: str
) -> None:
    platform.neuro("run", "-T", "--name", "missing", f"image:{image}:v1", "cat /content", code=125)

    job = platform.job("missing")
    assert (job.status, job.reason) == ("failed", "ErrImagePull")


def test_removed_image_does_not_run_any_more(
    platform: Platform, docker: Docker, image: str
) -> None:
    make_runnable_image(docker, f"{image}:v1", b"pushed")
    platform.neuro("image", "push", f"{image}:v1")
    platform.neuro("run", "-T", f"image:{image}:v1", "cat /content")

    platform.neuro("image", "rm", f"image:{image}:v1")

    platform.neuro("run", "-T", "--name", "removed", f"image:{image}:v1", "cat /content", code=125)
    assert platform.job("removed").reason == "ErrImagePull"
