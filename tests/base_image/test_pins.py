"""The versions that our own Dockerfile installs."""

from __future__ import annotations

import re

import pytest
from baking import TEMPLATE

from .builder import pins

PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}" / "requirements" / "pip.txt"


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_everything_is_pinned_and_jupyterlab_is_the_projects(variant: str) -> None:
    pinned = pins(variant)

    assert {"torch", "tensorboard", "keras", "numpy"} <= set(pinned)
    assert all(re.fullmatch(r"[0-9][\w.+]*", version) for version in pinned.values())
    assert f"jupyterlab=={pinned['jupyterlab']}\n" in PROJECT.read_text()


def test_cpu_image_has_no_cuda() -> None:
    pinned = pins("cpu")

    assert pinned["torch"].endswith("+cpu")
    assert not [name for name in pinned if re.match("nvidia|cuda|triton", name)]


def test_cpu_image_has_the_tensorboard_of_the_project() -> None:
    assert f"tensorboard=={pins('cpu')['tensorboard']}\n" in PROJECT.read_text()


def test_gpu_image_has_one_cuda() -> None:
    cuda = [name for name in pins("gpu") if name.startswith("nvidia-")]

    assert cuda and all(name.endswith("-cu12") for name in cuda)
