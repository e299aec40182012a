"""The unit tests with other versions of the tools that users have."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

import pytest
from locking import locked
from machine import impossible
from tools.pythons import OLDEST, RUNNING, pythons

ROOT = Path(__file__).parents[2]
# Beside the developers' own environment, so that `make clean` takes them along.
ENVIRONMENTS = Path(sys.prefix) / "tools"

# The oldest 2.x on PyPI, and the first whose hooks learn what an answer was before it was rendered.
COOKIECUTTERS = ["2.1.0", "2.2.0"]
PYTHONS = {version: program for version, program in pythons().items() if version != RUNNING}

# neuro-local needs Python 3.10, and has nothing to do with cookiecutter.
TEMPLATE = ["tests/unit", "--ignore=tests/unit/neuro_local"]

pytestmark = pytest.mark.timeout(1200)


def environment(name: str, python: str, constraints: List[str], *packages: str) -> Path:
    """Return the programs of an environment with these packages, which is made once."""
    folder = ENVIRONMENTS / name
    ENVIRONMENTS.mkdir(exist_ok=True)
    # One at a time: each with neuro-local in it writes to the same egg-info.
    with locked(ENVIRONMENTS / "lock"):
        made_of, done = "\n".join([*constraints, *packages]), folder / "done"
        if not done.exists() or done.read_text() != made_of:
            subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
            (folder / "constraints.txt").write_text("\n".join(constraints))
            command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            command += ["--constraint", str(folder / "constraints.txt")]
            command += ["--config-settings", "editable_mode=compat", *packages]
            if subprocess.run(command, cwd=ROOT).returncode != 0:
                impossible(f"{name} cannot be installed here; pip says why")
            # Where the tests look for the older client, which has a Python of its own.
            (folder / "neuromation").symlink_to(Path(sys.prefix) / "neuromation")
            done.write_text(made_of)
    return folder / "bin"


def with_cookiecutter(version: str) -> Path:
    pinned = [pin for pin in lines("constraints.txt") if not pin.startswith("cookiecutter==")]
    packages = ["--editable", ".[demo,dev]", f"cookiecutter=={version}"]
    return environment(f"cookiecutter-{version}", sys.executable, pinned, *packages)


def with_python(version: str) -> Path:
    if version == "3.9":
        pinned = lines("tests/tools/constraints-python3.9.txt")
        packages = [pin.partition("==")[0] for pin in pinned if "==" in pin]
    else:
        pinned, packages = lines("constraints.txt"), ["--editable", ".[demo,dev]"]
    return environment(f"python-{version}", PYTHONS[version], pinned, *packages)


def lines(name: str) -> List[str]:
    return (ROOT / name).read_text().splitlines()


def run_tests(bin: Path, *tests: str) -> None:
    """Fail unless the tests pass in that environment."""
    # No fixture's folder: with that a test's own would be too long for a socket's name.
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "-o", f"cache_dir={folder}/cache", "--basetemp", f"{folder}/tests"]
        done = subprocess.run(
            [str(bin / "python"), "-m", "pytest", *options, *tests],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    assert done.returncode == 0, done.stdout
    print(done.stdout)


def test_the_oldest_python_is_tried() -> None:
    if f"{OLDEST[0]}.{OLDEST[1]}" not in pythons():
        impossible("without an older Python on this machine its newest is all that is tested")


@pytest.mark.parametrize("version", PYTHONS)
def test_the_unit_tests_pass_on_another_python(version: str) -> None:
    # No Docker engine, which takes longest and does not depend on it.
    tests = ["tests/unit", "-k", "not docker"]
    if version == "3.9":
        # The clients cannot be had for it, so their options are not looked up.
        tests = [*TEMPLATE, "-k", "not every_option"]

    run_tests(with_python(version), *tests)


@pytest.mark.parametrize("version", COOKIECUTTERS)
def test_the_unit_tests_pass_on_an_older_cookiecutter(version: str) -> None:
    run_tests(with_cookiecutter(version), *TEMPLATE)


@pytest.mark.parametrize("version", COOKIECUTTERS)
def test_hostile_answers_are_harmless_on_an_older_cookiecutter(version: str) -> None:
    # The oldest has an answer of --no-input rendered without telling the hooks.
    told = ["-k", "not takes_for_a_template"] if version == "2.1.0" else []

    run_tests(with_cookiecutter(version), "tests/hostile/test_answers.py", *told)


@pytest.mark.parametrize("version", COOKIECUTTERS[:1])
def test_the_oldest_cookiecutter_renders_the_same_bytes(
    version: str, baked: Path, tmp_path: Path
) -> None:
    """So what is tested of the Makefile end to end holds for it as well."""
    python = with_cookiecutter(version) / "python"
    command = [str(python), "-m", "cookiecutter", "--no-input", "-o", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, env={**os.environ, "HOME": str(tmp_path)})

    assert files(tmp_path / "my-project") == files(baked)


def files(folder: Path) -> Dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }
