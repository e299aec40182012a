from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from baking import TEMPLATE, Project

TREE = {
    ".gitattributes",
    ".gitignore",
    ".neuroignore",
    "Makefile",
    "neuro.mk",
    "README.md",
    "code/test_train.py",
    "code/train.py",
    "data/.gitkeep",
    "notebooks/demo.ipynb",
    "requirements/apt.txt",
    "requirements/install.sh",
    "requirements/pip.txt",
    "results/.gitkeep",
    "setup.cfg",
}


@pytest.fixture(scope="session")
def default(baked: Path) -> Project:
    return Project(baked, baked)


def test_the_tree_is_exactly_this(default: Project) -> None:
    assert set(default.files()) == TREE


def test_no_brace_of_the_template_is_left(default: Project) -> None:
    left = [
        name
        for name, content in default.files().items()
        if b"{{" in content or b"{%" in content or b"cookiecutter." in content
    ]

    assert left == []


def test_same_answers_render_the_same_bytes(default: Project, cookies: Any) -> None:
    again = cookies.bake(template=str(TEMPLATE))

    assert Project(again.project_path, default.bin).files() == default.files()


def test_the_makefile_is_short(default: Project) -> None:
    lines = default.read("Makefile").splitlines()
    assert len(lines) < 210
    assert max(map(len, lines)) < 140


def test_code_is_no_package_that_hides_pythons_own_code(default: Project) -> None:
    assert not default.has("code/__init__.py")
    assert not default.has("code/code.py")


@pytest.mark.parametrize("name", ["code/train.py", "data/.gitkeep", "results/.gitkeep", "Makefile"])
def test_git_keeps(default: Project, name: str) -> None:
    assert ignored(default, name) == 1


@pytest.mark.parametrize(
    "name",
    [
        "data/train.csv",
        "data/images/1.png",
        "results/metrics.json",
        ".setup_done",
        ".setup_done.new",
        ".notebooks.new/demo.ipynb",
        "code/__pycache__/train.cpython-312.pyc",
        "notebooks/.ipynb_checkpoints/demo.ipynb",
        "code/model.ckpt",
        "events.out.tfevents.1.host",
        "notebooks/demo.ipynb~",
    ],
)
def test_git_ignores(default: Project, name: str) -> None:
    assert ignored(default, name) == 0


def ignored(project: Project, name: str) -> int:
    command = ["git", "check-ignore", "--quiet", "--no-index", name]
    return subprocess.run(command, cwd=project.path).returncode
