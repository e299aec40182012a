"""`make login` through the browser, and what happens to those who are not let in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Dict
from urllib.parse import urlencode

import aiohttp
import pytest

from .commands import run
from .platform import NEURO, Job, Platform, fetch
from .project import Project

# Does what a user does at the page that opens: pastes the token, sends the form, and follows to
# where the client waits. Fails as a browser would that was closed at a refusal.
BROWSER = """#!{python}
import sys, urllib.error, urllib.parse, urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
page = opener.open(sys.argv[1], timeout=10).read().decode()
assert '<form method="post">' in page and 'name="token"' in page, page
form = urllib.parse.urlencode({{"token": {token!r}}}).encode()
try:
    opener.open(sys.argv[1], form, timeout=10).read()
except urllib.error.HTTPError as refusal:
    sys.exit(f"the page answers {{refusal.code}}")
"""


@pytest.fixture
def newcomer(project: Project, tmp_path: Path) -> Project:
    """A project of somebody who has the client, and has never logged in."""
    environment = {
        **project.platform.plain_env,
        "APOLO_CONFIG": str(tmp_path / "apolo"),
        "NEUROMATION_CONFIG": str(tmp_path / "neuromation"),
        "NEURO_CLI_DISABLE_PYPI_VERSION_CHECK": "true",
    }
    address = f"{project.platform.url}/api/v1"
    return Project(project.path, project.platform, {"LOGIN_URL": address}, environment)


def with_browser(project: Project, folder: Path, token: str) -> Project:
    browser = folder / "browser"
    browser.write_text(BROWSER.format(python=sys.executable, token=token))
    browser.chmod(0o755)
    environment = {**project.env, "BROWSER": str(browser)}
    return Project(project.path, project.platform, project.variables, environment)


def test_login_through_the_browser(newcomer: Project, tmp_path: Path) -> None:
    user = with_browser(newcomer, tmp_path, newcomer.platform.token)

    result = user.make("login")

    assert "make check" in result.stdout
    user.make("upload_code")
    assert user.storage("code/train.py").exists()


def test_login_with_a_wrong_token_is_a_failure(newcomer: Project, tmp_path: Path) -> None:
    user = with_browser(newcomer, tmp_path, "not.the.token")

    result = user.fails("login", says="without a browser use")

    assert "the page answers 403" in result.stderr
    user.fails("ps", says="could not list the jobs")


def test_login_without_a_browser_is_a_failure(newcomer: Project) -> None:
    environment = {**newcomer.env, "BROWSER": "/nowhere/browser"}
    user = Project(newcomer.path, newcomer.platform, newcomer.variables, environment)

    user.fails("login", says="login-with-token TOKEN URL")


def test_login_where_nobody_answers_is_a_failure(newcomer: Project) -> None:
    newcomer.fails("login", LOGIN_URL="http://127.0.0.1:9/api/v1", says="not logged in")


def test_login_with_the_token_needs_no_browser(newcomer: Project) -> None:
    address, token = newcomer.variables["LOGIN_URL"], newcomer.platform.token

    words = [*NEURO, "config", "login-with-token", token, address]
    run(words, cwd=newcomer.path, env={**newcomer.env, "BROWSER": "/nowhere"})

    newcomer.make("ps")


def test_token_is_for_the_user_only(platform: Platform) -> None:
    assert (platform.state / "token").stat().st_mode & 0o777 == 0o600
    assert platform.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("token", ["", "wrong", "a.b.c"], ids=["none", "wrong", "no jwt of ours"])
@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs?from_preset"),
        ("GET", "/api/v1/jobs/JOB"),
        ("DELETE", "/api/v1/jobs/JOB"),
        ("GET", "/storage/neuro-local/user?op=LISTSTATUS"),
        ("PUT", "/storage/neuro-local/user/x?op=CREATE"),
        ("DELETE", "/storage/neuro-local/user?op=DELETE&recursive=true"),
        ("GET", "/monitoring/jobs/capacity"),
        ("GET", "/monitoring/jobs/JOB/log"),
        ("POST", "/monitoring/jobs/JOB/save"),
        ("POST", "/monitoring/jobs/JOB/exec_create"),
        ("GET", "/no/such/route"),
    ],
)
def test_request_needs_the_token(
    platform: Platform, running: Job, token: str, method: str, path: str
) -> None:
    url = platform.url + path.replace("JOB", running.id)
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    assert fetch(url, method=method, headers=headers)[0] == 401

    assert platform.job(running.id).status == "running"


@pytest.mark.parametrize("token", ["", "wrong"], ids=["none", "wrong"])
@pytest.mark.parametrize(
    "path, query",
    [
        ("log_ws", {}),
        ("attach", {"tty": "0", "stdin": "1", "stdout": "1", "stderr": "1"}),
        ("attach", {"stdin": "1", "stdout": "1", "stderr": "1", "logs": "1"}),
        ("exec", {"cmd": "id", "tty": "0", "stdin": "1", "stdout": "1", "stderr": "1"}),
        ("port_forward/80", {}),
        ("0123/exec_start", {}),
    ],
    ids=["log", "attach", "attach of the older client", "exec", "port forward", "older exec"],
)
async def test_websocket_needs_the_token(
    platform: Platform, running: Job, token: str, path: str, query: Dict[str, str]
) -> None:
    url = f"{platform.url}/monitoring/jobs/{running.id}/{path}?{urlencode(query)}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url, headers=headers)

    assert refusal.value.status == 401


def test_stranger_learns_only_where_to_log_in(platform: Platform) -> None:
    status, body = platform.request("/api/v1/config", token="")

    assert status == 200
    assert platform.token.encode() not in body
    assert "clusters" not in json.loads(body) or not json.loads(body)["clusters"]


@pytest.fixture(scope="module")
def running(platform: Platform) -> Job:
    return platform.start_job("sleep 600")
