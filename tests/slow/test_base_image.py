"""Our own Dockerfile, built whole for CPUs: TensorFlow and JupyterLab from PyPI, minutes each time.

PyPI has no PyTorch for CPUs, so an empty package of its name and version stands in for it, from an
index in the image that this one is built on. TORCH_INDEX=address names the real one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest
from baking import render
from base_image.builder import pins
from base_image.conftest import client, copied, platform
from dockercli import Docker
from dockerimages import BASE
from e2e.commands import run
from e2e.conftest import no_client
from e2e.platform import Platform
from e2e.project import Project, make_wheel

__all__ = ["client", "copied", "platform"]

# Seconds.
BUILD = 900
pytestmark = [no_client, pytest.mark.timeout(2 * BUILD)]

USES = "python -c 'import tensorflow, torch; print(tensorflow.ones(3).numpy().sum())'"


@pytest.fixture
def where(tmp_path: Path, docker: Docker) -> List[str]:
    """The variables that say where PyTorch is."""
    named = os.environ.get("TORCH_INDEX")
    if named:
        return [f"TORCH_INDEX={named}"]
    index = tmp_path / "index" / "torch"
    index.mkdir(parents=True)
    wheel = make_wheel(index, "torch", pins("cpu")["torch"])
    (index / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    (tmp_path / "index" / "Dockerfile").write_text(f"FROM {BASE}\nCOPY torch /wheels/torch\n")
    base = docker.image()
    docker("build", "--tag", base, str(tmp_path / "index"))
    return [f"BASE={base}", "TORCH_INDEX=file:///wheels"]


def test_project_starts_from_our_own_image(
    tmp_path: Path, copied: Path, platform: Platform, docker: Docker, where: List[str]
) -> None:
    image = docker.image()
    command = ["make", "base_image_cpu", "push_base_image", f"IMAGE={image}", *where]
    run(command, cwd=copied, env=platform.env, timeout=BUILD)

    assert docker("run", "--rm", image, "ls", "/project").split() == [
        *["code", "data", "notebooks", "results"]
    ]
    installed = docker("run", "--rm", image, "python", "-m", "pip", "list", "--format=freeze")
    assert f"torch=={pins('cpu')['torch']}" in installed.splitlines()
    assert "nvidia" not in installed
    assert "jupyterlab==" in installed
    docker.forget()

    # The template's own requirements and training.
    answers = {"project_name": "Base", "base_image": f"image:{image}"}
    assert render(tmp_path / "work", answers).returncode == 0
    project = Project(tmp_path / "work" / "base", platform)
    project.make("setup", timeout=BUILD)
    project.make("run_training", TRAIN_ARGS="--epochs 1", timeout=BUILD)
    used = project.make("run_training", TRAIN_CMD=USES, RUN="uses", timeout=BUILD)

    assert "3.0" in used.stdout.splitlines()
    assert project.storage("results/metrics.json").exists()
