"""What the engines' tests share: start a job, see what became of it, wait for a condition."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Optional

import pytest
from machine import impossible

from neuro_local import config
from neuro_local.engines.base import STDERR, STDOUT, Engine, Process, Task, TaskSpec
from neuro_local.engines.docker.engine import DockerEngine
from neuro_local.engines.docker.leftovers import Traces
from neuro_local.engines.sandbox.engine import SandboxEngine
from neuro_local.errors import EngineUnavailable

DEADLINE = 30.0


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def shared_cache(folders: pytest.TempPathFactory) -> Path:
    """Return a cache folder that all tests of this run share, those of other processes too.

    Only pip's downloads in it are the user's own, as in the end-to-end tests.
    """
    base = folders.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    cache.mkdir(exist_ok=True)
    link_downloads(cache)
    return cache


async def cache_with_base(folder: Path, shared: Path) -> Path:
    """Return a cache folder of a test's own, in which only the plain base is made already."""
    await ready(SandboxEngine(folder / "seed", cache=shared, environ={}))
    for base in (shared / "layers").glob("base-*"):
        copy = folder / "cache" / "layers" / base.name
        shutil.copytree(base, copy, symlinks=True, copy_function=os.link)
    link_downloads(folder / "cache")
    return folder / "cache"


def link_downloads(cache: Path) -> None:
    downloads = config.load(None, os.environ).cache / "pip"
    downloads.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (cache / "pip").symlink_to(downloads)


def docker_engine_at(
    host: str, instance: Optional[str] = None, traces: Optional[Path] = None
) -> DockerEngine:
    """Return an engine of an instance of its own, at that address of a Docker engine."""
    name = instance or f"test-{secrets.token_hex(6)}"
    return DockerEngine(
        instance=name,
        traces=Traces(traces or Path(tempfile.gettempdir(), f"{name}-{secrets.token_hex(6)}")),
        registry=None,
        password="",
        environ={"DOCKER_HOST": host},
    )


async def ready(engine: Engine) -> None:
    """Start an engine, if this machine can run it at all."""
    try:
        await engine.start()
    except EngineUnavailable as error:
        impossible(str(error))


async def start(engine: Engine, *command: str, image: str = "plain", **spec: Any) -> Task:
    return await engine.run(TaskSpec("job-01234567-89ab", image, command, **spec))


async def result(process: Process, within: float = DEADLINE) -> Result:
    """Read a process to its end, which comes within so many seconds."""
    said = {STDOUT: b"", STDERR: b""}

    async def read() -> int:
        async for chunk in process.output():
            said[chunk.channel] += chunk.data
        return await process.wait()

    code = await asyncio.wait_for(read(), within)
    return Result(code, said[STDOUT].decode(), said[STDERR].decode())


async def ran(engine: Engine, *command: str, **spec: Any) -> Result:
    """Run a job to its end."""
    task = await start(engine, *command, **spec)
    try:
        return await result(task.main)
    finally:
        await task.remove()


async def executed(task: Task, *command: str, within: float = DEADLINE, **options: Any) -> Result:
    return await result(await task.exec(command, **options), within)


class Output:
    """Reads one process piece by piece."""

    def __init__(self, process: Process) -> None:
        self._chunks: AsyncIterator[Any] = process.output()
        self.text = ""

    async def until(self, words: str) -> None:
        async def read() -> None:
            while words not in self.text:
                self.text += (await self._chunks.__anext__()).data.decode()

        await asyncio.wait_for(read(), DEADLINE)


async def eventually(condition: Callable[[], Any], what: Optional[str] = None) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what or condition}"
        await asyncio.sleep(0.01)
