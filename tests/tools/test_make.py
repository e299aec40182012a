"""Each target does with an old make what it does with this machine's.

GNU make 3.81 cannot be had from Debian or PyPI; ckati, which knows little that is newer, stands in
for it. Who has the real one names it: OLD_MAKE=/path/to/make-3.81.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import List, Tuple

import pytest
from baking import TEMPLATE, Project, Reply, Result, plant_recorder
from machine import impossible

from .newer_make import newer_features

MAKEFILE = (TEMPLATE / "{{cookiecutter.project_slug}}" / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z]\w+):(?!=)", MAKEFILE, re.MULTILINE)
# ckati has no --question, which this target asks make.
ASKS_MAKE = ["check"]

RUNNING = Reply("ps --format", out=" job-1 my-job\n")


@pytest.fixture
def old_make() -> str:
    named = os.environ.get("OLD_MAKE") or shutil.which("ckati")
    if not named:
        impossible(
            "ckati is not installed, and no OLD_MAKE is named; Debian: apt-get install ckati"
        )
    return named


@pytest.fixture
def pair(tmp_path: Path, baked: Path, old_make: str) -> Tuple[Project, Project]:
    """The same project for this machine's make, and for the old one."""
    projects = []
    for name in ("new", "old"):
        shutil.copytree(baked, tmp_path / name / "my work", ignore=shutil.ignore_patterns(".git"))
        plant_recorder(tmp_path / name / "bin")
        projects.append(Project(tmp_path / name / "my work", tmp_path / name / "bin"))
        projects[-1].mark_set_up()
    return projects[0], replace(projects[1], maker=old_make)


def told(result: Result) -> List[str]:
    """What the recipes said, wherever; not what make itself says of them."""
    lines = (result.out + result.err).splitlines()
    own = (
        r"[\w.-]*make[\w.-]*(\[\d\])?: |\*\*\* |\*bootstrap\*"
        r"|(Makefile|neuro\.mk):\d+: (kati|\*\*\*)"
    )
    return sorted(line for line in lines if not re.match(own, line))


def without_times(result: Result) -> List[List[str]]:
    """The calls; a tag that names this one start is only a name here."""
    return [
        [re.sub(r"^(run|setup):\d{8}-\d{6}-\d+$", r"\1:now", word) for word in call]
        for call in result.calls
    ]


@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_does_the_same(pair: Tuple[Project, Project], target: str, fails: bool) -> None:
    if target in ASKS_MAKE and "OLD_MAKE" not in os.environ:
        target = "help"
    words = ["RUN=lr-1", "TRAIN_ARGS=--note \"a b\" --price $5 $(x) '#'", "DATA_STORAGE=storage:d"]
    words.append(f"PYTHON={'false' if fails else 'true'}")
    if target == "setup":
        for project in pair:
            (project.path / ".setup_done").unlink()
    replies = [Reply("", 72)] if fails else [RUNNING]

    new, old = (project.make(target, *words, replies=replies) for project in pair)

    assert (old.code == 0) is (new.code == 0)
    assert without_times(old) == without_times(new)
    assert told(old) == told(new)
    assert pair[1].files().keys() == pair[0].files().keys()


@pytest.mark.parametrize(
    "word",
    [
        *["RUN=A b", "RUN=$(shell touch CANARY)", "TRAIN_ARGS=it's", "TRAIN_CMD=", "IMAGE=a;b"],
        *["DATA_STORAGE=storage:x;touch CANARY", "PROJECT_STORAGE=$(shell touch CANARY)"],
    ],
)
def test_a_hostile_value_is_refused_the_same(pair: Tuple[Project, Project], word: str) -> None:
    new, old = (project.make("run_training", word) for project in pair)

    assert new.code != 0 and old.code != 0
    assert old.calls == new.calls == []
    assert told(old) == told(new) != []
    assert not any(project.has("CANARY") for project in pair)


def test_a_line_break_is_refused_the_same(pair: Tuple[Project, Project]) -> None:
    for project in pair:
        result = replace(project, env={"TRAIN_ARGS": "a\nb"}).make("run_training")

        assert result.code != 0
        assert result.calls == []
        assert "TRAIN_ARGS must not hold a line break" in result.err


@pytest.mark.parametrize("file", ["Makefile", "neuro.mk"])
def test_the_makefile_needs_nothing_newer(baked: Path, file: str) -> None:
    assert newer_features((baked / file).read_text()) == []


@pytest.mark.parametrize(
    ("line", "feature"),
    [
        ("X := $(file <x)", "$(file )"),
        ("all:\n\techo ${file >x,y}", "$(file )"),
        ("a b &: c", "grouped targets &:"),
        ("X ::= y", "NAME ::= value"),
        ("X :::= y", "NAME :::= value"),
        ("X != date", "NAME != command"),
        ("X!=date", "NAME != command"),
        (".ONESHELL:", "special targets and variables"),
        (".SHELLFLAGS = -ec", "special targets and variables"),
        (".EXTRA_PREREQS = x", "special targets and variables"),
        ("all: a .WAIT b", "special targets and variables"),
        ("undefine X", "undefine"),
        ("override undefine X", "undefine"),
        ("define X =\nendef", "define NAME ="),
        ("define X :=\nendef", "define NAME ="),
        ("all: private X = y", "private"),
        ("private X = y", "private"),
        ("X = $(intcmp 1,2,a)", "$(intcmp )"),
        ("X = $(let a b,$(c),d)", "$(let )"),
        ("X = $(guile x)", "$(guile )"),
        (".NOTPARALLEL: a b", ".NOTPARALLEL with targets"),
        ("all:\n\t$(MAKE) --output-sync x", "options"),
        ("load x.so", "load"),
        ("X = $(subst #,y,$(z))", "# in a call"),
        ("X = a \\\n\t$(subst #,y,$(z))", "# in a call"),
    ],
)
def test_what_is_newer_is_found(line: str, feature: str) -> None:
    assert [name for _, name in newer_features(line)] == [feature]


@pytest.mark.parametrize(
    "line",
    [
        "all: ; [ a != b ] && : ok",
        "all:\n\t[ $$x != y ]; a &: b; undefine x",
        "X := y\nX ?= y\nX += y",
        "define X\nendef",
        ".NOTPARALLEL:",
        "all: a ## help (with # signs)",
        "X = $(call f,\\#) $${\\#x}",
        "privately: x",
    ],
)
def test_what_is_old_is_not_found(line: str) -> None:
    assert newer_features(line) == []
