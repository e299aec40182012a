"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
from typing import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterator,
    List,
    Optional,
    ParamSpec,
    Tuple,
    TypeVar,
)

from ..errors import NeuroLocalError

P = ParamSpec("P")
T = TypeVar("T")

ENTRIES_AT_ONCE = 256


async def in_batches(items: Generator[T, None, None]) -> AsyncGenerator[List[T], None]:
    """Runs a blocking generator in threads; hands out what came before an error first."""
    try:
        while True:
            batch, error = await in_thread(_take, items)
            if batch:
                yield batch
            if error is not None:
                raise error
            if len(batch) < ENTRIES_AT_ONCE:
                return
    finally:
        items.close()


def _take(items: Iterator[T]) -> Tuple[List[T], Optional[NeuroLocalError]]:
    batch: List[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == ENTRIES_AT_ONCE:
                break
    except NeuroLocalError as error:
        return batch, error
    return batch, None


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Never leaves the thread behind: a cancelled caller still waits before it closes a file."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
