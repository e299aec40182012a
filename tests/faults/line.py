"""The way from a client through the proxy to an instance of neuro-local, and what may be left of a
broken one."""

from __future__ import annotations

import base64
import json
import os
import random
import threading
from pathlib import Path
from typing import Callable, Dict, List, Mapping

from e2e.commands import TRACEBACK, Result, wait_until
from e2e.platform import Platform, processes_with
from e2e.project import Project

from .proxy import Fault, Proxy

# How long the client waits for an answer. Its own value is a minute. Seconds.
NETWORK_TIMEOUT = 3


def seed() -> int:
    """Return the seed of this run's random choices, another one each time unless it is given."""
    given = os.environ.get("FAULT_SEED")
    return int(given) if given else random.SystemRandom().randrange(10**6)


class Line:
    def __init__(self, platform: Platform, proxy: Proxy, env: Mapping[str, str]) -> None:
        self.platform = platform
        self.proxy = proxy
        self._env = env
        self._restarting = threading.Lock()

    def project(self, render: Callable[[Platform], Project]) -> Project:
        """Return a freshly rendered project whose client goes through the proxy."""
        project = render(self.platform)
        return Project(project.path, self.platform, environment=self._env)

    def break_with(self, *faults: Fault) -> None:
        self.proxy.faults = list(faults)

    def mend(self) -> None:
        """Let all pass from now on; a server that is being started again is waited for."""
        self.proxy.faults = []
        with self._restarting:
            pass

    def restart(self) -> None:
        """End the server as a crash does, and start it again."""
        with self._restarting:
            self.platform.kill()
            self.platform.up()

    def assert_nothing_left(self, project: Project) -> None:
        """Fail if a job, or a process of one, is left of the project, or the server has failed."""
        active = project.active_jobs()
        assert not active, f"jobs are left: {active}"
        engine = f"{self.platform.state}/engine/jobs"
        wait_until(lambda: not processes_with(engine), "no process of a job is left")
        log = (self.platform.state / "server.log").read_text()
        assert "Traceback" not in log, log


def environment(platform: Platform, proxy: Proxy, folder: Path) -> Dict[str, str]:
    """Return the environment in which clients log in to the platform by way of the proxy."""
    env = dict(platform.env)
    passed = json.loads(base64.b64decode(env["NEURO_PASSED_CONFIG"]))
    passed["url"] = env["LOGIN_URL"] = f"{proxy.url}/api/v1"
    env["NEURO_PASSED_CONFIG"] = base64.b64encode(json.dumps(passed).encode()).decode()
    for name in ("APOLO_CONFIG", "NEUROMATION_CONFIG"):
        config = folder / name.lower()
        config.mkdir(mode=0o700)
        env[name] = str(config)
    env["NEURO"] += f" --network-timeout {NETWORK_TIMEOUT}"
    return env


def sentences(result: Result) -> List[str]:
    """Return what the Makefile itself had to say about a failure."""
    target = result.command.split()[1]
    return [line for line in result.stderr.splitlines() if line.startswith(f"{target}: ")]


def assert_told(result: Result) -> None:
    """Fail unless the target failed, and said so in a sentence of its own."""
    assert result.code != 0, result
    assert sentences(result), f"no sentence of ours\n{result}"
    assert not own_tracebacks(result), f"a traceback of ours\n{result}"


def own_tracebacks(result: Result) -> List[str]:
    """Return the tracebacks that the target shows and that are not the client's, which is
    installed as a package, and so are its libraries."""
    shown = TRACEBACK.findall(result.stdout + result.stderr)
    return [trace for trace in shown if "/site-packages/" not in trace]
