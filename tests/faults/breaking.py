"""Breaks an operation in the middle, and looks at what becomes of it."""

from __future__ import annotations

import random
from typing import Callable, Dict

from e2e.platform import Platform
from e2e.project import Project

from .line import NETWORK_TIMEOUT, Line, assert_told
from .operations import Operation
from .proxy import Fault

Make = Callable[[Line, Operation, int], Fault]

# Longer than the client waits for an answer where it waits at all.
STALL = NETWORK_TIMEOUT + 2.0


FAULTS: Dict[str, Make] = {
    "reset": lambda line, op, byte: Fault(op.pattern, after=byte),
    "502": lambda line, op, byte: Fault(op.pattern, status=502),
    "503": lambda line, op, byte: Fault(op.pattern, status=503),
    "stall": lambda line, op, byte: Fault(op.pattern, after=byte, stall=STALL),
    "expired": lambda line, op, byte: Fault(op.pattern, expired=True),
    "killed": lambda line, op, byte: Fault(op.pattern, after=byte, then=line.restart),
}


def break_and_repeat(
    line: Line, render: Callable[[Platform], Project], op: Operation, kind: str, seed: int
) -> None:
    """Fail unless the broken target tells of it, and the same target then completes.

    What the client heals by trying again may succeed at once, but then it must be complete.
    """
    byte = random.Random(seed).randint(*op.span)
    print(f"{op.target}: {kind} at byte {byte} of {op.pattern} (FAULT_SEED={seed})")
    project = line.project(render)
    project.variables.update(op.variables)
    op.prepare(project)
    fault = FAULTS[kind](line, op, byte)
    line.break_with(fault)

    broken = project.make(op.target, code=None)

    print(broken)
    assert fault.struck, "the fault met nothing"
    line.mend()
    if broken.code == 0:
        op.check(project, broken)
    else:
        assert_told(broken)
        if project.active_jobs():
            if op.target == "setup" or op.target == "run_training":
                assert "make kill" in broken.stderr, "a job is left and nobody was told"
                project.make("kill")
        if op.target == "setup":
            assert not list(project.path.glob(".setup_done*"))
    op.proceed(project)
    repeated = project.make(op.target)
    op.check(project, repeated)
    project.end_jobs()
    line.assert_nothing_left(project)
