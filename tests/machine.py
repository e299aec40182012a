"""What a test does on a machine that cannot run it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def impossible(reason: str) -> NoReturn:
    """Skip what this machine cannot do; on CI, where it must, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
