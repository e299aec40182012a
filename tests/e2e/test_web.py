"""`run_jupyter`, `run_tensorboard`, `run_filebrowser`: pages that answer, to the right people."""

from __future__ import annotations

import http.cookiejar
import json
import urllib.error
import urllib.request
from typing import Dict, Tuple
from urllib.parse import urljoin

import pytest

from .commands import wait_until
from .conftest import PLAIN_IMAGE, Render, Trained, made_ready, no_job
from .platform import Job, Platform
from .project import Project

# The sandbox cannot pull the real file browser: this takes the same options, and serves files.
FILE_SERVER = """#!/usr/bin/env python3
import argparse, functools, http.server

parser = argparse.ArgumentParser()
for option in ("--address", "--port", "--root", "--database"):
    parser.add_argument(option, required=True)
parser.add_argument("--noauth", action="store_true", required=True)
parser.add_argument("--disable-exec", action="store_true", required=True)
args = parser.parse_args()
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=args.root)
http.server.ThreadingHTTPServer((args.address, int(args.port)), handler).serve_forever()
"""


class Visitor:
    """A browser with cookies, which enters by the address that the platform gives."""

    def __init__(self, address: str) -> None:
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
        self._address = address

    def get(self, path: str = "") -> Tuple[int, bytes]:
        try:
            with self._opener.open(urljoin(self._address, path), timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def enter(self) -> None:
        """Return once the job's page answers; before that the platform says 502."""
        wait_until(lambda: self.get()[0] != 502, f"{self._address} answers", timeout=60)


def address(job: Job) -> str:
    assert job.http_url is not None
    return job.http_url


@pytest.fixture(scope="module")
def file_server(platform: Platform) -> str:
    """An image with a program /filebrowser."""
    job = platform.start_job("sleep 600")
    script = 'printf %s "$1" >/filebrowser && chmod 755 /filebrowser'
    platform.neuro("exec", "-T", job.id, "sh", "-c", script, "sh", FILE_SERVER)
    platform.neuro("save", job.id, "image:file-server")
    platform.end_job(job.id)
    return "image:file-server"


def test_jupyter_without_the_platforms_login_asks_for_its_token(trainer: Project) -> None:
    result = trainer.make("run_jupyter", HTTP_AUTH="--no-http-auth", BROWSE="no")

    assert "token" in result.stdout
    visitor = Visitor(address(trainer.job("jupyter")))
    visitor.enter()
    assert visitor.get("/api/contents")[0] == 403
    assert visitor.get("/api/terminals")[0] == 403
    # The command that the target names shows the token, which opens it.
    name = f"jupyter-{trainer.slug}"
    assert f"logs {name}" in result.stdout
    with trainer.platform.start_neuro("logs", name) as log:
        log.wait_for("?token=")
        token = log.stdout.partition("?token=")[2].split()[0]
    assert visitor.get(f"/api/contents?token={token}")[0] == 200


def test_browser_opens_at_the_jobs_page_each_time(ready: Project, file_server: str) -> None:
    before = ready.platform.browser.opened

    for _ in range(2):
        ready.make("run_filebrowser", FILEBROWSER_IMAGE=file_server)

        visitor = Visitor(ready.platform.browser.opened[-1])
        visitor.enter()
        assert visitor.get("/")[0] == 200
    assert len(ready.platform.browser.opened) == len(before) + 2


@no_job
def test_jupyter_on_a_wrong_preset_is_a_failure(ready: Project) -> None:
    ready.fails("run_jupyter", PRESET="gpu-nope", says="not started")


def test_tensorboard_shows_the_scalars_of_a_training(trained: Trained, built: Project) -> None:
    project = trained.project
    project.make("run_tensorboard", TENSORBOARD_IMAGE=f"image:{built.slug}", BROWSE="no")
    visitor = Visitor(address(project.job("tensorboard")))
    visitor.enter()

    def tags() -> Dict[str, Dict[str, object]]:
        status, body = visitor.get("/data/plugin/scalars/tags")
        return json.loads(body) if status == 200 else {}

    runs = wait_until(tags, "TensorBoard has read the training's events")
    assert [list(run) for run in runs.values()] == [["accuracy"]]
    project.platform.end_jobs(name=f"tensorboard-{project.slug}")


def test_filebrowser_serves_the_projects_storage(ready: Project, file_server: str) -> None:
    ready.store("results/metrics.json", '{"accuracy": 0.5}')

    ready.make("run_filebrowser", FILEBROWSER_IMAGE=file_server, BROWSE="no")

    url = address(ready.job("filebrowser"))
    visitor = Visitor(url)
    visitor.enter()
    assert visitor.get("/results/metrics.json") == (200, b'{"accuracy": 0.5}')
    assert Visitor(url.partition("?")[0]).get("/results/metrics.json")[0] == 401


def test_filebrowser_never_goes_without_the_platforms_login(
    ready: Project, file_server: str
) -> None:
    ready.make(
        "run_filebrowser",
        FILEBROWSER_IMAGE=file_server,
        BROWSE="no",
        HTTP_AUTH="--no-http-auth",
    )

    url = address(ready.job("filebrowser"))
    Visitor(url).enter()
    assert Visitor(url.partition("?")[0]).get()[0] == 401


def test_filebrowser_that_its_image_lacks_is_a_failure(ready: Project) -> None:
    ready.fails("run_filebrowser", FILEBROWSER_IMAGE=PLAIN_IMAGE, says="not started")

    assert ready.job("filebrowser").status == "failed"


@no_job
@pytest.mark.parametrize("target", ["run_jupyter", "run_tensorboard", "run_filebrowser"])
def test_page_is_not_started_when_the_login_expired(
    render: Render, expired_platform: Platform, target: str
) -> None:
    project = made_ready(render(expired_platform))

    project.fails(target, BROWSE="no", says="could not list the jobs")
