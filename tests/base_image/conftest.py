"""base_image/ with recorders in place of docker and neuro, and a repository in place of Deepo's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .builder import IGNORED, SOURCE, Builder
from .deepo import Deepo


@pytest.fixture
def builder(tmp_path: Path, shell: str) -> Builder:
    path = tmp_path / "my work" / "base_image"
    shutil.copytree(SOURCE, path, ignore=IGNORED)
    builder = Builder(path, tmp_path / "bin", shell)
    builder.plant("docker", "neuro")
    return builder


@pytest.fixture
def deepo(builder: Builder, tmp_path: Path) -> Deepo:
    """Builders clone this repository, unless told otherwise; its path is one that hurts."""
    deepo = Deepo(tmp_path / "deepo's & $HOME", "FROM scratch\n")
    builder.environment.update(DEEPO_REPOSITORY=str(deepo.path), DEEPO_REVISION=deepo.new)
    return deepo
