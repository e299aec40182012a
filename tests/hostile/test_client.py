"""Hostile values through both real clients, a real neuro-local and real jobs."""

from __future__ import annotations

from .client import ARGUMENTS, TRAP_ARGUMENTS, TRAP_TREE, TREES, Platform
from .exploring import explore


def test_any_arguments_reach_a_real_training(hostile: Platform) -> None:
    explore(5, hostile.argument_holds, [{"value": TRAP_ARGUMENTS}], value=ARGUMENTS)

    assert hostile.ended["used"] > 0


def test_files_of_any_name_go_to_storage_and_come_home(hostile: Platform) -> None:
    explore(5, hostile.tree_holds, [{"tree": TRAP_TREE}], tree=TREES)

    assert hostile.ended == {"used": 6}
