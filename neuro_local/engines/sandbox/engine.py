"""Jobs as sandboxed processes of this machine, kept apart from it by bubblewrap.

A job sees this machine's own software below layers of its own, and a network of its own: its
ports are reached through `connect`, and its way out is a proxy (egress.py). Inside, init.py is
process 1 and does what the engine asks for (channel.py).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Mapping, Sequence, Set, Tuple

from ...errors import EngineUnavailable, StartFailed
from ..base import Engine, Task, TaskSpec, Tell, ignore, start_whole
from . import catalogue, recipes
from .builder import Builder
from .bwrap import Sandbox, locate
from .layers import Image, JobFolder, Layers
from .python import Python, is_below, passed_on_paths
from .shared import Shared
from .task import SandboxTask


class SandboxEngine(Engine):
    """`state` holds images and jobs, `cache` what several instances may share."""

    name = "sandbox"

    def __init__(self, state: Path, *, cache: Path, environ: Mapping[str, str]) -> None:
        self._state = state.resolve()
        self._cache = cache.resolve()
        self._environ = environ
        self._layers = Layers(self._state, Shared(self._state / "shared"))
        self._builder = Builder(self._layers, self._run_to_end)
        self._python = Python.running()
        self._plain = recipes.plain(self._python)
        self._tasks: Set[SandboxTask] = set()
        self._saving = asyncio.Lock()

    async def start(self) -> None:
        seen = [*self._layers.host_roots, self._python.prefix]
        self._check(seen)
        await asyncio.to_thread(self._layers.prepare)
        try:
            await self._probe(self._layers.job_folder("probe"))
        except StartFailed as error:
            raise EngineUnavailable(f"{error} {_advice()}".strip()) from None
        if await self._serves(Shared(self._cache), seen):
            self._layers.shared = Shared(self._cache)
        else:
            await asyncio.to_thread(self._layers.shared.prepare)
        try:
            await self._builder.make(self._plain)
        except StartFailed as error:
            raise EngineUnavailable(str(error)) from None
        await asyncio.to_thread(self._layers.collect, [])

    async def run(self, spec: TaskSpec, tell: Tell = ignore) -> Task:
        image = await self._image(spec.image, tell)
        return await self._run(spec, image, self._layers.job_folder(spec.job_id))

    async def images(self) -> Sequence[str]:
        return [image.reference for image in await asyncio.to_thread(self._layers.images)]

    async def close(self) -> None:
        await self._builder.close()
        await asyncio.gather(*(task.remove() for task in list(self._tasks)))

    async def _keep(self, sandbox: Sandbox, reference: str) -> None:
        """Save a job's files as an image, and clear layers of an image that it replaced."""
        image = replace(sandbox.image, reference=reference)
        async with self._saving:
            try:
                await asyncio.to_thread(self._layers.save, sandbox.folder, image)
            finally:  # else a layer without its image fills a full disk for good
                used = {layer for task in self._tasks for layer in task.sandbox.image.layers}
                await asyncio.to_thread(self._layers.collect, used)

    async def _forget(self, task: SandboxTask) -> None:
        """Let go of a dead task's files, once nobody copies them."""
        async with self._saving:
            await asyncio.to_thread(self._layers.discard, task.sandbox.folder)
            self._tasks.discard(task)

    async def _image(self, reference: str, tell: Tell) -> Image:
        """Return an image with all its layers in place. Raises StartFailed."""
        image = self._layers.find(reference) or self._unsaved(reference)
        if not os.path.exists(image.python):
            raise _stands_on(reference, image.python)
        on_plain = (recipes.of(entry, self._plain.layer) for entry in catalogue.CATALOGUE)
        known = {recipe.layer: recipe for recipe in (self._plain, *on_plain)}
        for layer in self._layers.missing(image.layers):
            if layer not in known:
                raise _stands_on(reference, str(self._layers.path(layer)))
            tell(f"{known[layer].what} is made on first use, which can take a minute")
            await self._builder.have(known[layer])
        return image

    def _unsaved(self, reference: str) -> Image:
        entry = catalogue.find(reference)
        if entry is None:
            return self._stack(self._plain.layers)
        return self._stack(recipes.of(entry, self._plain.layer).layers, entry.entrypoint)

    def _stack(self, layers: Sequence[str], entrypoint: Sequence[str] = ()) -> Image:
        python = self._python
        return Image("", layers, str(python.executable), str(python.prefix), entrypoint)

    async def _run(self, spec: TaskSpec, image: Image, folder: JobFolder) -> SandboxTask:
        sandbox = Sandbox(
            layers=self._layers,
            folder=folder,
            image=image,
            python=self._python,
            hostname=spec.job_id[:12],
            pip_cache=self._cache / "pip",
            shown=passed_on_paths(self._environ, self._layers.host_roots),
            mounts=spec.mounts,
        )
        task = SandboxTask(sandbox, spec, keep=self._keep, forget=self._forget)
        self._tasks.add(task)  # from here on its layers stay
        await start_whole(task, self._start(task, spec))
        return task

    async def _start(self, task: SandboxTask, spec: TaskSpec) -> None:
        try:
            await asyncio.to_thread(task.sandbox.make_folders)
            await task.start(spec, self._environ)
        except BaseException:
            await task.remove()
            raise

    async def _run_to_end(
        self, spec: TaskSpec, layers: Sequence[str], folder: JobFolder
    ) -> Tuple[int, str]:
        task = await self._run(spec, self._stack(layers), folder)
        try:
            await task.main.close_stdin()
            said = b"".join([chunk.data async for chunk in task.main.output()])
            return await task.main.wait(), said.decode(errors="replace")
        finally:
            await task.remove()

    def _check(self, seen: Sequence[Path]) -> None:
        if sys.platform != "linux":
            raise EngineUnavailable("The sandbox needs Linux; on this system use Docker.")
        locate()
        if is_below(self._state, seen):
            raise EngineUnavailable(
                f"The folder {self._state} cannot hold the sandbox's files, since jobs see it:"
                f" choose one outside of {', '.join(map(str, seen))}."
            )
        if importlib.util.find_spec("ensurepip") is None:
            raise EngineUnavailable(
                "The Python of this machine cannot make virtual environments: install the"
                " package python3-venv."
            )

    async def _probe(self, folder: JobFolder) -> None:
        """Find out whether this machine lets us make sandboxes, with their files there."""
        await self._run_to_end(TaskSpec("probe", "", ["/bin/sh", "-c", ":"]), (), folder)

    async def _serves(self, shared: Shared, seen: Sequence[Path]) -> bool:
        """Whether the shared layers can lie in the cache folder.

        Jobs must not see it, nobody else may own it, and its file system has to take overlays.
        """
        if is_below(self._cache, seen):
            return False
        try:
            await asyncio.to_thread(shared.prepare)
            if self._cache.stat().st_dev != self._state.stat().st_dev:
                async with shared.turn("probe") as path:
                    await self._probe(JobFolder(path))
        except (OSError, StartFailed):
            return False
        return True


def _stands_on(reference: str, path: str) -> StartFailed:
    return StartFailed(
        f"The image {reference!r} stands on {path}, which is no longer there: the cache was"
        " deleted, or this machine's Python replaced. Save the image anew: a project does that with"
        " `make setup`.",
        "ErrImagePull",
    )


# Settings of several distributions that forbid what the sandbox needs of an ordinary user.
FORBIDDING = {
    "kernel/unprivileged_userns_clone": ("0", "1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user/max_user_namespaces": ("0", "10000"),
}


def _advice() -> str:
    for setting, (forbids, allows) in FORBIDDING.items():
        path = Path("/proc/sys", setting)
        if path.exists() and path.read_text().strip() == forbids:
            change = f"{setting.replace('/', '.')}={allows}"
            return f"An administrator can allow it: `sudo sysctl -w {change}`."
    return (
        "It needs user namespaces and overlays in them: Linux 5.11 or newer, and inside a"
        " container one that may make them (`docker run --privileged`)."
    )
