"""Makes the shared layers, each once, however many jobs and instances wait for it."""

from __future__ import annotations

import asyncio
from typing import Awaitable, Callable, Dict, Sequence, Tuple

from ...errors import StartFailed
from ..base import TaskSpec
from .layers import JobFolder, Layers
from .recipes import Recipe

# Runs a command to its end on these layers and in this folder; returns its code and its output.
RunToEnd = Callable[[TaskSpec, Sequence[str], JobFolder], Awaitable[Tuple[int, str]]]


class Builder:
    """Runs recipes to their end, with `run_to_end`, and keeps what they write among `layers`."""

    def __init__(self, layers: Layers, run_to_end: RunToEnd) -> None:
        self._layers = layers
        self._run_to_end = run_to_end
        self._running: Dict[str, asyncio.Task[None]] = {}

    async def have(self, recipe: Recipe) -> None:
        """Wait until the layer is made. Cancelled, it is made nevertheless: others may wait for it,
        and the next job will. Raises StartFailed."""
        running = self._running.get(recipe.layer)
        if running is None:
            running = self._running[recipe.layer] = asyncio.create_task(self.make(recipe))
            running.add_done_callback(lambda done: self._ended(recipe.layer, done))
        await asyncio.shield(running)

    async def make(self, recipe: Recipe) -> None:
        """Make the layer, unless it is there. Raises StartFailed."""
        shared = self._layers.shared
        if shared.has(recipe.layer):
            return
        async with shared.turn(recipe.layer) as path:
            if shared.has(recipe.layer):  # another instance was faster
                return
            spec = TaskSpec(recipe.layer, "", recipe.command, env=recipe.env, mounts=recipe.mounts)
            code, said = await self._run_to_end(spec, recipe.below, JobFolder(path))
            if code != 0:
                raise StartFailed(recipe.failure(said), "ErrImagePull")
            await asyncio.to_thread(self._keep, recipe, JobFolder(path))

    async def close(self) -> None:
        """Break off what is being made."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _keep(self, recipe: Recipe, folder: JobFolder) -> None:
        for path, program in recipe.programs.items():
            self._layers.place(folder, path, program)
        self._layers.shared.keep(folder.upper, recipe.layer)

    def _ended(self, layer: str, done: asyncio.Task[None]) -> None:
        del self._running[layer]
        if not done.cancelled():
            done.exception()  # seen, in case nobody waits any more
