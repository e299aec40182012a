"""Layers that all instances of a user share: made once, then only read.

layers/NAME/ROOT/     whole, for it is renamed into this place
building/NAME/lock    held by whoever makes that layer, for as long as it lives
building/NAME/ID/     what it works in
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import uuid
from pathlib import Path
from typing import IO, AsyncIterator

from ...durable import move_whole
from .trash import delete

LOOK_AGAIN = 0.1  # seconds; a lock that is waited for in a thread could not be let go of


class Shared:
    """The shared layers in the folder `home`, which several processes may use at once."""

    def __init__(self, home: Path) -> None:
        self._layers = home / "layers"
        self._building = home / "building"

    def prepare(self) -> None:
        """Make the folders, for their owner only, and clear what dead builders left.

        Raises OSError when another user could change what jobs run.
        """
        for folder in (self._layers, self._building):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.geteuid():
                raise PermissionError(f"{folder} belongs to another user")
            folder.chmod(0o700)
        for folder in self._building.iterdir():
            with _open_lock(folder) as lock:
                if _try(lock):
                    _clear(folder)

    def path(self, layer: str) -> Path:
        """Return where a layer lies once it is made."""
        return self._layers / layer

    def has(self, layer: str) -> bool:
        """Whether the layer is made, and with that whole."""
        return self.path(layer).is_dir()

    @contextlib.asynccontextmanager
    async def turn(self, layer: str) -> AsyncIterator[Path]:
        """Wait until nobody else makes this layer, and yield a folder to make it in.

        Somebody else may have made it meanwhile.
        """
        folder = self._building / layer
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _open_lock(folder) as lock:
            while not _try(lock):
                await asyncio.sleep(LOOK_AGAIN)
            await asyncio.to_thread(_clear, folder)
            try:
                yield folder / uuid.uuid4().hex[:8]
            finally:
                await asyncio.to_thread(_clear, folder)

    def keep(self, tree: Path, layer: str) -> None:
        """Make a finished tree that layer."""
        self._layers.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            move_whole(tree, self.path(layer))
        except OSError:
            if not self.has(layer):  # two can make it at once if the locks were deleted
                raise


def _open_lock(folder: Path) -> IO[str]:
    return (folder / "lock").open("a")


def _try(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for left in folder.iterdir():
            if left.name != "lock":
                delete(left)
