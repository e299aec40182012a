"""The end-to-end tests' clients and platforms."""

from __future__ import annotations

import pytest
from e2e.conftest import (
    DEADLINE,
    Render,
    client,
    engine_settings,
    lane,
    made_ready,
    make_platform,
    platform,
    render,
)
from machine import limit

from .client import Platform

__all__ = ["client", "engine_settings", "make_platform", "platform", "render"]


def pytest_itemcollected(item: pytest.Item) -> None:
    limit(item, DEADLINE)
    if "hostile" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group(f"hostile-{lane(item)}"))


@pytest.fixture
def hostile(render: Render) -> Platform:
    """A project that counts as set up, and uploads all files that it has."""
    project = made_ready(render())
    project.write(".neuroignore", "")
    return Platform(project)
