"""Any line of apt.txt and pip.txt is refused with a sentence, or installed as it is."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import List

import pytest
from baking import Project, Reply, plant_recorder
from hypothesis import strategies as st
from installing import INSTALL, PIP, UPDATE, Script

from .exploring import explore
from .texts import TRAPS, texts
from .world import World

REFUSAL = "apt.txt must list Debian packages"
PACKAGE = re.compile(rb"[a-z0-9]([A-Za-z0-9.+:=~/*_-]*[A-Za-z0-9.+:=~/*_])?")

PACKAGES = st.lists(st.sampled_from(["git", "libgl1", "g++", "git=1:2.39*", "# x", ""]), max_size=4)
LISTS = st.one_of(
    texts("git", "# why", "\r\n", "\n", "-o", bad_bytes=True).map(
        lambda text: text.encode(errors="surrogateescape")
    ),
    PACKAGES.map(lambda words: "\r\n".join(words).encode()),
    st.binary(max_size=20),
)


def packages(apt: bytes) -> List[bytes]:
    """The words of the list without its comments."""
    lines = [line[:-1] if line.endswith(b"\r") else line for line in apt.split(b"\n")]
    return [word for line in lines for word in re.split(rb"[ \t]+", line.split(b"#")[0]) if word]


@dataclass(frozen=True)
class Installing:
    world: World
    script: Script

    def holds(self, apt: bytes, pip: bytes) -> None:
        """Refused before anything is installed, or handed on word by word."""
        before = self.world.files(self.script.bin, self.script.requirements)

        done = self.script.run(apt, pip)

        assert self.world.canaries() == []
        assert self.world.files(self.script.bin, self.script.requirements) == before
        assert (self.script.requirements / "pip.txt").read_bytes() == pip
        words = packages(apt)
        if all(PACKAGE.fullmatch(word) for word in words):
            assert done.returncode == 0, done.stderr
            calls = [UPDATE, [*INSTALL, *(word.decode() for word in words)]] if words else []
            assert [call for call in self.script.calls() if call[0] != "python"] == calls
            assert [call for call in self.script.calls() if call[0] == "python"] in ([PIP], [])
            assert PIP in self.script.calls() or not packages(pip)
        else:
            assert done.returncode == 1
            assert self.script.calls() == []
            assert REFUSAL in done.stderr


@pytest.fixture
def installing(tmp_path: Path, baked: Path, shell: str) -> Installing:
    world = World(tmp_path).plant()
    requirements = world.work / "requirements"
    shutil.copytree(baked / "requirements", requirements)
    return Installing(world, Script(requirements, world.root / "bin", shell))


def test_any_lists(installing: Installing) -> None:
    traps = ({"apt": trap.encode(), "pip": trap.encode()} for trap in TRAPS)

    explore(60, installing.holds, traps, apt=LISTS, pip=LISTS)


@pytest.mark.parametrize(
    "line", ["$(touch CANARY)", "-oDPkg::Pre-Invoke::=touch", "git; touch CANARY"]
)
def test_setup_refuses_a_list_before_any_call(tmp_path: Path, baked: Path, line: str) -> None:
    shutil.copytree(baked, tmp_path / "project")
    plant_recorder(tmp_path / "bin")
    project = Project(tmp_path / "project", tmp_path / "bin")
    (project.path / "requirements" / "apt.txt").write_text(f"git\n{line}\n")

    result = project.make("setup", replies=[Reply("--quiet ps")])

    assert result.code != 0
    assert result.calls == []
    assert REFUSAL in result.err
    assert "setup: failed while reading requirements/" in result.err
    assert not project.has(".setup_done")
