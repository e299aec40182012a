"""A connection that breaks in the middle of a target: told in a sentence, and the same target
completes afterwards. All pairs with both clients, at more places, are in tests/slow."""

from __future__ import annotations

from typing import Callable

import pytest
from clients import APOLO, CLIENTS, NEUROMATION
from e2e.commands import Result
from e2e.conftest import Render
from e2e.project import Project

from .breaking import break_and_repeat
from .line import Line, assert_told, seed
from .operations import (
    LINES,
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
    Watch,
    numbers,
)
from .proxy import Fault


@pytest.mark.parametrize(
    ("client", "op", "kind"),
    [
        (APOLO, Upload(), "reset"),
        (APOLO, Download(), "stall"),
        (APOLO, Setup(), "503"),
        (APOLO, Save(), "killed"),
        (APOLO, Run(), "502"),
        (APOLO, Watch(), "reset"),
        (NEUROMATION, Watch(), "stall"),
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


@pytest.mark.parametrize("client", CLIENTS, indirect=True, ids=str)
@pytest.mark.parametrize("target", ["logs_training", "run_training"])
def test_log_that_breaks_off_as_its_training_ends_is_completed_or_told(
    line: Line, render: Render, target: str
) -> None:
    """The newer client takes it for the log's end."""
    op = Logs() if target == "logs_training" else Watch()
    project = line.project(render)
    op.prepare(project)
    wait = "while [ ! -e ../results/go ]; do sleep 0.1; done"
    project.variables.update(op.variables, TRAIN_CMD=f"sh -c 'seq 1 {LINES}; {wait}'")

    def let_go() -> None:
        op.proceed(project)
        project.store("results/go", "")

    broken = broken_at_the_end(line, project, op, let_go)

    if broken.code == 0:
        assert numbers(broken) == list(range(1, LINES + 1))
    else:
        assert len(numbers(broken)) < LINES
        assert_told(broken)
    assert numbers(project.make("logs_training")) == list(range(1, LINES + 1))


def broken_at_the_end(
    line: Line, project: Project, op: Operation, let_go: Callable[[], object]
) -> Result:
    """Break the target's log in the middle at the moment in which the training has ended."""

    def end() -> None:
        let_go()
        project.wait_for("training", "succeeded")

    fault = Fault(op.pattern, after=50_000, then=end)
    line.break_with(fault)
    broken = project.make(op.target, code=None)
    assert fault.struck, "the fault met nothing"
    line.mend()
    return broken
