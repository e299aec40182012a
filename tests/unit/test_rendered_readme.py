"""The README is the reference of the Makefile: each knows what the other knows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Dict

import pytest
from baking import TEMPLATE, Project
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def default(baked: Path) -> Project:
    return Project(baked, baked)


def table(project: Project, heading: str) -> Dict[str, str]:
    """The first two columns of the table below a heading, one entry per name in the first."""
    section = project.read("README.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name: row[1].strip() for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_every_target_is_documented_and_no_other(default: Project) -> None:
    targets = re.findall(r"^([a-z]\w+):.*## ", default.read("Makefile"), re.MULTILINE)

    assert set(table(default, "Targets")) == set(targets)


def test_every_variable_is_documented_with_its_default_and_no_other(default: Project) -> None:
    variables = dict(re.findall(r"^(\w+) \?=[ ]*(.*)$", default.read("Makefile"), re.MULTILINE))
    full = {
        "storage:$(PROJECT)": "storage:my-project",
        "$(PROJECT_STORAGE)/data": "storage:my-project/data",
        "image:$(PROJECT)": "image:my-project",
        "$(IMAGE)": "IMAGE",
    }

    documented = {name: value.strip("`") for name, value in table(default, "Variables").items()}
    assert documented == {name: full.get(value, value) for name, value in variables.items()}


def test_every_make_command_in_the_readme_exists(default: Project) -> None:
    known = {*table(default, "Targets"), *table(default, "Variables")}
    commands = re.findall(r"\bmake ((?:[\w-]+(?:=\S+)?[ `]?)+)", default.read("README.md"))
    words = {
        word.split("=")[0]
        for command in commands
        for word in command.split("`")[0].split()
        if word != "--always-make"
    }

    assert {word for word in words if re.fullmatch("[a-z]+_[a-z]+|[A-Z_]+", word)} <= known


def test_the_folders_of_a_job_are_those_of_the_makefile(default: Project) -> None:
    readme = default.read("README.md")

    for folder in ("code", "data", "notebooks", "results"):
        assert f"storage:my-project/{folder}" in readme
        assert f"`/project/{folder}`" in readme
        assert f":/project/{folder}:" in default.read("Makefile")


def test_the_quick_start_is_four_commands(default: Project) -> None:
    block = default.read("README.md").split("```")[1]

    assert len(block.strip().splitlines()) == 4


@pytest.mark.parametrize(
    ("package", "constraints"),
    [("apolo-cli", "constraints.txt"), ("neuromation", "constraints-neuromation.txt")],
)
def test_each_client_has_a_line_that_installs_what_is_tested(
    default: Project, package: str, constraints: str
) -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(.*)$", (TEMPLATE / constraints).read_text(), re.M))
    line = re.search(rf"^- `pip install ({package}.*?)`", default.read("README.md"), re.M)

    assert line
    wanted = [Requirement(word) for word in shlex.split(line[1])]
    assert wanted[0].name == package
    assert [str(one) for one in wanted if pinned[one.name] not in one.specifier] == []
