"""Any value of the Makefile's variables is refused with a sentence, or used as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from baking import Project, plant_recorder
from hypothesis import strategies as st

from .exploring import explore
from .texts import texts
from .variables import VARIABLES, WORD_TARGETS, WORDS, Calling, Variable, strategies, traps
from .world import World


@pytest.fixture
def calling(tmp_path: Path, baked: Path) -> Calling:
    world = World(tmp_path).plant()
    path = world.work / "my-project"
    shutil.copytree(baked, path, ignore=shutil.ignore_patterns(".git"))
    plant_recorder(world.home)
    project = Project(path, world.home)
    project.mark_set_up()
    return Calling(world, project)


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: str(variable.name))
def test_any_value_of_a_variable(calling: Calling, variable: Variable) -> None:
    explore(50, calling.holds, traps(variable), **strategies(variable))

    assert calling.ended["used"] > 2
    assert calling.ended["refused"] > 2


def test_any_arguments_of_a_local_training(calling: Calling) -> None:
    # Notes its words where the recorder notes those of a call.
    (calling.project.path / "code" / "train.py").write_text(
        "import json, os, sys\n"
        "with open(os.environ['HOME'] + '/calls', 'w') as calls:\n"
        "    calls.write(json.dumps(sys.argv[1:]))\n"
    )

    explore(50, calling.holds_locally, value=texts("'a b'", '"a b"', bad_bytes=True))


def test_any_value_of_a_variable_that_is_a_word_or_a_switch(calling: Calling) -> None:
    explore(
        100,
        calling.holds_of_words,
        name=st.sampled_from(WORDS),
        value=texts("yes", "1", "cpu-small", bad_bytes=True),
        target=st.sampled_from(WORD_TARGETS),
        by_environment=st.booleans(),
    )


def test_every_variable_is_tried(calling: Calling) -> None:
    makefile = calling.project.read("Makefile")
    there = {line.split()[0] for line in makefile.splitlines() if " ?=" in line}

    # These three are shell text, and the README says so.
    assert {*WORDS, *(v.name for v in VARIABLES), "NEURO", "RUN_EXTRA", "PYTHON"} == there
