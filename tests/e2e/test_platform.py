"""neuro-local itself: its commands, its restart, its neighbours, and what it lets out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .commands import run, wait_until
from .conftest import PLAIN_IMAGE, no_client
from .platform import Platform, fetch, processes_with


def test_up_tells_how_to_point_the_client_at_it(other_platform: Platform) -> None:
    said = other_platform.neuro_local("up").stdout

    command = next(line for line in said.splitlines() if "eval" in line)
    script = f"{command}; neuro config show"
    shell = ["sh", "-c", script]
    done = subprocess.run(shell, env=other_platform.plain_env, capture_output=True, text=True)
    assert "local" in done.stdout, done.stderr


def test_up_in_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    platform.state.mkdir()
    (platform.state / "letter").touch()

    platform.neuro_local("up", code=2).explains("holds other files than those of neuro-local")

    assert [path.name for path in platform.state.iterdir()] == ["letter"]


@no_client
def test_up_of_what_runs_is_a_success(platform: Platform) -> None:
    assert "already running" in platform.neuro_local("up").stdout


@no_client
def test_status_names_the_running_jobs(platform: Platform) -> None:
    job = platform.start_job("sleep 600")

    said = platform.neuro_local("status").stdout

    assert job.id in said
    platform.end_job(job.id)


@no_client
def test_status_of_what_does_not_run_is_a_failure(dead_platform: Platform) -> None:
    assert "does not run" in dead_platform.neuro_local("status", code=1).stdout


@no_client
def test_env_of_what_does_not_run_says_how_to_start_it(dead_platform: Platform) -> None:
    dead_platform.neuro_local("env", code=2).explains("up")


@no_client
def test_down_of_what_does_not_run_is_a_success(dead_platform: Platform) -> None:
    dead_platform.neuro_local("down")


@no_client
def test_logs_show_the_servers_log(platform: Platform) -> None:
    platform.neuro_local("logs")


def test_users_own_configuration_stays_untouched(platform: Platform, tmp_path: Path) -> None:
    run([*platform.client.command, "ps"], cwd=tmp_path, env={**platform.env, "HOME": str(tmp_path)})

    # The client always writes its own log there.
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "logs"
    ] == []


def test_restart_keeps_storage_images_and_jobs(other_platform: Platform) -> None:
    platform = other_platform
    platform.neuro(
        "run", "-T", "--name", "kept-failed", PLAIN_IMAGE, "sh", "-c", "echo mark; exit 3", code=3
    )
    job = platform.start_job("sleep 600", name="kept-running")
    platform.neuro("exec", "-T", job.id, "touch", "/opt/kept")
    platform.neuro("save", job.id, "image:kept")
    platform.storage("kept").mkdir(parents=True)
    platform.storage("kept/file").write_text("kept")
    port, token = platform.url, platform.token

    platform.down()
    platform.up()

    assert (platform.url, platform.token) == (port, token)
    ended = platform.job("kept-failed")
    assert (ended.status, ended.exit_code) == ("failed", 3)
    assert platform.job(job.id).status == "cancelled"
    assert platform.neuro("logs", "kept-failed").stdout.count("mark") == 1
    assert "file" in platform.neuro("ls", "storage:kept").stdout
    platform.neuro("run", "-T", "image:kept", "ls", "/opt/kept")


@no_client
def test_down_ends_the_jobs(other_platform: Platform) -> None:
    job = other_platform.start_job("sleep 600123")

    other_platform.down()

    assert not processes_with("sleep\0" "600123")
    other_platform.up()
    assert other_platform.job(job.id).status == "cancelled"


def test_instances_do_not_see_each_other(platform: Platform, other_platform: Platform) -> None:
    job = platform.start_job("sleep 600", name="one-of-two")
    platform.storage("one-of-two").mkdir(parents=True)

    assert other_platform.jobs(name="one-of-two") == []
    assert "one-of-two" not in other_platform.neuro("ls").stdout
    status, _ = other_platform.request("/api/v1/jobs", token=platform.token)
    assert status == 401

    platform.end_job(job.id)


@no_client
def test_page_needs_a_ticket_unless_the_job_said_otherwise(platform: Platform) -> None:
    command = "python3 -m http.server 80"
    closed = platform.start_job(command, http={"port": 80, "requires_auth": True})
    open_ = platform.start_job(command, http={"port": 80, "requires_auth": False})
    assert closed.http_url and open_.http_url
    url = open_.http_url

    wait_until(lambda: fetch(url)[0] == 200, "the open page answers")

    bare = closed.http_url.partition("?")[0]
    assert fetch(bare)[0] == 401
    assert fetch(bare + "?neuro-local-ticket=wrong")[0] == 401
    assert fetch(bare, method="POST")[0] == 401
    assert fetch(closed.http_url)[0] == 303
    platform.end_job(closed.id)
    platform.end_job(open_.id)


@no_client
def test_page_goes_with_its_job(platform: Platform) -> None:
    job = platform.start_job("python3 -m http.server 80", http={"port": 80, "requires_auth": True})
    assert job.http_url

    platform.end_job(job.id)

    url = job.http_url

    def refused() -> bool:
        try:
            fetch(url)
        except OSError:
            return True
        return False

    wait_until(refused, "the page's port is closed")


def test_jobs_do_not_reach_each_other(platform: Platform) -> None:
    server = platform.start_job("python3 -m http.server 8124")

    platform.neuro(
        "run",
        "-T",
        PLAIN_IMAGE,
        "python3",
        "-c",
        "import socket; socket.create_connection(('127.0.0.1', 8124), 3)",
        code=1,
    )

    platform.end_job(server.id)


def test_job_does_not_see_the_platforms_own_files(platform: Platform) -> None:
    token = platform.state / "token"

    result = platform.neuro("run", "-T", PLAIN_IMAGE, "cat", str(token), code=1)

    assert platform.token not in result.stdout


@no_client
@pytest.mark.parametrize("route", ["/buckets", "/disks", "/users/user/permissions"])
def test_what_is_lacking_says_so(platform: Platform, route: str) -> None:
    status, body = platform.request(route)

    assert status == 501
    assert b"neuro-local does not have" in body
