"""Ctrl-C in neuro-local's own commands: they end at once, without a traceback."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from .commands import wait_until
from .platform import Platform

INTERRUPTED = 130


@pytest.fixture
def silent_engine() -> Iterator[str]:
    """The address of an engine that never answers."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/docker.sock")
        listener.listen()
        yield f"unix://{folder}/docker.sock"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path / "platform", settings={"NEURO_LOCAL_ENGINE": "sandbox"})
    yield platform
    platform.down()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_interrupted_up_leaves_no_server(tmp_path: Path, silent_engine: str) -> None:
    settings = {"NEURO_LOCAL_ENGINE": "docker", "DOCKER_HOST": silent_engine}
    platform = Platform(tmp_path / "platform", settings=settings)
    lock = platform.state / "lock"

    with platform.start_neuro_local("up") as up:
        wait_until(lambda: lock.exists() and lock.read_text(), "the server is on its way")
        pid = platform.pid
        up.signal(signal.SIGINT)
        result = up.wait(INTERRUPTED)

    assert result.stderr == ""
    assert not is_alive(pid)
    platform.neuro_local("status", code=1)


def test_interrupted_down_says_nothing_of_ours(instance: Platform) -> None:
    instance.neuro_local("up")
    pid = instance.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with instance.start_neuro_local("down") as down:
            wait_until(lambda: _is_asked_to_end(pid), "the server is told to stop")
            down.signal(signal.SIGINT)
            assert down.wait(INTERRUPTED).stderr == ""
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not is_alive(pid), "the server has stopped all the same")


def test_interrupted_logs_are_quiet(instance: Platform) -> None:
    instance.neuro_local("up")
    with open(instance.state / "server.log", "a") as log:
        log.write("more than a terminal takes at once\n" * 100_000)

    with instance.neuro_local_at_terminal("logs") as terminal:
        terminal.wait_for("more than")
        terminal.type("\x03")
        assert "Traceback" not in terminal.wait(INTERRUPTED)


def _is_asked_to_end(pid: int) -> bool:
    """Whether SIGTERM waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    waiting = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(waiting.split()[1], 16) & 1 << (signal.SIGTERM - 1))
