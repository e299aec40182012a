"""The template's unit tests with other versions of the tools that users have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import impossible

ROOT = Path(__file__).parents[2]
# Beside the developers' own environment, so that `make clean` takes them along.
ENVIRONMENTS = Path(sys.prefix) / "tools"

# The oldest 2.x on PyPI, and the first whose hooks learn what an answer was before it was rendered.
COOKIECUTTERS = ["2.1.0", "2.2.0"]
TESTS = ["test_hooks.py", "test_prompts.py", "test_tree.py", "test_rendered_readme.py"]
TESTS += ["test_rendered_quality.py", "test_install_script.py"]

# One worker makes the environments.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("cookiecutter")]


def environment(cookiecutter: str) -> Path:
    """Make it once: this cookiecutter, and the unit tests' tools as constraints.txt pins them."""
    folder = ENVIRONMENTS / f"cookiecutter-{cookiecutter}"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pinned = (ROOT / "constraints.txt").read_text().splitlines()
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(p for p in pinned if not p.startswith("cookiecutter==")))
        tools = ["flake8", "pytest", "pytest-cookies", "pytest-timeout"]
        tools += ["pytest-asyncio", "pytest-xdist", f"cookiecutter=={cookiecutter}"]
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        done = subprocess.run([*install, "--constraint", str(constraints), *tools])
        if done.returncode != 0:
            impossible(f"cookiecutter {cookiecutter} cannot be installed here; pip says why")
        (folder / "done").touch()
    return folder


@pytest.mark.parametrize("version", COOKIECUTTERS)
def test_the_unit_tests_pass_on_an_older_cookiecutter(version: str, tmp_path: Path) -> None:
    bin = environment(version) / "bin"
    options = ["--quiet", "-o", f"cache_dir={tmp_path}", "--basetemp", str(tmp_path / "tests")]

    done = subprocess.run(
        [str(bin / "python"), "-m", "pytest", *options, *(f"tests/unit/{test}" for test in TESTS)],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", COOKIECUTTERS[:1])
def test_the_oldest_cookiecutter_renders_the_same_bytes(
    version: str, baked: Path, tmp_path: Path
) -> None:
    """So what is tested of the Makefile holds for it as well."""
    python = environment(version) / "bin" / "python"
    command = [str(python), "-m", "cookiecutter", "--no-input", "-o", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, env={**os.environ, "HOME": str(tmp_path)})

    assert _files(tmp_path / "my-project") == _files(baked)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }
