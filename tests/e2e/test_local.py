"""`setup_local`, `train_local` and `lint`: the project on this machine, without a platform."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from .conftest import Render, no_client, no_job
from .project import Project, make_wheel

pytestmark = [no_client, no_job]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with pip and nothing else."""
    folder = tmp_path_factory.mktemp("bare-venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return f"{folder}/bin/python"


@pytest.fixture(scope="module")
def set_up_python(bare_python: str, render: Render) -> str:
    """The same Python, after `make setup_local` with what a training needs."""
    project = render()
    lists = (project.path / "requirements/pip.txt").read_text().splitlines()
    needed = [line for line in lists if not line.startswith("jupyter")]
    project.write("requirements/pip.txt", "\n".join(needed) + "\n")
    # Few of its modules are ever imported here: to compile them all takes as long as the rest.
    hasty = {**project.env, "PIP_NO_COMPILE": "0"}
    replace(project, environment=hasty).make("setup_local", PYTHON=bare_python, timeout=200)
    return bare_python


def test_setup_local_installs_the_requirements(project: Project, bare_python: str) -> None:
    make_wheel(project.path / "requirements")
    project.write("requirements/pip.txt", "# here\r\n./requirements/tiny-1.0-py3-none-any.whl\r\n")

    project.make("setup_local", PYTHON=bare_python)

    subprocess.run([bare_python, "-c", "import tiny"], check=True)


def test_setup_local_that_fails_says_what_to_do(project: Project, bare_python: str) -> None:
    project.write("requirements/pip.txt", "not-there @ file:///nowhere/not_there-1.0.tar.gz\n")

    project.fails("setup_local", PYTHON=bare_python, says="in a virtual environment")


def test_train_local_without_the_requirements_says_what_to_run(
    project: Project, bare_python: str
) -> None:
    result = project.make("train_local", PYTHON=bare_python, code=2)

    assert "make setup_local" in result.stderr


def test_lint_without_flake8_says_what_to_run(project: Project, bare_python: str) -> None:
    project.fails("lint", PYTHON=bare_python, says="make setup_local")


def test_train_local_trains(project: Project, set_up_python: str) -> None:
    result = project.make("train_local", PYTHON=set_up_python, TRAIN_ARGS="--epochs 2")

    assert "epoch 2/2" in result.stdout
    metrics = json.loads((project.path / "results/metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert list((project.path / "results").glob("events.out.tfevents.*"))


def test_train_local_keeps_runs_apart(project: Project, set_up_python: str) -> None:
    project.make("train_local", PYTHON=set_up_python, TRAIN_ARGS="--epochs 1", RUN="lr-01")

    assert (project.path / "results/lr-01/metrics.json").exists()
    assert not (project.path / "results/metrics.json").exists()


def test_train_local_on_bad_data_says_so_in_a_line(project: Project, set_up_python: str) -> None:
    project.write("data/bad.csv", "1,2,a\nx,2,b\n")

    project.fails("train_local", PYTHON=set_up_python, says="train.py: ")


def test_train_local_takes_arguments_as_typed(project: Project) -> None:
    command = "python -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"

    result = project.make(
        "train_local", PYTHON=sys.executable, TRAIN_CMD=command, TRAIN_ARGS="'$HOME' \"it's\" 5%"
    )

    assert json.dumps(["$HOME", "it's", "5%"]) in result.stdout


def test_notebook_runs_here_before_any_training(project: Project, set_up_python: str) -> None:
    cells = json.loads((project.path / "notebooks/demo.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")

    done = subprocess.run(
        [set_up_python, "-c", code],
        cwd=project.path / "notebooks",
        env={**project.env, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "No results yet" in done.stdout


def test_rendered_code_is_clean(project: Project) -> None:
    assert "clean" in project.make("lint", PYTHON=sys.executable).stdout


def test_lint_finds_what_is_wrong(project: Project) -> None:
    project.write("code/bad.py", "import os\n")

    result = project.fails("lint", PYTHON=sys.executable, says="mend them")

    assert "code/bad.py:1:1: F401" in result.stdout
