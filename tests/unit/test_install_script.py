"""What requirements/install.sh calls, on success and on failure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installing import INSTALL, PIP, UPDATE, Script


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


@pytest.mark.parametrize(
    "apt",
    [
        b"git\n-o Dpkg::Pre-Install-Pkgs::=x\n",
        b"--allow-unauthenticated",
        b"git-",
        b"./x.deb",
        b"Git",
        b"git;id",
        b"$(id)",
        b"gi\rt",
        b"gi\0t",
        b"gi\xfft",
    ],
)
@pytest.mark.parametrize("task", ["", "check"])
def test_what_is_no_package_is_refused_before_any_call(
    script: Script, apt: bytes, task: str
) -> None:
    done = script.run(apt, b"numpy", task=task)

    assert done.returncode == 1
    assert script.calls() == []
    assert "apt.txt must list Debian packages" in done.stderr


def test_a_comment_may_be_in_any_encoding(script: Script) -> None:
    assert script.run("git # für alle\n".encode("latin-1"), b"").returncode == 0

    assert script.calls() == [UPDATE, [*INSTALL, "git"]]


@pytest.mark.parametrize("word", ["g++", "libc6:amd64", "git=1:2.39.5-0+deb12u2~x", "git/stable"])
def test_packages_as_apt_names_them(script: Script, word: str) -> None:
    assert script.run(word.encode(), b"").returncode == 0

    assert script.calls() == [UPDATE, [*INSTALL, word]]


def test_a_check_installs_nothing(script: Script) -> None:
    assert script.run(b"git\n", b"numpy\n", task="check").returncode == 0

    assert script.calls() == []
