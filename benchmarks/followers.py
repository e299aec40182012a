"""What do a hundred followers of a job's log cost beside `cat` of the same bytes to each?"""

from __future__ import annotations

import argparse
import asyncio
import subprocess

from bench import by_turns, instance, tell  # first: it finds the tests' tools
from e2e.platform import Platform
from loadkit import api


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--followers", type=int, default=100, help="at once (%(default)s)")
    parser.add_argument("--lines", type=int, default=20_000, help="of 100 bytes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements each (%(default)s)")
    options = parser.parse_args()
    with instance() as platform:
        line = "0" * 99
        job = platform.start_job(f"sh -c 'yes {line} | head -n {options.lines}'")
        platform.wait_for(job.id, "succeeded")
        log = platform.state / "logs" / f"{job.id}.log"
        expected = 100 * options.lines
        took = by_turns(
            options.rounds,
            sockets=lambda: asyncio.run(follow(platform, job.id, options.followers, expected)),
            cat=lambda: cat(str(log), options.followers),
        )
    megabytes = options.followers * expected / 1e6
    tell(
        f"{options.followers} followers of {megabytes:.0f} MB in all",
        took["sockets"],
        "as many `cat` into pipes, one after the other",
        took["cat"],
    )


async def follow(platform: Platform, id: str, followers: int, expected: int) -> None:
    async with api(platform) as client:
        read = await asyncio.gather(*(client.socket_log(id) for _ in range(followers)))
    assert [len(one) for one in read] == [expected] * followers


def cat(path: str, times: int) -> None:
    for _ in range(times):
        subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True)


if __name__ == "__main__":
    main()
