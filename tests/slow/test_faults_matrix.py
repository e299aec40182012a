"""Every operation, every fault, both clients, at random places; and a tree of files through ten
interruptions.

FAULT_ROUNDS (6) is how many faults each operation meets with each client, of six kinds in turn;
FAULT_INTERRUPTIONS (10) how many interruptions the tree meets in the middle of a transfer;
FAULT_SEED makes a run's choices again.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Dict

import pytest
from e2e.conftest import Render
from e2e.project import Project
from faults.breaking import FAULTS, break_and_repeat
from faults.line import Line, seed
from faults.operations import OPERATIONS, Operation
from faults.proxy import Fault

pytest_plugins = ["faults.conftest"]

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "6"))
INTERRUPTIONS = int(os.environ.get("FAULT_INTERRUPTIONS", "10"))
KINDS = sorted(FAULTS)

FILES = 1000
LARGE = 64 * 2**20
# What is new before each further interruption, or there would soon be nothing left to break.
MORE_FILES = 100
MORE_LARGE = 8 * 2**20
# How many may miss, for each that must not: moments and bytes are chosen blindly.
TRIES = 4


@pytest.mark.parametrize("round", range(ROUNDS))
@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_broken_target_says_so_and_completes_when_repeated(
    line: Line, render: Render, op: Operation, round: int
) -> None:
    # Another kind for the next operation, so that a single round has all of them.
    first = OPERATIONS.index(op) + 3 * (line.platform.client.package == "neuromation")
    break_and_repeat(line, render, op, KINDS[(first + round) % len(KINDS)], seed())


@pytest.mark.parametrize("target", ["upload_data", "download_results"])
def test_tree_that_is_interrupted_again_and_again_arrives_byte_identical(
    line: Line, render: Render, target: str
) -> None:
    number = seed()
    print(f"FAULT_SEED={number}")
    chance = random.Random(number)
    project = line.project(render)
    there, here = project.storage("data"), project.path / "data"
    if target == "download_results":
        there, here = project.path / "results", project.storage("results")
    plant(here / "first", chance, FILES, LARGE)

    struck = tries = 0
    while struck < INTERRUPTIONS and tries < TRIES * INTERRUPTIONS:
        struck += interrupt(line, project, target, chance)
        tries += 1
        plant(here / f"more-{tries}", chance, MORE_FILES, MORE_LARGE)
    print(f"{struck} of {tries} interruptions struck")
    assert struck >= INTERRUPTIONS
    line.mend()
    project.make(target, timeout=300)

    assert checksums(there) == checksums(here)
    line.assert_nothing_left(project)


def plant(folder: Path, chance: random.Random, files: int, large: int) -> None:
    """Write files, an hour old: what is as new as its copy is copied again each time."""
    hour_ago = time.time() - 3600
    for number in range(files):
        path = folder / f"{number % 10}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(1, 2000)))
        os.utime(path, (hour_ago, hour_ago))
    (folder / "large.bin").write_bytes(chance.randbytes(large))
    os.utime(folder / "large.bin", (hour_ago, hour_ago))


def interrupt(line: Line, project: Project, target: str, chance: random.Random) -> bool:
    """Break the target off at a random moment, or its connections at a random byte; return whether
    that hit a target at work, or bytes on their way."""
    kind = chance.choice(["Ctrl-C", "killed", "reset"])
    moment = chance.uniform(0.5, 3.0)
    print(f"{target}: {kind} after {moment:.2f} s")
    if kind == "reset":
        # In turn where also a small file has its bytes, its head and its answer's.
        byte = chance.randrange(1, chance.choice([1_500, 500_000]))
        # More resets than the client tries again.
        fault = Fault(r"op=(CREATE|WRITE|OPEN)", after=byte, times=40)
        line.break_with(fault)
        project.make(target, code=None, timeout=300)
        line.mend()
        print(f"{fault.struck} resets after {byte} bytes")
        return fault.struck > 0
    number = signal.SIGINT if kind == "Ctrl-C" else signal.SIGKILL
    with project.start(target) as command:
        time.sleep(moment)
        command.signal(number)
        return command.wait(code=None).code != 0


def checksums(folder: Path) -> Dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".gitkeep"
    }
