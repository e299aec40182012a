"""What the targets do that need no client."""

from __future__ import annotations

from typing import List

import pytest
from baking import Project, plant_recorder
from targets import sentence


def plant_python(project: Project, code: int = 0) -> List[str]:
    plant_recorder(project.bin / "py", "python3")
    (project.bin / "py" / "replies").write_text(
        '[{"words": [], "out": "", "err": "", "sh": "", "code": %d}]' % code
    )
    return [f"PYTHON={project.bin}/py/python3"]


@pytest.mark.parametrize("code", [0, 1])
def test_setup_local(project: Project, code: int) -> None:
    result = project.make("setup_local", *plant_python(project, code))

    calls = (project.bin / "py" / "calls").read_text()
    assert calls == '["-m", "pip", "install", "--requirement", "requirements/pip.txt"]\n'
    assert (result.code == 0) is (code == 0)
    if code:
        assert sentence(result.err).startswith("setup_local: not installed")


def test_train_local_runs_the_same_command_without_a_shell(project: Project) -> None:
    (project.path / "code" / "train.py").write_text("import sys; print(sys.argv[1:])")

    result = project.make("train_local", 'TRAIN_ARGS=--note "a b" --price $5', "RUN=x")

    assert result.code == 0, result.err
    words = ["--data", "../data", "--results", "../results", "--note", "a b", "--price", "$5"]
    assert result.out.splitlines()[0] == str([*words, "--results", "../results/x"])
    assert project.has("results/x")


def test_a_failing_local_training_is_a_failure(project: Project) -> None:
    (project.path / "code" / "train.py").write_text("import sys; sys.exit(3)")

    result = project.make("train_local")

    assert result.code != 0
    assert sentence(result.err).startswith("train_local: the training failed")
    assert "Error 3" in result.err


def test_lint_without_flake8_says_what_to_run(project: Project) -> None:
    result = project.make("lint", *plant_python(project, 1))

    assert result.code != 0
    assert sentence(result.err) == "lint: flake8 is not installed: make setup_local"
