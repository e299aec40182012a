"""base_image/ with recorders for docker and neuro, or real ones; a repository for Deepo's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Iterator

import pytest
from clients import CLIENTS, Client
from dockercli import Docker
from e2e.platform import Platform
from machine import impossible

from neuro_local.registry import PROGRAM

from .builder import IGNORED, SOURCE, Builder
from .deepo import Deepo


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of base_image/, in a path with a space."""
    path = tmp_path / "my work" / "base_image"
    shutil.copytree(SOURCE, path, ignore=IGNORED)
    return path


@pytest.fixture
def builder(copied: Path, tmp_path: Path, shell: str) -> Builder:
    builder = Builder(copied, tmp_path / "bin", shell)
    builder.plant("docker", "neuro")
    return builder


@pytest.fixture
def deepo(builder: Builder, tmp_path: Path) -> Deepo:
    """Builders clone this repository, unless told otherwise; its path is one that hurts."""
    deepo = Deepo(tmp_path / "deepo's & $HOME", "FROM scratch\n")
    builder.environment.update(DEEPO_REPOSITORY=str(deepo.path), DEEPO_REVISION=deepo.new)
    return deepo


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> Client:
    client: Client = request.param
    client.require()
    return client


@pytest.fixture
def platform(tmp_path: Path, client: Client, docker: Docker) -> Iterator[Platform]:
    """An instance whose jobs are containers of that engine, with a registry."""
    if not shutil.which(PROGRAM):
        impossible(f"{PROGRAM} is not installed; on Debian `make test` as root installs it")
    settings = {"NEURO_LOCAL_ENGINE": "docker", "DOCKER_HOST": docker.host}
    platform = Platform(tmp_path / "platform", client=client, settings=settings)
    platform.up()
    docker.forget_later(platform.url.removeprefix("http://"))
    yield platform
    platform.end_jobs()
    platform.down()
