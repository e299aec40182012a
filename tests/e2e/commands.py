"""Runs commands as a user does: in the foreground, in the background, at a terminal."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import tempfile
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Callable, Mapping, Optional, Sequence, Type, TypeVar

import pytest

T = TypeVar("T")

TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?: .*\n)+")
# The older client leaves some of its own, on Python 3.10 and later, when it is interrupted.
FOREIGN = "/site-packages/neuromation/"


def wait_until(condition: Callable[[], T], what: str, timeout: float = 30.0) -> T:
    """Return the first true value of `condition`; fail with a sentence when none comes."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s in vain until {what}", pytrace=False)
        time.sleep(0.01)
    return value


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    command: str
    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return (
            f"$ {self.command}\nexit code {self.code}\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )

    def expect(self, code: Optional[int]) -> Result:
        """Fail unless this is the exit code; None accepts any."""
        if code is not None and self.code != code:
            pytest.fail(f"expected exit code {code}\n{self}", pytrace=False)
        return self

    def explains(self, sentence: str) -> Result:
        """Fail unless stderr holds the sentence, and no traceback is in sight."""
        if sentence not in self.stderr:
            pytest.fail(f"expected on stderr: {sentence}\n{self}", pytrace=False)
        if any(FOREIGN not in trace for trace in TRACEBACK.findall(self.stdout + self.stderr)):
            pytest.fail(f"expected no traceback\n{self}", pytrace=False)
        return self


class Command:
    """A running command in a session of its own; its end takes all of its processes along."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.command = shlex.join(words)
        self._stdout = tempfile.TemporaryFile()
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            start_new_session=True,
        )

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._stdout.close()
        self._stderr.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def stdout(self) -> str:
        return _content(self._stdout.fileno())

    @property
    def stderr(self) -> str:
        return _content(self._stderr.fileno())

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the command, as the terminal's Ctrl-C does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Return once the command has said this on stdout; fail when it ends without."""

        def said() -> bool:
            over = self.ended
            if text in self.stdout:
                return True
            if over:
                pytest.fail(f"it never said {text!r}\n{self._result()}", pytrace=False)
            return False

        wait_until(said, f"`{self.command}` says {text!r}", timeout)

    def wait(self, code: Optional[int] = 0, timeout: float = 60.0) -> Result:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {timeout:g} s\n{self._result()}", pytrace=False)
        return self._result().expect(code)

    def _result(self) -> Result:
        code = self._process.returncode
        return Result(self.command, -1 if code is None else code, self.stdout, self.stderr)


def run(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    code: Optional[int] = 0,
    timeout: float = 60.0,
) -> Result:
    with Command(words, cwd=cwd, env=env) as command:
        return command.wait(code, timeout)


class Terminal:
    """A command at a terminal: what the test types, and what appears."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        height: int = 24,
        width: int = 80,
    ) -> None:
        self.command = shlex.join(words)
        self._shown = b""
        self._read_to = 0
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**env, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    @property
    def screen(self) -> str:
        """All that has appeared."""
        return self._shown.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, timeout: float = 30.0) -> None:
        """Return once this has appeared after whatever was waited for before."""
        deadline = time.monotonic() + timeout
        while (found := self._shown.find(text.encode(), self._read_to)) < 0:
            if time.monotonic() > deadline or not self._show():
                pytest.fail(f"{text!r} did not appear\n{self}", pytrace=False)
        self._read_to = found + len(text.encode())

    def wait(self, code: Optional[int] = 0, timeout: float = 30.0) -> str:
        """Return all that appeared, once the command has ended with this exit code."""
        deadline = time.monotonic() + timeout
        while self._show():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not end within {timeout:g} s\n{self}", pytrace=False)
        ended = self._process.wait(timeout)
        if code is not None and ended != code:
            pytest.fail(f"expected exit code {code}, not {ended}\n{self}", pytrace=False)
        return self.screen

    def __str__(self) -> str:
        return f"$ {self.command}\n--- terminal\n{self.screen}"

    def _show(self) -> bool:
        """Take what has appeared; False once nobody is left to write."""
        if not select.select([self._master], [], [], 0.05)[0]:
            return True
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # how Linux says that the last writer has gone
            return False
        self._shown += piece
        return bool(piece)


def _content(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace")
