"""The hooks, and a local training, on every Python of this machine from 3.9 on, with nothing but
its own library. The whole unit suite on each is in tests/slow."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Dict

import pytest
from baking import TEMPLATE, Project, plant_recorder
from jinja2 import Environment

from .pythons import RUNNING, pythons

PYTHONS = pythons()

ANSWERS = {
    "project_name": "Crème \"brûlée\" 'x' \\ {}",
    "project_slug": "my-project",
    "base_image": "python:3.12",
    "preset": "cpu-small",
}


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return PYTHONS[str(request.param)]


def run_hook(
    python: str, folder: Path, name: str, answers: Dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Render a hook as cookiecutter does and run it, without anything but the standard library."""
    source = (TEMPLATE / "hooks" / f"{name}.py").read_text(encoding="utf-8")
    hook = folder / "hook.py"
    hook.write_text(Environment().from_string(source).render(cookiecutter=answers))
    return subprocess.run(
        [python, "-IS", "-W", "error", str(hook)],
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_running_python_is_tried() -> None:
    assert RUNNING in PYTHONS


def test_good_answers_are_accepted(python: str, tmp_path: Path) -> None:
    done = run_hook(python, tmp_path, "pre_gen_project", ANSWERS)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bad_answers_are_refused_with_a_sentence_each(python: str, tmp_path: Path) -> None:
    bad = {question: "\udcff\n" for question in ANSWERS}

    done = run_hook(python, tmp_path, "pre_gen_project", bad)

    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()] == list(ANSWERS)


def test_the_last_touches_are_made(python: str, tmp_path: Path) -> None:
    (tmp_path / "_gitignore").write_text("/data/*\n")

    done = run_hook(python, tmp_path, "post_gen_project", ANSWERS)

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".gitignore").exists()
    assert f"Created {tmp_path.resolve()}/." in done.stdout


@pytest.mark.parametrize("shell", ["dash"])
def test_a_local_training_gets_its_words(python: str, project: Project) -> None:
    (project.path / "code" / "train.py").write_text("import json, sys; print(json.dumps(sys.argv))")

    result = project.make("train_local", f"PYTHON={python}", "TRAIN_ARGS=--note 'a  b' $x")

    assert result.code == 0, result.err
    assert json.loads(result.out.splitlines()[0])[-3:] == ["--note", "a  b", "$x"]


@pytest.mark.parametrize("shell", ["dash"])
def test_a_program_that_is_not_there_is_said(python: str, project: Project) -> None:
    plant_recorder(project.bin)

    result = project.make("train_local", f"PYTHON={python}", "TRAIN_CMD=no-such-program x")

    assert result.code != 0
    assert "there is no program 'no-such-program'" in result.err
    assert "Traceback" not in result.err
