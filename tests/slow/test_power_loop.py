"""The server is killed at random moments, again and again: its state is whole each time.

POWER_ROUNDS (6) is how often, FAULT_SEED makes a run's choices again.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from typing import Callable, List

import pytest
from e2e.commands import wait_until
from e2e.conftest import no_client
from e2e.platform import Platform, processes_with
from faults.line import seed

pytest_plugins = ["faults.conftest"]

ROUNDS = int(os.environ.get("POWER_ROUNDS", "6"))
FILES = 200

pytestmark = [no_client, pytest.mark.xdist_group("power"), pytest.mark.timeout(3600)]


def test_state_is_whole_whenever_the_server_is_killed(
    make_platform: Callable[..., Platform],
) -> None:
    number = seed()
    print(f"FAULT_SEED={number}")
    chance = random.Random(number)
    platform = make_platform()
    for round in range(ROUNDS):
        writer = platform.start_job(f"sh -c '{writing(round)}; sleep 600'")
        files = platform.state / "engine" / "jobs"
        wait_until(
            lambda: list(files.glob(f"*/upper/opt/venv/many/{FILES}")), "the job has written"
        )
        busy = [
            threading.Thread(target=work, args=(platform, writer.id, round), daemon=True)
            for work in (save, upload, start_and_stop)
        ]
        for thread in busy:
            thread.start()
        moment = chance.uniform(0.0, 1.0)
        print(f"round {round}: killed after {moment:.3f} s")
        time.sleep(moment)
        platform.kill()
        for thread in busy:
            thread.join()
        engine = f"{platform.state}/engine"
        wait_until(lambda: not processes_with(engine), "no process is left")

        platform.up()

        check(platform, round)


def check(platform: Platform, round: int) -> None:
    assert not [job for job in platform.jobs() if job.is_active]
    assert platform.jobs(status="failed"), "what died with the server is not told of"
    engine = platform.state / "engine"
    named = set()
    for record in (engine / "images").iterdir():
        assert record.suffix == ".json", f"a trace of a save: {record}"
        image = json.loads(record.read_text())
        for layer in image["layers"]:
            whole = engine / "layers" / layer / "opt" / "venv" / "many"
            if (engine / "layers" / layer).exists():
                named.add(layer)
                assert len(list(whole.iterdir())) == FILES
    assert {layer.name for layer in (engine / "layers").iterdir()} == named
    assert not list((engine / "jobs").iterdir())
    for path in platform.storage("power").glob("*"):
        content = path.read_bytes()
        assert content == b"x" * len(content), f"not what was sent: {path}"


def writing(round: int) -> str:
    each = f"echo {round} >/opt/venv/many/$i"
    return f"mkdir /opt/venv/many; for i in $(seq 1 {FILES}); do {each}; done"


def save(platform: Platform, job: str, round: int) -> None:
    host = platform.url.removeprefix("http://")
    body = json.dumps({"container": {"image": f"{host}/user/power-{round}:latest"}}).encode()
    with suppress(OSError, HTTPException, ValueError):
        platform.request(f"/monitoring/jobs/{job}/save", method="POST", body=body)


def upload(platform: Platform, job: str, round: int) -> None:
    with suppress(OSError, HTTPException, ValueError):
        for number in range(50):
            path = f"/storage/user/power/{round}-{number}?op=CREATE"
            platform.request(path, method="PUT", body=b"x" * 500_000)


def start_and_stop(platform: Platform, job: str, round: int) -> None:
    body = {"image": "python", "preset_name": "cpu-small", "entrypoint": "sleep 600"}
    started: List[str] = []
    with suppress(OSError, HTTPException, ValueError, KeyError):
        for _ in range(10):
            path, sent = "/api/v1/jobs?from_preset", json.dumps(body).encode()
            started.append(json.loads(platform.request(path, method="POST", body=sent)[1])["id"])
            if len(started) > 2:
                platform.end_job(started.pop(0))
