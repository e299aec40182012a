"""What `make demo` runs, on either engine."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Dict, List

import pytest
from baking import TEMPLATE
from dockercli import Docker
from dockerimages import FILEBROWSER, TENSORBOARD, Images

DEADLINE = 900
# One at a time: each looks for what the demo has left in the one Docker engine.
pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(DEADLINE)]


def test_demo_goes_through_the_whole_cycle_on_the_sandbox(tmp_path: Path) -> None:
    demonstrate(tmp_path, NEURO_LOCAL_ENGINE="sandbox")


def test_demo_goes_through_the_whole_cycle_on_docker(tmp_path: Path, docker_engine: Images) -> None:
    docker_engine.ensure(TENSORBOARD)

    demonstrate(tmp_path, NEURO_LOCAL_ENGINE="docker", DOCKER_HOST=docker_engine.host)

    assert left_in(Docker(docker_engine.host), tmp_path) == []


def test_demo_that_is_kept_shows_its_pages_until_it_is_ended(
    tmp_path: Path, docker_engine: Images
) -> None:
    docker_engine.ensure(TENSORBOARD, FILEBROWSER)
    settings = {"NEURO_LOCAL_ENGINE": "docker", "DOCKER_HOST": docker_engine.host}

    said = run(["sh", "scripts/demo.sh"], environment(tmp_path, KEEP="1", **settings))

    shown = said.partition("KEEP=1: the project and its pages stay up")[2]
    pages = re.findall("^Open in a browser: (.+)$", shown, re.MULTILINE)
    assert len(pages) == 3
    assert [open_page(page) for page in pages] == [200] * 3
    assert left_in(Docker(docker_engine.host), tmp_path) != []

    end = shown.partition("To end it all:\n")[2].strip()
    run(["sh", "-c", end], {**os.environ, "DOCKER_HOST": docker_engine.host})

    assert list(tmp_path.glob("neuro-demo.*")) == []
    for page in pages:
        with pytest.raises(OSError):
            open_page(page)
    assert left_in(Docker(docker_engine.host), tmp_path) == []


def demonstrate(folder: Path, **settings: str) -> None:
    """Run the demo, whose own folder is made in this one and goes again."""
    said = run(["sh", "scripts/demo.sh"], environment(folder, **settings))

    assert "That was the whole cycle" in said
    assert "TensorBoard answers: the run 'demo' has accuracy" in said
    assert list(folder.glob("neuro-demo.*")) == []


def environment(folder: Path, **settings: str) -> Dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TMPDIR": str(folder), **settings}


def run(command: List[str], environ: Dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=TEMPLATE, env=environ, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def open_page(address: str) -> int:
    """Visit a page as a browser does, and return the status of what it shows in the end."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
    with opener.open(address, timeout=10) as answer:
        return int(answer.status)


def left_in(docker: Docker, folder: Path) -> List[str]:
    """Return the images and volumes of the demo's name, and the containers that use the folder."""
    images = docker("image", "ls", "--format={{.Repository}}").splitlines()
    volumes = docker("volume", "ls", "--quiet").splitlines()
    mounts = docker("ps", "--all", "--no-trunc", "--format={{.Mounts}}").splitlines()
    named = [name for name in (*images, *volumes) if "neuro-demo" in name]
    return named + [sources for sources in mounts if str(folder) in sources]
