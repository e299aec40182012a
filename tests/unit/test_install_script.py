"""requirements/install.sh, with a recording apt-get and python in place of the real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import List

import pytest
from baking import plant_recorder

UPDATE = ["apt-get", "update"]
INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends"]
PIP = ["python", "-m", "pip", "install", "--quiet", "--requirement", "pip.txt"]


@dataclass
class Script:
    requirements: Path
    bin: Path
    shell: str
    user: int = 0

    def run(self, apt: bytes, pip: bytes, failing: str = "") -> subprocess.CompletedProcess[str]:
        (self.requirements / "apt.txt").write_bytes(apt)
        (self.requirements / "pip.txt").write_bytes(pip)
        for name in ("apt-get", "python"):
            plant_recorder(self.bin / name, name)
            reply = {"words": [failing], "code": 9, "out": "", "err": "", "sh": ""}
            (self.bin / name / "replies").write_text(json.dumps([reply] if failing else []))
        (self.bin / "id").write_text(f"#!/bin/sh\necho {self.user}\n")
        (self.bin / "id").chmod(0o755)
        folders = [self.bin, self.bin / "apt-get", self.bin / "python", os.environ["PATH"]]
        return subprocess.run(
            [str(shutil.which(self.shell)), str(self.requirements / "install.sh")],
            env={"PATH": os.pathsep.join(map(str, folders))},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    def calls(self) -> List[List[str]]:
        return [
            [name, *json.loads(line)]
            for name in ("apt-get", "python")
            for line in (self.bin / name / "calls").read_text().splitlines()
        ]


@pytest.fixture
def script(baked: Path, tmp_path: Path, shell: str) -> Script:
    requirements = tmp_path / "a project" / "requirements"
    shutil.copytree(baked / "requirements", requirements)
    return Script(requirements, tmp_path / "bin", shell)


def test_both_lists_are_installed(script: Script) -> None:
    done = script.run(b"git\nlibgl1 curl\n", b"numpy\n")

    assert done.returncode == 0, done.stderr
    assert script.calls() == [UPDATE, [*INSTALL, "git", "libgl1", "curl"], PIP]


@pytest.mark.parametrize(
    "apt",
    [
        b"# tools\r\ngit # to clone\r\n\r\n   \r\nlibgl1=1.*\r\n",
        b"git\n\n#curl\n  libgl1=1.*",
    ],
)
def test_comments_blank_lines_and_windows_line_ends(script: Script, apt: bytes) -> None:
    assert script.run(apt, b"numpy\r\n").returncode == 0

    assert script.calls() == [UPDATE, [*INSTALL, "git", "libgl1=1.*"], PIP]


@pytest.mark.parametrize("apt", [b"", b"# nothing\r\n\r\n", b"\n \t\n"])
def test_an_empty_list_of_packages_needs_no_apt(script: Script, apt: bytes) -> None:
    script.user = 1000

    assert script.run(apt, b"numpy\n").returncode == 0

    assert script.calls() == [PIP]


@pytest.mark.parametrize("pip", [b"", b"# nothing\r\n\r\n"])
def test_an_empty_list_of_modules_needs_no_pip(script: Script, pip: bytes) -> None:
    assert script.run(b"git", pip).returncode == 0

    assert script.calls() == [UPDATE, [*INSTALL, "git"]]


def test_packages_without_root_are_refused_in_one_sentence(script: Script) -> None:
    script.user = 1000

    done = script.run(b"git\ncurl\n", b"numpy\n")

    assert done.returncode == 1
    assert script.calls() == []
    assert done.stderr.count("\n") == 1
    assert "apt packages (git curl) need root in the job" in done.stderr
    assert "empty requirements/apt.txt" in done.stderr


@pytest.mark.parametrize(
    ("failing", "calls"),
    [("update", 1), ("install", 2)],
)
def test_a_failing_step_ends_it(script: Script, failing: str, calls: int) -> None:
    assert script.run(b"git", b"numpy", failing).returncode == 9

    assert len(script.calls()) == calls


def test_pips_failure_is_the_scripts(script: Script) -> None:
    assert script.run(b"", b"numpy", "pip").returncode == 9
