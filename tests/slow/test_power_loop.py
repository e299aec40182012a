"""The server is killed at random moments, again and again: its state is whole each time, and what
was answered for is in it.

POWER_ROUNDS (6) is how often, FAULT_SEED makes a run's choices again.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Callable, List, Set

import pytest
from e2e.commands import wait_until
from e2e.conftest import Render, no_client
from e2e.platform import Platform, processes_with
from faults.line import assert_told, seed

pytest_plugins = ["faults.conftest"]

ROUNDS = int(os.environ.get("POWER_ROUNDS", "6"))
FILES = 200
SIZE = 500_000

pytestmark = pytest.mark.timeout(3600)


@dataclass
class Told:
    """What the server had answered for when it was killed, in one round."""

    round: int
    writer: str
    started: Set[str] = field(default_factory=set)
    asked_to_end: Set[str] = field(default_factory=set)
    ended: Set[str] = field(default_factory=set)
    stored: List[str] = field(default_factory=list)
    saved: bool = False
    refused: List[bytes] = field(default_factory=list)

    @property
    def image(self) -> str:
        return f"user/power-{self.round}:latest"


@no_client
def test_state_is_whole_whenever_the_server_is_killed(
    make_platform: Callable[..., Platform],
) -> None:
    number = seed()
    print(f"FAULT_SEED={number}")
    chance = random.Random(number)
    platform = make_platform()
    kept: Set[str] = set()
    for round in range(ROUNDS):
        writer = platform.start_job(f"sh -c '{writing(round)}; sleep 600'")
        files = platform.state / "engine" / "jobs"
        wait_until(
            lambda: list(files.glob(f"*/upper/opt/venv/many/{FILES}")), "the job has written"
        )
        told = Told(round, writer.id)
        busy = [
            threading.Thread(target=work, args=(platform, told), daemon=True)
            for work in (save, upload, start_and_stop)
        ]
        for thread in busy:
            thread.start()
        moment = chance.uniform(0.0, 1.0)
        time.sleep(moment)
        platform.kill()
        for thread in busy:
            thread.join()
        engine = f"{platform.state}/engine"
        wait_until(lambda: not processes_with(engine), "no process is left")
        print(f"round {round}: killed after {moment:.3f} s; {told}")

        platform.up()

        check_jobs(platform, told)
        kept = check_images(platform, told, kept)
        check_files(platform, told)


def test_setup_is_whole_or_told_whenever_the_server_is_killed(
    make_platform: Callable[..., Platform], render: Render
) -> None:
    """And the image is always that of one setup: this one's if it says so, else the one before."""
    number = seed()
    print(f"FAULT_SEED={number}")
    chance = random.Random(number)
    platform = make_platform()
    project = render(platform)
    image = f"user/{project.slug}:latest"
    fill = f'for i in $(seq 1 {FILES}); do cp "$1" /opt/venv/many/$i; done'
    again = f'set -- "${{0%/*}}/round.txt"; mkdir -p /opt/venv/many; {fill}'
    project.write("requirements/install.sh", f'[ "${{1:-}}" = check ] || {{ {again}; }}\n')
    project.write("requirements/round.txt", "0")
    began = time.monotonic()
    project.make("setup")
    takes = time.monotonic() - began
    before = 0
    for round in range(1, ROUNDS + 1):
        project.write("requirements/round.txt", str(round))
        moment = chance.uniform(0.0, takes)
        with project.start("setup") as setup:
            time.sleep(moment)
            platform.kill()
            said = setup.wait(code=None)
        print(f"round {round}: killed after {moment:.3f} of {takes:.3f} s")

        platform.up()

        assert not [job for job in platform.jobs() if job.is_active]
        assert project.stamp.exists() is (said.code == 0)
        if said.code:
            assert_told(said)
        made = [each for each in (before, round) if is_of(platform, image, each)]
        assert len(made) == 1, f"the image is of neither setup\n{said}"
        assert made == [round] or said.code, f"not what setup said\n{said}"
        before = made[0]
        left = [path.name for path in (platform.state / "engine" / "layers").iterdir()]
        assert len(left) == 1, f"a trace of a save: {left}"
    project.make("setup")
    assert is_of(platform, image, ROUNDS)


