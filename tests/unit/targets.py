"""What the tests of the Makefile's targets share: the usual words of their calls."""

from __future__ import annotations

import re

from baking import TEMPLATE, Project

EXCLUDED = [
    f"--exclude={line}"
    for line in (TEMPLATE / "{{cookiecutter.project_slug}}/.neuroignore").read_text().splitlines()
    if line and not line.startswith("#")
]
MOUNTS = [
    *["--volume", "storage:my-project/data:/project/data:ro"],
    *["--volume", "storage:my-project/code:/project/code:ro"],
    *["--volume", "storage:my-project/notebooks:/project/notebooks:rw"],
]
TAG = ["--tag", "project:my-project"]
ROOT = "storage:my-project"
TRAIN = "python -u train.py --data ../data --results ../results"
REMOTE = [
    "check",
    "login",
    "setup",
    "upload_code",
    "clean_code",
    "upload_data",
    "clean_data",
    "upload_notebooks",
    "clean_notebooks",
    "upload",
    "clean",
    "download_notebooks",
    "download_results",
    "clean_results",
    "run_training",
    "kill_training",
    "logs_training",
    "run_jupyter",
    "kill_jupyter",
    "run_tensorboard",
    "kill_tensorboard",
    "run_filebrowser",
    "kill_filebrowser",
    "run_develop",
    "port_forward_develop",
    "kill_develop",
    "kill",
    "ps",
]


def no_stamp(project: Project) -> None:
    (project.path / ".setup_done").unlink()


def sentence(text: str) -> str:
    """The last line that make itself did not write."""
    return [line for line in text.splitlines() if not re.match(r"make(\[\d\])?: ", line)][-1]
