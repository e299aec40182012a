"""The develop job: a place to work in, reached by a shell and by a port."""

from __future__ import annotations

import socket

from .commands import wait_until
from .platform import fetch
from .project import Project


def test_develop_job_is_a_place_to_work_in(ready: Project) -> None:
    ready.store("code/train.py", "old\n")
    ready.store("data/data.csv", "1,2\n")

    said = ready.make("run_develop", LIFE_SPAN="2h").stdout

    name = f"develop-{ready.slug}"
    assert f"{name} runs for 2h at most; to end it: make kill_develop" in said
    with ready.at_terminal("connect_develop") as shell:
        shell.type("pwd; echo new >train.py; echo x >../data/data.csv; echo $((6 * 7))\n")
        shell.wait_for("/project/code")
        shell.wait_for("Read-only file system")
        shell.wait_for("42")
        shell.type("exit 0\n")
        shell.wait()
    assert ready.storage("code/train.py").read_text() == "new\n"
    assert ready.storage("data/data.csv").read_text() == "1,2\n"

    job = ready.job("develop")
    assert f"{name} runs already" in ready.make("run_develop").stdout
    assert ready.job("develop").id == job.id
    shown = ready.make("ps").stdout
    assert name in shown and "2h" in shown and " ago" in shown
    assert ready.make("kill_develop").stdout == f"{job.id}\nKilled: {name}\n"
    assert ready.job("develop").status == "cancelled"


def test_port_of_the_develop_job_answers_here(ready: Project) -> None:
    ready.make("run_develop")
    name = f"develop-{ready.slug}"
    server = "python -m http.server --bind 127.0.0.1 5000 >/dev/null 2>&1 &"
    ready.platform.neuro("exec", "-T", name, "sh", "-c", server)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with ready.start("port_forward_develop", LOCAL_PORT=str(port), REMOTE_PORT="5000") as forward:

        def answers() -> bool:
            assert not forward.ended, forward.stderr
            try:
                return fetch(f"http://127.0.0.1:{port}/")[0] == 200
            except OSError:
                return False

        wait_until(answers, "the server in the job answers here")


def test_port_that_is_taken_here_is_a_failure(ready: Project) -> None:
    ready.make("run_develop")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        ready.fails(
            "port_forward_develop", LOCAL_PORT=port, says=f"is LOCAL_PORT={port} free here?"
        )


def test_without_a_develop_job_the_way_to_one_is_said(ready: Project) -> None:
    ready.fails("port_forward_develop", says="it does not run: make run_develop")
    with ready.at_terminal("connect_develop") as terminal:
        assert "it does not run: make run_develop" in terminal.wait(code=2)
