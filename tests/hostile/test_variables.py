"""Any value of the Makefile's variables is refused with a sentence, or used as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from baking import Project, plant_recorder
from hypothesis import strategies as st

from .exploring import explore
from .texts import texts
from .variables import SWITCHES, VARIABLES, WORDS, Calling, Variable, strategies, traps
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


def test_any_value_of_a_variable_that_is_one_word(calling: Calling) -> None:
    explore(
        100,
        calling.holds_of_word,
        value=st.one_of(
            texts("cpu-small", "1d", "image:x", bad_bytes=True),
            st.from_regex(r"[a-z0-9@:/._=+][a-z0-9@:/._=+-]{0,9}", fullmatch=True),
            st.sampled_from(["", " ", "--privileged", "x --volume storage:x:/x", " x", "a\tb"]),
        ),
        name=st.sampled_from(sorted(WORDS)),
        target=st.integers(0, 3),
        by_environment=st.booleans(),
    )

    assert calling.ended["used"] > 10
    assert calling.ended["refused"] > 10


def test_any_value_of_a_switch(calling: Calling) -> None:
    explore(
        50,
        calling.holds_of_switch,
        value=st.one_of(
            texts("yes", "1", bad_bytes=True),
            st.sampled_from(["", "0", "1", "yes", "no", "true", "--http-auth", "--no-http-auth"]),
        ),
        name=st.sampled_from(sorted(SWITCHES)),
        target=st.integers(0, 1),
        by_environment=st.booleans(),
    )

    assert calling.ended["used"] > 5
    assert calling.ended["refused"] > 5


def test_every_variable_is_tried(calling: Calling) -> None:
    makefile = calling.project.read("Makefile")
    there = {line.split()[0] for line in makefile.splitlines() if " ?=" in line}

    # These three are shell text, and the README says so.
    assert {
        *WORDS,
        *SWITCHES,
        *(v.name for v in VARIABLES),
        "NEURO",
        "RUN_EXTRA",
        "PYTHON",
    } == there
