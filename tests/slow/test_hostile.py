"""The properties of tests/hostile with larger budgets. HOSTILE_SEED=7 tries other examples."""

from __future__ import annotations

import pytest
from hostile.answers import ANSWERS, Rendering
from hostile.client import ARGUMENTS, TREES, Platform
from hostile.conftest import client, engine_settings, hostile, make_platform, platform, render
from hostile.exploring import explore
from hostile.test_answers import rendering
from hostile.test_lists import LISTS, Installing, installing
from hostile.test_variables import calling
from hostile.variables import VARIABLES, Calling, Variable, strategies
from hypothesis import strategies as st

__all__ = ["calling", "client", "hostile", "installing", "make_platform", "platform", "render"]
__all__ += ["engine_settings", "rendering"]

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("question", ANSWERS)
def test_hundreds_of_answers(rendering: Rendering, question: str) -> None:
    explore(
        400,
        rendering.holds,
        given=st.fixed_dictionaries({question: ANSWERS[question]}),
        typed=st.booleans(),
    )


@pytest.mark.parametrize("variable", VARIABLES, ids=str)
def test_hundreds_of_values(calling: Calling, variable: Variable) -> None:
    explore(200, calling.holds, (), **strategies(variable))


def test_hundreds_of_lists(installing: Installing) -> None:
    explore(200, installing.holds, apt=LISTS, pip=LISTS)


def test_more_arguments_reach_a_real_training(hostile: Platform) -> None:
    explore(12, hostile.argument_holds, value=ARGUMENTS)


def test_more_files_of_any_name_go_to_storage_and_come_home(hostile: Platform) -> None:
    explore(10, hostile.tree_holds, tree=TREES)
