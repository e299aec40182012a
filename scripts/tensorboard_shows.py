"""Waits until a TensorBoard shows a run, and prints its scalars.

    python tensorboard_shows.py RUN <OUTPUT

OUTPUT is what `make run_tensorboard BROWSE=` printed: the address is taken from it. Exits with 1
and a sentence when the run has not appeared within a minute.
"""

import http.cookiejar
import json
import re
import sys
import time
import urllib.request
from typing import Dict
from urllib.parse import urljoin

DEADLINE = 60  # seconds


def main(run: str, said: str) -> None:
    found = re.search(r"Open in a browser: (\S+)", said)
    if found is None:
        sys.exit("TensorBoard did not start: no address was printed")
    # The address is exchanged for a cookie; the environment's proxy is none of loopback's business.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
    )
    scalars = urljoin(found[1], "data/plugin/scalars/tags")
    first, deadline = found[1], time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            if first:
                opener.open(first, timeout=10).close()
                first = ""
            with opener.open(scalars, timeout=10) as answer:
                runs: Dict[str, Dict[str, object]] = json.load(answer)
            if run in runs:
                print(f"TensorBoard answers: the run {run!r} has {', '.join(sorted(runs[run]))}")
                return
        except OSError:
            pass  # it does not answer yet
        time.sleep(0.2)
    sys.exit(f"TensorBoard did not show the run {run!r} within {DEADLINE} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.read())
