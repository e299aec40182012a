"""A client, a proxy that breaks its connections, and an instance of neuro-local behind it."""

from __future__ import annotations

from typing import Callable, Iterator

import pytest
from e2e.conftest import (
    DEADLINE,
    client,
    engine_settings,
    lane,
    make_platform,
    platform,
    render,
)
from e2e.platform import Platform
from machine import limit

from .line import Line, environment
from .proxy import Proxy

__all__ = ["client", "engine_settings", "make_platform", "platform", "render"]


def pytest_itemcollected(item: pytest.Item) -> None:
    limit(item, DEADLINE)
    # They kill the server that they share.
    if "line" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group(f"line-{lane(item)}"))


@pytest.fixture(scope="session")
def behind(
    make_platform: Callable[..., Platform], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Line]:
    platform = make_platform()
    proxy = Proxy(int(platform.url.rpartition(":")[2])).start()
    folder = tmp_path_factory.mktemp("behind the proxy")
    yield Line(platform, proxy, environment(platform, proxy, folder))
    proxy.stop()


@pytest.fixture
def line(behind: Line) -> Iterator[Line]:
    """An unbroken way from a client to its platform, which runs."""
    if not behind.platform.answers:
        behind.platform.up()
    yield behind
    behind.mend()
    behind.platform.end_jobs()
