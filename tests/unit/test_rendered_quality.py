from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
from baking import Project


@pytest.fixture(scope="module")
def default(baked: Path) -> Project:
    return Project(baked, baked)


def test_the_project_passes_its_own_lint(project: Project) -> None:
    result = project.make("lint", f"PYTHON={sys.executable}")

    assert result.code == 0, result.out + result.err
    assert "code/ is clean." in result.out


def test_lint_finds_what_is_wrong(project: Project) -> None:
    (project.path / "code" / "train.py").write_text("import os\n")

    result = project.make("lint", f"PYTHON={sys.executable}")

    assert result.code != 0
    assert "code/train.py:1:1: F401" in result.out


def test_the_training_script_is_short(default: Project) -> None:
    assert len(default.read("code/train.py").splitlines()) < 120


@pytest.mark.parametrize("name", ["code/train.py", "code/test_train.py"])
def test_code_is_python_3_9(default: Project, name: str) -> None:
    ast.parse(default.read(name), feature_version=(3, 9))


def test_direct_requirements_are_pinned(default: Project) -> None:
    lines = [line for line in default.read("requirements/pip.txt").splitlines() if line[0] != "#"]

    assert [line for line in lines if "==" not in line] == ["numpy<3"]


def test_the_notebook_is_short_and_has_no_outputs(default: Project) -> None:
    notebook = json.loads(default.read("notebooks/demo.ipynb"))

    assert notebook["nbformat"] == 4
    assert len(notebook["cells"]) < 6
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_the_notebook_imports_from_code_and_draws_the_results(default: Project) -> None:
    cells = json.loads(default.read("notebooks/demo.ipynb"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")

    assert 'sys.path.insert(0, "../code")' in source
    assert "import train" in source
    assert 'Path("../results")' in source
    assert "plt.show()" in source
    ast.parse(source, feature_version=(3, 9))


def test_text_files_end_in_a_line_feed_and_have_no_carriage_return(default: Project) -> None:
    odd = [
        name
        for name, content in default.files().items()
        if content and (b"\r" in content or not content.endswith(b"\n"))
    ]

    assert odd == []
