"""`make login` through the browser, and what happens to those who are not let in."""

from __future__ import annotations

import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from clients import APOLO

from .commands import Terminal, run
from .conftest import no_client, no_job, only_with
from .platform import Platform
from .project import Project

pytestmark = no_job

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
        "HOME": str(tmp_path / "home"),
        "APOLO_CONFIG": str(tmp_path / "apolo"),
        "NEUROMATION_CONFIG": str(tmp_path / "neuromation"),
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
    if notes := newcomer.platform.client.logs:
        # What it receives, for everybody to read.
        logs = [path.read_text() for path in (tmp_path / "home" / notes).iterdir()]
        assert "/oauth/token" in "".join(logs)
        assert newcomer.platform.token not in "".join(logs)


def test_login_with_a_wrong_token_is_a_failure(newcomer: Project, tmp_path: Path) -> None:
    user = with_browser(newcomer, tmp_path, "not.the.token")

    result = user.fails("login", says="without a browser use")

    assert "the page answers 403" in result.stderr
    user.fails("ps", says="could not list the jobs")


# The older client waits for an answer whatever became of its browser: see the test above.
@only_with(APOLO)
def test_login_without_a_browser_is_a_failure(newcomer: Project) -> None:
    environment = {**newcomer.env, "BROWSER": "/nowhere/browser"}
    user = Project(newcomer.path, newcomer.platform, newcomer.variables, environment)

    user.fails("login", says="login-with-token TOKEN URL")


def test_login_by_a_code_that_is_carried_by_hand(newcomer: Project) -> None:
    neuro = [*newcomer.platform.client.command]
    words = [*neuro, "config", "login-headless", newcomer.variables["LOGIN_URL"]]
    with Terminal(words, cwd=newcomer.path, env=newcomer.env, width=2000) as terminal:
        terminal.wait_for("Code (empty for exit)->")
        address = re.search(r"Open (http://\S+) in a browser", terminal.screen)
        assert address is not None, terminal
        terminal.type(f"{code_shown_at(address[1], newcomer.platform.token)}\r")
        terminal.wait()

    newcomer.make("ps")


def code_shown_at(address: str, token: str) -> str:
    """Log in as at any browser, one that does not reach the client, and return what it shows."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    form = urllib.parse.urlencode({"token": token}).encode()
    page = opener.open(address, form, timeout=10).read().decode()
    code = re.search("<pre>(.+)</pre>", page)
    assert code is not None, page
    return code[1]


def test_login_where_nobody_answers_is_a_failure(newcomer: Project) -> None:
    newcomer.fails("login", LOGIN_URL="http://127.0.0.1:9/api/v1", says="not logged in")


def test_login_with_the_token_needs_no_browser(newcomer: Project) -> None:
    address, token = newcomer.variables["LOGIN_URL"], newcomer.platform.token

    words = [*newcomer.platform.client.command, "config", "login-with-token", token, address]
    run(words, cwd=newcomer.path, env={**newcomer.env, "BROWSER": "/nowhere"})

    newcomer.make("ps")


@no_client
def test_stranger_learns_only_where_to_log_in(platform: Platform) -> None:
    status, body = platform.request("/api/v1/config", token="")

    assert status == 200
    assert platform.token.encode() not in body
    assert "clusters" not in json.loads(body) or not json.loads(body)["clusters"]
