"""What the benchmarks share: instances of their own, and measuring by turns."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "slow")]

from e2e.platform import Platform  # noqa: E402


@contextmanager
def instance() -> Iterator[Platform]:
    """Yield a running instance that is taken down and deleted in the end."""
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder, "instance"))
        platform.up()
        try:
            yield platform
        finally:
            platform.down()


def by_turns(rounds: int, **ways: Callable[[], object]) -> Dict[str, float]:
    """Return the median seconds of each way. They take turns, so that what else the machine does
    meets all of them."""
    times: Dict[str, List[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(measured) for name, measured in times.items()}


def tell(what: str, ours: float, other: str, others: float) -> None:
    print(f"{what}: {ours * 1e3:.1f} ms; {other}: {others * 1e3:.1f} ms; ratio {ours / others:.2f}")