def check_jobs(platform: Platform, told: Told) -> None:
    """Each job that was accepted is there, and has ended as one that died with the server, or as
    somebody asked."""
    assert not told.refused
    assert not [job for job in platform.jobs() if job.is_active]
    assert platform.job(told.writer).status == "failed"
    for id in told.started:
        expected = {"cancelled"} if id in told.ended else {"failed"}
        if id in told.asked_to_end - told.ended:
            expected = {"cancelled", "failed"}
        assert platform.job(id).status in expected
    assert not list((platform.state / "engine" / "jobs").iterdir())


def check_images(platform: Platform, told: Told, earlier: Set[str]) -> Set[str]:
    """No image of an earlier round is lost, none that was answered for, and each is whole; no layer
    is without one. Return the images that there are."""
    engine = platform.state / "engine"
    images: Set[str] = set()
    named: Set[str] = set()
    for record in (engine / "images").iterdir():
        assert record.suffix == ".json", f"a trace of a save: {record}"
        image = json.loads(record.read_text())
        own = [layer for layer in image["layers"] if not is_of_the_base(platform, layer)]
        assert len(own) == 1, image
        whole = engine / "layers" / own[0] / "opt" / "venv" / "many"
        assert len(list(whole.iterdir())) == FILES
        images.add(image["reference"])
        named.add(own[0])
    assert {layer.name for layer in (engine / "layers").iterdir()} == named
    assert earlier <= images <= earlier | {told.image}
    assert told.image in images or not told.saved, "a save that was answered whole is lost"
    for name in images:
        round = int(name.removeprefix("user/power-").partition(":")[0])
        assert is_of(platform, name, round), f"not what was saved: {name}"
    return images


def is_of_the_base(platform: Platform, layer: str) -> bool:
    """Whether all instances share the layer."""
    cache = Path(platform.plain_env["XDG_CACHE_HOME"])
    return (cache / "neuro-local" / "layers" / layer).is_dir()


def is_of(platform: Platform, image: str, round: int) -> bool:
    """Whether a job from the image finds all files, and what that round wrote in each."""
    host = platform.url.removeprefix("http://")
    command = f"sh -c 'test $(grep -lx {round} /opt/venv/many/* | wc -l) = {FILES}'"
    return platform.run_job(command, image=f"{host}/{image}").exit_code == 0


def check_files(platform: Platform, told: Told) -> None:
    """What was answered for is there, and no file holds what was not sent."""
    folder = platform.storage("power")
    for name in told.stored:
        assert (folder / name).stat().st_size == SIZE, f"lost: {name}"
    for path in folder.glob("*"):
        content = path.read_bytes()
        assert content == b"x" * len(content), f"not what was sent: {path}"


def writing(round: int) -> str:
    each = f"echo {round} >/opt/venv/many/$i"
    return f"mkdir /opt/venv/many; for i in $(seq 1 {FILES}); do {each}; done"


def save(platform: Platform, told: Told) -> None:
    host = platform.url.removeprefix("http://")
    body = json.dumps({"container": {"image": f"{host}/{told.image}"}}).encode()
    with suppress(OSError, HTTPException, ValueError):
        path = f"/monitoring/jobs/{told.writer}/save"
        told.saved = b'"CommitFinished"' in platform.request(path, method="POST", body=body)[1]


def upload(platform: Platform, told: Told) -> None:
    with suppress(OSError, HTTPException, ValueError):
        for number in range(50):
            name = f"{told.round}-{number}"
            path = f"/storage/user/power/{name}?op=CREATE"
            if platform.request(path, method="PUT", body=b"x" * SIZE)[0] == 201:
                told.stored.append(name)


def start_and_stop(platform: Platform, told: Told) -> None:
    body = {"image": "python", "preset_name": "cpu-small", "entrypoint": "sleep 600"}
    started: List[str] = []
    with suppress(OSError, HTTPException, ValueError, KeyError):
        for _ in range(10):
            path, sent = "/api/v1/jobs?from_preset", json.dumps(body).encode()
            status, answer = platform.request(path, method="POST", body=sent)
            if status != 202:
                told.refused.append(answer)
                return
            started.append(json.loads(answer)["id"])
            told.started.add(started[-1])
            if len(started) > 2:
                end(platform, told, started.pop(0))


def end(platform: Platform, told: Told, id: str) -> None:
    told.asked_to_end.add(id)
    if platform.request(f"/api/v1/jobs/{id}", method="DELETE")[0] == 204:
        told.ended.add(id)
