"""Does a long past slow down `neuro ps`, and what does the server's listing cost?"""

from __future__ import annotations

import argparse
import json
import sqlite3

from bench import by_turns, instance, tell  # first: it finds the tests' tools
from loadkit import add_past_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--past", type=int, default=5_000, help="past jobs (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="measurements each (%(default)s)")
    options = parser.parse_args()
    with instance() as empty, instance() as full:
        ended = full.start_job("sleep 0")
        full.wait_for(ended.id, "succeeded")
        full.down()
        add_past_jobs(full, options.past)
        full.up()
        for platform in (empty, full):
            platform.neuro("ps")  # logs in

        def read_rows() -> None:
            with sqlite3.connect(full.state / "jobs.db") as db:
                rows = db.execute("SELECT record FROM jobs ORDER BY number").fetchall()
            assert len([json.loads(row[0]) for row in rows]) == options.past + 1

        running = "/api/v1/jobs?status=pending&status=suspended&status=running"
        took = by_turns(
            options.rounds,
            full=lambda: full.neuro("ps"),
            empty=lambda: empty.neuro("ps"),
            served_full=lambda: full.request(running),
            served_empty=lambda: empty.request(running),
            listed=lambda: full.request("/api/v1/jobs"),
            read=read_rows,
        )
    past = f"with {options.past} past jobs"
    tell(f"neuro ps {past}", took["full"], "on an empty instance", took["empty"])
    tell(f"the server's part {past}", took["served_full"], "empty", took["served_empty"])
    tell("the server lists all of them", took["listed"], "sqlite3 and json alone", took["read"])


if __name__ == "__main__":
    main()
