"""The power goes right after an answer: what was answered for is there, whole.

The disk is a file that is copied while it is in use: the copy lacks what the kernel has not
written yet, as the real disk would.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.platform import Platform

from .disks import Disk, contents, mount_image

FILES = 300


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_what_was_answered_for_survives_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    place, copy = tmp_path / "place", tmp_path / "cut.img"
    place.mkdir()
    with disk.mount(place):
        platform = Platform(place / "instance", settings={"XDG_CACHE_HOME": str(place / "cache")})
        platform.up()
        made = contents(place / "cache" / "neuro-local" / "layers")
        after_up = disk.cut(tmp_path / "up.img")
        job = platform.start_job("sleep 600", name="cut")
        platform.neuro("exec", "-T", job.id, f"sh -c '{writing()}'")
        platform.neuro("save", job.id, "image:cut")
        disk.cut(copy)
        platform.kill()

    with mount_image(after_up, place):
        assert contents(place / "cache" / "neuro-local" / "layers") == made
    with mount_image(copy, place):
        platform.up()
        assert platform.job(job.id).status == "failed"
        counted = platform.neuro("run", "-T", "image:cut", f"sh -c '{counting()}'").stdout
        platform.down()
    assert counted.split()[-1] == str(FILES)


def writing() -> str:
    return (
        f"mkdir /opt/venv/many; for i in $(seq 1 {FILES}); do echo text $i >/opt/venv/many/$i; done"
    )


def counting() -> str:
    return "grep -l text /opt/venv/many/* | wc -l"
