"""What a test does on a machine that cannot run it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import Iterator, NoReturn

import pytest


def impossible(reason: str) -> NoReturn:
    """Skip what this machine cannot do; on CI, where it must, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def limit(item: pytest.Item, seconds: float) -> None:
    """Give a test a time limit, unless it or its module has one of its own."""
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(seconds))


@contextmanager
def untimed() -> Iterator[None]:
    """For what is made once for many tests: the first one's time limit (pytest-timeout, which
    takes this timer) stands still meanwhile."""
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
