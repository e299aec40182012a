"""Images between docker, the registry and jobs: what is pushed runs, what is saved is pulled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator, List

import pytest
from clients import BIN, Client
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


def test_removed_image_leaves_no_copy_in_the_engine(
    platform: Platform, docker: Docker, image: str
) -> None:
    make_runnable_image(docker, f"{image}:v1", b"pushed")
    save(platform, f"{image}:v1", f"image:{image}:v2")
    assert any(name.endswith(f"/{image}:v2") for name in names(docker))

    platform.neuro("image", "rm", f"image:{image}:v2")

    assert [name for name in names(docker) if name.endswith(f"{image}:v2")] == []
    assert f"{image}:v1" in names(docker)  # the user's own


# Without a registry server at first


@pytest.fixture
def programs(tmp_path: Path, client: Client) -> Path:
    """A folder on the PATH of a machine where docker-registry is not installed yet."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in "sh", "env":
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


@pytest.fixture
def older(
    tmp_path: Path, client: Client, docker: Docker, program: str, programs: Path
) -> Iterator[Platform]:
    """An instance on that machine."""
    path = os.pathsep.join([str(client.program.parent), str(programs)])
    # Python's own programs and what is beside them, never the registry server.
    assert shutil.which("docker-registry", path=f"{path}{os.pathsep}{BIN}") is None
    settings = {"NEURO_LOCAL_ENGINE": "docker", "DOCKER_HOST": docker.host, "PATH": path}
    platform = Platform(tmp_path / "platform", client=client, settings=settings)
    platform.up()
    yield platform
    platform.end_jobs()
    docker.forget_later(f"neuro-local/{(platform.state / 'instance').read_text()}/")
    platform.down()


def names(docker: Docker) -> List[str]:
    return docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").split()


def save(platform: Platform, source: str, target: str) -> None:
    """Save a job that runs from an image and has changed something."""
    job = platform.start_job("sh -c 'echo saved >/content; read line'", image=source)
    platform.neuro("job", "save", job.id, target)
    platform.end_job(job.id)


def test_image_saved_before_there_was_a_registry_is_still_there(
    older: Platform, docker: Docker, programs: Path, program: str
) -> None:
    image = f"t{os.urandom(6).hex()}"
    make_runnable_image(docker, f"{image}:v1", b"base")
    save(older, f"{image}:v1", f"image:{image}:v2")
    older.down()
    (programs / "docker-registry").symlink_to(program)
    older.up()
    save(older, f"{image}:v1", f"image:{image}:v3")
    assert f"127.0.0.1:{older.url.rpartition(':')[2]}/user/{image}:v3" in names(docker)

    listed = older.neuro("image", "tags", f"image:{image}").stdout
    assert "v2" in listed and "v3" in listed
    assert image in older.neuro("image", "ls").stdout
    for tag in "v2", "v3":
        ran = older.neuro("run", "-T", f"image:{image}:{tag}", "cat /content")
        assert "saved" in ran.stdout

    for tag in "v2", "v3":
        older.neuro("image", "rm", f"image:{image}:{tag}")
    assert image not in older.neuro("image", "ls").stdout
    older.neuro("run", "-T", "--name", "gone", f"image:{image}:v2", "cat /content", code=125)
    assert older.job("gone").reason == "ErrImagePull"
    assert [name for name in names(docker) if f"/user/{image}" in name] == []


def test_saved_image_can_be_removed_without_a_registry(older: Platform, docker: Docker) -> None:
    image = f"t{os.urandom(6).hex()}"
    make_runnable_image(docker, f"{image}:v1", b"base")
    save(older, f"{image}:v1", f"image:{image}:v2")

    older.neuro("image", "rm", f"image:{image}:v2")

    assert image not in older.neuro("image", "ls").stdout
    assert [name for name in names(docker) if f"/user/{image}" in name] == []
