"""Read by the Python of the server under test, before anything else: has it note, when it gets
SIGUSR1, how much memory of its objects is alive. From outside only pages are seen, and in those
is room that an earlier peak has left, which hides what slowly grows."""

import gc
import os
import signal
import sys
import tracemalloc

PLACE = os.environ.get("HEAP_NOTES")


def note(*_: object) -> None:
    assert PLACE is not None
    gc.collect()
    alive = tracemalloc.get_traced_memory()[0]
    with open(f"{PLACE}.new", "w") as file:
        file.write(str(alive))
    os.replace(f"{PLACE}.new", PLACE)


# The client that the test calls has the same environment.
if PLACE and "neuro_local" in sys.orig_argv:
    tracemalloc.start()
    signal.signal(signal.SIGUSR1, note)
