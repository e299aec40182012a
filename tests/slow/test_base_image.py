"""Our own Dockerfile, built whole for CPUs: TensorFlow and JupyterLab from PyPI, minutes each time.

PyPI has no PyTorch for CPUs. What this machine's pip gets of it is put into the image that this one
is built on, as an index; where pip gets none, an empty package of its name and version stands in
for it. TORCH_INDEX=address names the real index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import pytest
from baking import render
from base_image.builder import pins
from base_image.conftest import client, copied, platform
from dockercli import Docker
from dockerd import cache, locked
from dockerimages import BASE
from e2e.commands import run
from e2e.conftest import no_client
from e2e.platform import Platform
from e2e.project import Project, make_wheel

__all__ = ["client", "copied", "platform"]

# Seconds.
BUILD = 900
pytestmark = [no_client, pytest.mark.timeout(3 * BUILD)]

TORCH = f"torch=={pins('cpu')['torch']}"

# What a project does with both: the real PyTorch takes the derivative of a sum of squares.
IMPORTS = "import tensorflow, torch; print(tensorflow.ones(3).numpy().sum())"
LEARNS = (
    f"{IMPORTS}; x = torch.ones(3, requires_grad=True); (x * x).sum().backward();"
    " print(x.grad.tolist())"
)


@dataclass(frozen=True)
class Torch:
    """The variables that say where PyTorch is, and whether it is more than its name."""

    variables: List[str]
    is_real: bool


VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


@pytest.fixture
def torch(tmp_path: Path, docker: Docker) -> Torch:
    named = os.environ.get("TORCH_INDEX")
    if named:
        return Torch([f"TORCH_INDEX={named}"], is_real=True)
    index = tmp_path / "index" / "torch"
    index.mkdir(parents=True)
    wheel = downloaded(docker("run", "--rm", BASE, "python3", "-c", VERSION))
    if wheel is not None:
        (index / wheel.name).hardlink_to(wheel)
    name = wheel.name if wheel else make_wheel(index, "torch", pins("cpu")["torch"]).name
    (index / "index.html").write_text(f'<a href="{name}">{name}</a>')
    (tmp_path / "index" / "Dockerfile").write_text(f"FROM {BASE}\nCOPY torch /wheels/torch\n")
    base = docker.image()
    docker("build", "--tag", base, str(tmp_path / "index"))
    return Torch([f"BASE={base}", "TORCH_INDEX=file:///wheels"], is_real=wheel is not None)


def downloaded(python: str) -> Optional[Path]:
    """Return the wheel for that version of Python as pip finds it, kept from run to run."""
    folder = cache().parent / "wheels" / python
    folder.mkdir(parents=True, exist_ok=True)
    for_image = [f"--python-version={python}", "--platform=manylinux_2_28_x86_64"]
    command = ["download", "--no-deps", "--only-binary=:all:", *for_image, "--dest", str(folder)]
    with locked(folder / "lock"):
        got = subprocess.run(
            [sys.executable, "-m", "pip", *command, TORCH], capture_output=True, text=True
        )
    if got.returncode != 0:
        reason = got.stderr.strip().splitlines()[-1:]
        warnings.warn(f"an empty package stands in for {TORCH}, which pip cannot get: {reason}")
        return None
    return next(folder.glob(f"torch-{pins('cpu')['torch']}-*.whl"))


def test_project_starts_from_our_own_image(
    tmp_path: Path, copied: Path, platform: Platform, docker: Docker, torch: Torch
) -> None:
    image = docker.image()
    for target in "base_image_cpu", "push_base_image":
        command = ["make", target, f"IMAGE={image}", *torch.variables]
        run(command, cwd=copied, env=platform.env, timeout=BUILD)

    assert docker("run", "--rm", image, "ls", "/project").split() == [
        *["code", "data", "notebooks", "results"]
    ]
    installed = docker("run", "--rm", image, "python", "-m", "pip", "list", "--format=freeze")
    assert TORCH in installed.splitlines()
    assert "nvidia" not in installed
    assert "jupyterlab==" in installed
    docker.forget()

    # The template's own requirements and training.
    answers = {"project_name": "Base", "base_image": f"image:{image}"}
    assert render(tmp_path / "work", answers).returncode == 0
    project = Project(tmp_path / "work" / "base", platform)
    project.make("setup", timeout=BUILD)
    project.make("run_training", TRAIN_ARGS="--epochs 1", timeout=BUILD)
    code = LEARNS if torch.is_real else IMPORTS
    used = project.make(
        "run_training", TRAIN_CMD=f"python -c '{code}'", RUN="uses", timeout=BUILD
    ).stdout.splitlines()

    assert "3.0" in used
    assert ("[2.0, 2.0, 2.0]" in used) == torch.is_real
    assert project.storage("results/metrics.json").exists()
