"""Runs a property on many generated values."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Mapping

from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

# Another sequence of examples, e.g. HOSTILE_SEED=7 make test_slow; without it always the same ones.
SEED = os.environ.get("HOSTILE_SEED", "")


def explore(
    examples: int,
    holds: Callable[..., None],
    always: Iterable[Mapping[str, Any]] = (),
    **values: st.SearchStrategy[Any],
) -> None:
    """Call `holds` with the values of `always`, then with that many generated ones.

    The first that fails ends it. What is printed then names the smallest example that was found,
    so that it can be tried alone.
    """

    @settings(
        max_examples=examples,
        derandomize=not SEED,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(**values)
    def run(**given_values: Any) -> None:
        holds(**given_values)

    for fixed in always:
        run = example(**fixed)(run)
    (seed(SEED)(run) if SEED else run)()
