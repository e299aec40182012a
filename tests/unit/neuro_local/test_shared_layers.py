"""Layers that are made on first use and shared: by one builder, whoever waits or dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import AsyncIterator, Dict, List, Set

import pytest
from enginekit import (
    cache_with_base,
    eventually,
    executed,
    ran,
    ready,
    result,
    shared_cache,
    start,
)

from neuro_local.engines.base import TaskSpec
from neuro_local.engines.sandbox.engine import SandboxEngine
from neuro_local.errors import StartFailed

IMAGE = "filebrowser/filebrowser:v2"
HELP = TaskSpec("job-help", IMAGE, ["--help"])
# A server that has begun to make an image, for the test that lets it die.
OWNER = """
import asyncio, os, pathlib, sys
from neuro_local.engines.base import TaskSpec
from neuro_local.engines.sandbox.engine import SandboxEngine

async def main(state, cache):
    engine = SandboxEngine(state, cache=cache, environ=os.environ)
    await engine.start()
    await engine.run(TaskSpec("job-first", "filebrowser/filebrowser", ["--help"]))

asyncio.run(main(*map(pathlib.Path, sys.argv[1:])))
"""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_cache(tmp_path_factory)


@pytest.fixture
async def cache(tmp_path: Path, shared: Path) -> Path:
    return await cache_with_base(tmp_path, shared)


@pytest.fixture
def environ(tmp_path: Path) -> Dict[str, str]:
    """The user's own environment, with a constraint that contradicts the catalogue's pins."""
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("copyparty==1.0.0\n")
    return {**os.environ, "PIP_CONSTRAINT": str(constraints)}


@pytest.fixture
async def engine(
    tmp_path: Path, cache: Path, environ: Dict[str, str]
) -> AsyncIterator[SandboxEngine]:
    made = SandboxEngine(tmp_path / "state", cache=cache, environ=environ)
    await ready(made)
    yield made
    await made.close()


def builds(cache: Path) -> Set[str]:
    """Return what has been written so far for the image."""
    return {path.parts[-5] for path in cache.glob("building/filebrowser-*/*/upper/opt/venv")}


def layers(cache: Path) -> List[str]:
    return [path.name.partition("-")[0] for path in (cache / "layers").iterdir()]


async def test_instances_that_need_a_layer_at_once_make_it_once(
    engine: SandboxEngine, tmp_path: Path, cache: Path, environ: Dict[str, str]
) -> None:
    other = SandboxEngine(tmp_path / "other", cache=cache, environ=environ)
    await other.start()
    told: List[str] = []
    seen: Set[str] = set()

    async def watch() -> None:
        while True:
            seen.update(builds(cache))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    runs = [one.run(HELP, told.append) for one in (engine, engine, other)]
    done = [await result(task.main) for task in await asyncio.gather(*runs)]
    watching.cancel()
    await other.close()

    assert [each.code for each in done] == [0, 0, 0]
    assert len(seen) == 1
    assert len(told) == 3 and "filebrowser/filebrowser" in told[0]
    assert sorted(layers(cache)) == ["base", "filebrowser"]


async def test_cancelled_job_leaves_its_image_to_the_others(
    engine: SandboxEngine, cache: Path
) -> None:
    cancelled, other = [asyncio.create_task(engine.run(HELP)) for _ in range(2)]
    await eventually(lambda: builds(cache), "a beginning")

    cancelled.cancel()
    await asyncio.wait({cancelled})

    assert cancelled.cancelled() and not other.done()
    assert (await result((await other).main)).code == 0


async def test_closing_breaks_off_what_is_being_made(engine: SandboxEngine, cache: Path) -> None:
    job = asyncio.create_task(engine.run(HELP))
    await eventually(lambda: builds(cache), "a beginning")

    job.cancel()
    await asyncio.wait_for(engine.close(), 5)

    assert layers(cache) == ["base"]
    assert [path.name for path in cache.glob("building/filebrowser-*/*")] == ["lock"]


async def test_what_a_killed_builder_left_is_cleared_and_never_used(
    tmp_path: Path, cache: Path, environ: Dict[str, str]
) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "killed"), str(cache)]
    owner = subprocess.Popen(command, env=environ)
    try:
        await eventually(lambda: builds(cache), "a beginning")
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    left = builds(cache)

    engine = SandboxEngine(tmp_path / "state", cache=cache, environ=environ)
    await engine.start()

    assert left and not builds(cache)
    assert (await ran(engine, "--help", image=IMAGE)).code == 0
    await engine.close()


async def test_failed_build_says_what_pip_said_and_is_tried_again(
    tmp_path: Path, cache: Path
) -> None:
    environ = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    engine = SandboxEngine(tmp_path / "state", cache=cache, environ=environ)
    await engine.start()

    for _ in range(2):
        with pytest.raises(StartFailed) as failure:
            await engine.run(HELP)

        said = str(failure.value)
        assert failure.value.reason == "ErrImagePull"
        assert "ERROR: No matching distribution found for copyparty==" in said
        assert "Run the job again when this machine reaches PyPI" in said and "neuro save" in said
        assert "\n" not in said
    await engine.close()
    assert layers(cache) == ["base"]


async def test_deleted_layers_are_made_again_under_running_instances(
    engine: SandboxEngine, cache: Path
) -> None:
    task = await start(engine, "cat")
    await executed(task, "sh", "-c", "echo kept > /kept")
    await task.save("image:kept")
    await task.remove()

    shutil.rmtree(cache / "layers")

    assert (await ran(engine, "sh", "-c", "cat /kept; pip -V", image="image:kept")).code == 0


async def test_image_whose_layer_is_gone_for_good_says_so(
    engine: SandboxEngine, tmp_path: Path
) -> None:
    task = await start(engine, "cat")
    await task.save("image:orphan")
    for record in (tmp_path / "state" / "images").glob("*.json"):
        image = json.loads(record.read_text())
        record.write_text(json.dumps({**image, "layers": ["base-of-old", *image["layers"][1:]]}))

    with pytest.raises(StartFailed, match="base-of-old.*make setup") as failure:
        await start(engine, "true", image="image:orphan")

    assert failure.value.reason == "ErrImagePull"


async def test_cache_that_cannot_hold_layers_is_done_without(
    tmp_path: Path, cache: Path, environ: Dict[str, str]
) -> None:
    own = tmp_path / "state" / "shared" / "layers"
    own.parent.mkdir(parents=True)
    (cache / "layers").rename(own)
    (cache / "layers").write_text("in the way")
    engine = SandboxEngine(tmp_path / "state", cache=cache, environ=environ)

    await engine.start()

    assert (await ran(engine, "pip", "-V")).code == 0
    await engine.close()


async def test_layers_are_for_their_owner_only(engine: SandboxEngine, cache: Path) -> None:
    modes = [(cache / folder).stat().st_mode & 0o777 for folder in ("layers", "building")]

    assert modes == [0o700, 0o700]
