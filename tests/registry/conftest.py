"""neuro-local with a registry server behind `/v2/`, in the test's own event loop."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import AsyncIterator, Optional

import pytest
from aiohttp import web
from clients import CLIENTS, Client
from conformance.wire import Server
from machine import impossible, limit

from neuro_local import instance
from neuro_local.app import create_app
from neuro_local.config import Settings
from neuro_local.engines.sandbox.engine import SandboxEngine
from neuro_local.errors import EngineUnavailable
from neuro_local.registry import PROGRAM, RegistryServer

# What one test may take. Seconds.
DEADLINE = 120


def pytest_itemcollected(item: pytest.Item) -> None:
    limit(item, DEADLINE)


@dataclass(frozen=True)
class Serving:
    """A running instance: what it serves, where it keeps things, its registry server if any."""

    server: Server
    settings: Settings
    registry: Optional[RegistryServer]


@pytest.fixture
def program() -> str:
    """The registry server's program."""
    found = shutil.which(PROGRAM)
    if found is None:
        impossible(f"{PROGRAM} is not installed; on Debian `make test` as root installs it")
    return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the instances share, so that only the first one makes it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def settings(tmp_path: Path, cache: Path) -> Settings:
    # Too long for the address of a socket.
    return Settings(tmp_path / ("a state folder " * 8).strip(), cache=cache)


def registry_server(settings: Settings, path: Optional[str] = None) -> RegistryServer:
    environ = {"PATH": path or os.environ["PATH"]}
    log = settings.state / "registry.log"
    return RegistryServer(settings.state / "registry", log=log, environ=environ)


@asynccontextmanager
async def serving(settings: Settings, registry: Optional[RegistryServer]) -> AsyncIterator[Serving]:
    """Run an instance, on the port that it had before if it had one."""
    instance.prepare(settings)
    listener = instance.listen(settings)
    port, token = listener.getsockname()[1], instance.token(settings)
    engine = SandboxEngine(settings.state / "engine", cache=settings.cache, environ=os.environ)
    app = create_app(settings, engine=engine, port=port, token=token, registry=registry)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield Serving(Server(port, token), settings, registry)
    except EngineUnavailable as error:
        impossible(str(error))
    finally:
        await runner.cleanup()
        listener.close()


@pytest.fixture
async def served(settings: Settings, program: str) -> AsyncIterator[Serving]:
    """An instance with a registry server."""
    async with serving(settings, registry_server(settings)) as running:
        assert running.registry is not None and running.registry.missing is None
        yield running


@pytest.fixture
async def sandboxes(settings: Settings) -> AsyncIterator[Serving]:
    """An instance of the sandbox engine, which has no registry server."""
    async with serving(settings, None) as running:
        yield running


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> Client:
    client: Client = request.param
    client.require()
    return client
