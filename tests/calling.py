"""Runs commands of this machine that tests stand on, and turns a failure into a line."""

from __future__ import annotations

import os
import subprocess

# Not in every user's PATH.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"

# How long one may take: they fetch and build. Seconds.
DEADLINE = 900


class CommandFailed(Exception):
    """One line that says what failed, and why."""


def call(*command: str, data: bytes = b"") -> str:
    """Return what a command prints that reads the data. Raises CommandFailed."""
    # Debian has docker's own builder only.
    environ = {**os.environ, "PATH": PATH, "LC_ALL": "C", "DOCKER_BUILDKIT": "0"}
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, env=environ, timeout=DEADLINE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{command[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        reason = " | ".join(said[-3:]) or f"exit code {done.returncode}"
        raise CommandFailed(f"{' '.join(command[:4])}: {reason}")
    return done.stdout.decode(errors="replace")


def attempt(*command: str) -> bool:
    """Whether the command succeeded."""
    try:
        call(*command)
        return True
    except CommandFailed:
        return False
