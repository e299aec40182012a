"""What `make demo` runs, on either engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from baking import TEMPLATE
from dockerimages import TENSORBOARD, Images

DEADLINE = 900
pytestmark = pytest.mark.timeout(DEADLINE)


def test_demo_goes_through_the_whole_cycle_on_the_sandbox(tmp_path: Path) -> None:
    demonstrate(tmp_path, NEURO_LOCAL_ENGINE="sandbox")


def test_demo_goes_through_the_whole_cycle_on_docker(tmp_path: Path, docker_engine: Images) -> None:
    docker_engine.ensure(TENSORBOARD)

    demonstrate(tmp_path, NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=docker_engine.host)


def demonstrate(folder: Path, **settings: str) -> None:
    """Run the demo, whose own folder is made in this one and goes again."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "TMPDIR": str(folder), **settings}
    command = ["sh", "scripts/demo.sh"]

    done = subprocess.run(
        command, cwd=TEMPLATE, env=environ, capture_output=True, text=True, timeout=DEADLINE
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "That was the whole cycle" in done.stdout
    assert "TensorBoard answers: the run 'demo' has accuracy" in done.stdout
    assert list(folder.glob("neuro-demo.*")) == []
