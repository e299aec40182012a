"""A connection that breaks in the middle of a target: told in a sentence, and the same target
completes afterwards. All pairs with both clients, at more places, are in tests/slow."""

from __future__ import annotations

import pytest
from clients import APOLO, NEUROMATION
from e2e.conftest import Render

from .breaking import break_and_repeat
from .line import Line, seed
from .operations import (
    Download,
    EndedLogs,
    Exec,
    Kill,
    Logs,
    Operation,
    Run,
    Save,
    Setup,
    Upload,
)


@pytest.mark.parametrize(
    ("client", "op", "kind"),
    [
        (APOLO, Upload(), "reset"),
        (APOLO, Download(), "stall"),
        (APOLO, Setup(), "503"),
        (APOLO, Save(), "killed"),
        (APOLO, Run(), "502"),
        (NEUROMATION, Exec(), "reset"),
        (NEUROMATION, Logs(), "reset"),
        (APOLO, EndedLogs(), "reset"),
        (NEUROMATION, Kill(), "expired"),
    ],
    indirect=["client"],
    ids=str,
)
def test_broken_target_says_so_and_completes_when_repeated(
    line: Line, render: Render, op: Operation, kind: str
) -> None:
    break_and_repeat(line, render, op, kind, seed())
