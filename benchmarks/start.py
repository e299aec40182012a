"""What does a job cost beside bare bubblewrap on the same folders, and a plain process?"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List

from bench import by_turns, instance, tell  # first: it finds the tests' tools
from e2e.platform import Platform

from neuro_local.engines.sandbox.bwrap import locate

TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="measurements each (%(default)s)")
    options = parser.parse_args()
    with instance() as platform, tempfile.TemporaryDirectory() as folder:
        bare = bubblewrap(Path(folder))
        took = by_turns(
            options.rounds,
            job=lambda: job(platform),
            bwrap=lambda: subprocess.run([*bare, "true"], check=True),
            python=lambda: subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True),
            plain=lambda: subprocess.run(["true"], check=True),
        )
        before = processor_time(platform)
        for _ in range(options.rounds):
            job(platform)
        cost = (processor_time(platform) - before) / options.rounds
    tell("a job from request to end", took["job"], "bare bubblewrap", took["bwrap"])
    tell("a job from request to end", took["job"], "a bare Python", took["python"])
    tell("a job from request to end", took["job"], "a plain process", took["plain"])
    tell("processor time of server and sandbox", cost, "bare bubblewrap's time", took["bwrap"])


def job(platform: Platform) -> None:
    body = {"image": "python", "preset_name": "cpu-small", "entrypoint": "true"}
    path = "/api/v1/jobs?from_preset"
    status, answer = platform.request(path, method="POST", body=json.dumps(body).encode())
    assert status == 202, answer
    id = json.loads(answer)["id"]
    while (found := platform.job(id)).is_active:
        time.sleep(0.01)
    assert found.status == "succeeded", found


def bubblewrap(folder: Path) -> List[str]:
    """Return the command of a sandbox with the overlays and namespaces that a job has."""
    command = [str(locate()), "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    skeleton = folder / "skeleton"
    for name in ("usr", "etc", "var", "opt", "proc", "dev", "tmp", "run"):
        (skeleton / name).mkdir(parents=True)
    roots = [Path("/"), *(Path("/", name) for name in ("usr", "etc", "var", "opt"))]
    for link in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{link}"):
            (skeleton / link).symlink_to(os.readlink(f"/{link}"))
        elif Path("/", link).is_dir():
            (skeleton / link).mkdir()
            roots.append(Path("/", link))
    for root in roots:
        upper, work = (folder / kind / (root.name or "root") for kind in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        command += ["--overlay-src", str(skeleton if root == Path("/") else root)]
        command += ["--overlay", str(upper), str(work), str(root)]
    return [*command, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"]


def processor_time(platform: Platform) -> float:
    """Return the seconds of processor time of the server and of all children it has seen end."""
    fields = Path("/proc", str(platform.pid), "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


if __name__ == "__main__":
    main()
