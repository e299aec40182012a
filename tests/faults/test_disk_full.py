"""A full disk: the client is told, what is stored stays as it was, and with room all goes on."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator

import pytest
from clients import APOLO, Client
from e2e.commands import Result, run, wait_until
from e2e.conftest import PLAIN_IMAGE, Render, only_with
from e2e.platform import Platform
from e2e.project import Project

from .disks import MIB, Filler, small_disk

# What a client is told is the server's business, so one of them will do.
CLIENT = APOLO
SIZE = 48 * MIB
LARGE = 6 * MIB

pytestmark = [pytest.mark.xdist_group("small"), only_with(CLIENT)]


class Apart(Platform):
    """An instance whose client keeps its configuration elsewhere: on a full disk the client gives
    up for want of its own."""

    @property
    def env(self) -> Dict[str, str]:
        configs = {name: str(self.home / name) for name in ("APOLO_CONFIG", "NEUROMATION_CONFIG")}
        for folder in configs.values():
            Path(folder).mkdir(mode=0o700, exist_ok=True)
        return {**super().env, **configs}


@dataclass(frozen=True)
class Small:
    """An instance on a disk that can be filled."""

    platform: Platform
    filler: Filler


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Iterator[Small]:
    platform = Apart(tmp_path_factory.mktemp("small"), client=client)
    with small_disk(platform.state, SIZE):
        platform.up()
        yield Small(platform, Filler(platform.state))
        platform.down()


@pytest.fixture
def small(instance: Small) -> Iterator[Small]:
    yield instance
    instance.filler.free()
    if not instance.platform.answers:
        instance.platform.up()
    instance.platform.end_jobs()
    log = (instance.platform.state / "server.log").read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def project(small: Small, render: Render) -> Project:
    return render(small.platform)


def says_full(result: Result) -> None:
    """Fail unless the client was told what is the matter."""
    said = result.stdout + result.stderr
    assert "No space left on device" in said or "disk is full" in said, result
    assert "Traceback" not in said, result


def layers(platform: Platform) -> Dict[str, int]:
    """Return the layers of saved images, and how many files each has."""
    folder = platform.state / "engine" / "layers"
    return {layer.name: len(list(layer.rglob("*"))) for layer in folder.iterdir()}


def test_upload_to_a_full_disk_fails_and_completes_with_room(
    small: Small, project: Project
) -> None:
    # Changed after it was uploaded, as it seems: so the client sends it again, and on a full disk.
    soon = time.time() + 60
    os.utime(project.write("data/kept.bin", os.urandom(MIB)), (soon, soon))
    project.make("upload_data")
    before = project.storage("data/kept.bin").read_bytes()
    project.write("data/large.bin", os.urandom(LARGE))
    small.filler.fill()

    says_full(project.fails("upload_data", says="the upload is not complete"))

    assert project.storage("data/kept.bin").read_bytes() == before
    small.filler.free()
    project.make("upload_data")
    for name in ("data/kept.bin", "data/large.bin"):
        assert project.storage(name).read_bytes() == (project.path / name).read_bytes()


def test_secret_on_a_full_disk_is_refused_and_keeps_its_old_value(small: Small) -> None:
    platform = small.platform
    platform.neuro("secret", "add", "full", "old")
    small.filler.fill()

    says_full(platform.neuro("secret", "add", "full", "new", code=74))

    assert platform.neuro("secret", "get", "full").stdout.strip() == "old"
    small.filler.free()
    platform.neuro("secret", "add", "full", "new")
    assert platform.neuro("secret", "get", "full").stdout.strip() == "new"


def test_save_to_a_full_disk_fails_and_keeps_the_old_image(small: Small) -> None:
    platform = small.platform
    job = platform.start_job("sleep 600")
    platform.neuro("exec", "-T", job.id, "sh -c 'echo old >/opt/file'")
    platform.neuro("save", job.id, "image:full:v1")
    before = layers(platform)
    platform.neuro(
        "exec", "-T", job.id, "sh -c 'echo new >/opt/file; head -c 4000000 /dev/urandom >/opt/x'"
    )
    small.filler.fill()

    says_full(platform.neuro("save", job.id, "image:full:v1", code=76))

    assert layers(platform) == before
    small.filler.free()
    assert platform.neuro("run", "-T", "image:full:v1", "cat", "/opt/file").stdout.count("old")
    platform.neuro("save", job.id, "image:full:v1")
    assert platform.neuro("run", "-T", "image:full:v1", "cat", "/opt/file").stdout.count("new")


def test_job_on_a_full_disk_fails_to_start_and_blocks_no_name(small: Small) -> None:
    platform = small.platform
    command = ("run", "-T", "--name", "full-start", PLAIN_IMAGE, "echo", "started")
    small.filler.fill()

    failed = platform.neuro(*command, code=None)

    assert failed.code != 0
    says_full(failed)
    assert not [job for job in platform.jobs(name="full-start") if job.is_active]
    small.filler.free()
    assert "started" in platform.neuro(*command).stdout


def test_log_tells_of_output_that_the_disk_had_no_room_for(small: Small) -> None:
    platform = small.platform
    folder = platform.storage("full-log")
    folder.mkdir(parents=True)
    script = (
        "echo before; while [ ! -e /s/go ]; do sleep 0.1; done; seq 1 100000; touch /s/said;"
        " while [ ! -e /s/on ]; do sleep 0.1; done; echo after"
    )
    volume = {"src_storage_uri": "storage://local/user/full-log", "dst_path": "/s"}
    job = platform.start_job(f'sh -c "{script}"', volumes=[{**volume, "read_only": False}])
    with platform.start_neuro("logs", job.id) as follower:
        follower.wait_for("before")
        small.filler.fill()
        (folder / "go").touch()
        wait_until(lambda: (folder / "said").exists(), "the job has not been held up")
        small.filler.free()
        (folder / "on").touch()
        said = follower.wait().stdout

    shown = platform.neuro("logs", job.id).stdout
    for text in (said, shown):
        assert "[neuro-local lost output of this job here: No space left on device]" in text
        assert text.index("before") < text.index("neuro-local lost") < text.index("after")
    assert (
        b"part of its output is lost: No space left"
        in platform.request(f"/api/v1/jobs/{job.id}")[1]
    )


def test_job_that_ends_on_a_full_disk_says_how_it_ended(small: Small) -> None:
    platform = small.platform
    job = platform.start_job(
        "sh -c 'while [ ! -e /tmp/go ]; do sleep 0.1; done; seq 1 100000; exit 7'"
    )
    small.filler.fill()
    # With any code: the job may end, and take this along, soon after the file is there.
    platform.neuro("exec", "-T", job.id, "touch /tmp/go", code=None)

    ended = platform.wait_for(job.id, "failed")

    assert ended.exit_code == 7
    small.filler.free()
    platform.down()
    platform.up()
    assert platform.job(job.id).exit_code == 7


def test_job_can_be_killed_on_a_full_disk(small: Small) -> None:
    platform = small.platform
    job = platform.start_job("sleep 600")
    small.filler.fill()

    platform.neuro("kill", job.id)

    assert platform.job(job.id).status == "cancelled"


def test_instance_that_finds_its_disk_full_says_so_and_starts_with_room(small: Small) -> None:
    platform = small.platform
    platform.down()
    small.filler.fill()

    command = [sys.executable, "-m", "neuro_local", "--state-dir", str(platform.state), "up"]
    result = run(command, cwd=platform.home, env=platform.plain_env, code=None)

    if result.code != 0:
        says_full(result)
    small.filler.free()
    platform.up()
    assert platform.answers
