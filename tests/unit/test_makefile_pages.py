"""What the jobs with a page or a port call of the client, whole, on success and on failure."""

from __future__ import annotations

from typing import List

import pytest
from baking import Project, Reply, Result, option
from targets import MOUNTS, TAG, sentence

WEB = ["jupyter", "tensorboard", "filebrowser"]

RUNS = Reply("--quiet ps", out="job-1\n")

JUPYTER = (
    "python -m jupyterlab --no-browser --allow-root --ip=0.0.0.0 --port=80 "
    "--ServerApp.root_dir=/project/notebooks "
)


def started(result: Result, job: str) -> List[str]:
    """The call that started the job, between the look for one that runs and the page."""
    assert result.code == 0, result.err
    assert result.calls[0] == ["--quiet", "ps", "--name", f"{job}-my-project"]
    assert result.calls[2:] in ([["job", "browse", f"{job}-my-project"]], [])
    return result.calls[1]


def test_jupyter(project: Project) -> None:
    result = project.make("run_jupyter")

    assert started(result, "jupyter") == [
        *["run", "--detach", "--name", "jupyter-my-project", *TAG],
        *["--life-span", "1d", "--preset", "cpu-small", *MOUNTS],
        *["--volume", "storage:my-project/results:/project/results:rw"],
        *["--workdir", "/project/notebooks"],
        *["--entrypoint", JUPYTER + "--IdentityProvider.token="],
        *["--http-auth", "image:my-project"],
    ]


@pytest.mark.parametrize("value", ["--no-http-auth", ""])
def test_jupyter_keeps_its_token_without_the_platforms_login(project: Project, value: str) -> None:
    result = project.make("run_jupyter", f"HTTP_AUTH={value}")

    assert option(started(result, "jupyter"), "--entrypoint") == JUPYTER
    assert "logs jupyter-my-project" in result.out


def test_run_extra_cannot_open_jupyter_without_a_token(project: Project) -> None:
    call = started(project.make("run_jupyter", "RUN_EXTRA=--no-http-auth"), "jupyter")

    assert call.index("--no-http-auth") < call.index("--http-auth")


def test_tensorboard(project: Project) -> None:
    assert started(project.make("run_tensorboard"), "tensorboard") == [
        *["run", "--detach", "--name", "tensorboard-my-project", *TAG],
        *["--life-span", "1d"],
        *["--volume", "storage:my-project/results:/project/results:ro"],
        *["--entrypoint"],
        "python -m tensorboard.main --logdir /project/results --host 0.0.0.0 --port 80",
        *["--http-auth", "tensorflow/tensorflow:2.19.0"],
    ]


@pytest.mark.parametrize("arguments", [[], ["HTTP_AUTH=--no-http-auth"]])
def test_the_filebrowser_is_always_behind_the_login(project: Project, arguments: List[str]) -> None:
    assert started(project.make("run_filebrowser", *arguments), "filebrowser") == [
        *["run", "--detach", "--name", "filebrowser-my-project", *TAG],
        *["--life-span", "1d", "--volume", "storage:my-project:/srv:rw", "--entrypoint"],
        "/filebrowser --noauth --address 0.0.0.0 --port 80 --root /srv"
        " --database /tmp/filebrowser.db --disable-exec",
        *["--http-auth", "filebrowser/filebrowser:v2.32.3"],
    ]


def test_develop(project: Project) -> None:
    result = project.make("run_develop")

    assert started(result, "develop") == [
        *["run", "--detach", "--name", "develop-my-project", *TAG],
        *["--life-span", "1d", "--preset", "cpu-small"],
        *[word.replace("code:ro", "code:rw") for word in MOUNTS],
        *["--volume", "storage:my-project/results:/project/results:rw"],
        *["--workdir", "/project/code", "--entrypoint", "tail -f /dev/null", "image:my-project"],
    ]
    assert "make connect_develop" in result.out


@pytest.mark.parametrize(
    ("arguments", "ports"),
    [([], "8000:8000"), (["LOCAL_PORT=9000", "REMOTE_PORT=5000"], "9000:5000")],
)
def test_port_forward(project: Project, arguments: List[str], ports: str) -> None:
    result = project.make("port_forward_develop", *arguments, replies=[RUNS])

    assert result.calls[1:] == [["port-forward", "develop-my-project", ports]]


def test_port_forward_needs_the_job(project: Project) -> None:
    result = project.make("port_forward_develop")

    assert result.code != 0
    assert result.commands == ["ps"]
    assert sentence(result.err) == "port_forward_develop: it does not run: make run_develop"


@pytest.mark.parametrize("job", [*WEB, "develop"])
def test_a_start_says_how_long_it_lasts_and_how_to_end_it(project: Project, job: str) -> None:
    result = project.make(f"run_{job}", "LIFE_SPAN=8h")

    said = f"{job}-my-project runs for 8h at most; to end it: make kill_{job}"
    assert said in result.out.splitlines()


@pytest.mark.parametrize("job", [*WEB, "develop"])
def test_what_runs_already_is_not_started_again(project: Project, job: str) -> None:
    result = project.make(f"run_{job}", replies=[RUNS])

    assert result.code == 0
    assert f"{job}-my-project runs already; to end it: make kill_{job}" in result.out.splitlines()
    assert ["job", "browse", f"{job}-my-project"] in result.calls or job == "develop"
    assert "run" not in result.commands


@pytest.mark.parametrize("job", WEB)
@pytest.mark.parametrize("browse", ["", "no"])
def test_without_a_browser_the_address_is_printed(project: Project, job: str, browse: str) -> None:
    table = " Name       x \n Http URL   http://host/?a=b  \n Http port  80 \n"

    result = project.make(f"run_{job}", f"BROWSE={browse}", replies=[Reply("status", out=table)])

    assert result.calls[2:] == [["status", f"{job}-my-project"]]
    assert "Open in a browser: http://host/?a=b" in result.out.splitlines()


@pytest.mark.parametrize("job", WEB)
@pytest.mark.parametrize(
    ("browse", "reply"),
    [
        ("yes", Reply("browse", 72)),
        ("no", Reply("status", 72)),
        ("no", Reply("status", out=" Status  failed\n")),
    ],
)
def test_a_page_that_is_not_there_is_a_failure(
    project: Project, job: str, browse: str, reply: Reply
) -> None:
    result = project.make(f"run_{job}", f"BROWSE={browse}", replies=[reply])

    assert result.code != 0
    assert "no address to open" in sentence(result.err)


@pytest.mark.parametrize("job", [*WEB, "develop"])
@pytest.mark.parametrize(
    ("words", "says"), [("--quiet ps", "could not list"), ("run", "not started")]
)
def test_a_job_that_cannot_be_started_is_a_failure(
    project: Project, job: str, words: str, says: str
) -> None:
    result = project.make(f"run_{job}", replies=[Reply(words, 65)])

    assert result.code != 0
    assert result.commands[-1] == words.split()[-1]
    assert sentence(result.err).startswith(f"run_{job}: {says}")
    assert "at most" not in result.out


@pytest.mark.parametrize(
    "target", ["run_training", "run_jupyter", "run_tensorboard", "run_filebrowser", "run_develop"]
)
def test_jobs_are_on_port_80_and_end_by_themselves(project: Project, target: str) -> None:
    run = next(call for call in project.make(target).calls if call[0] == "run")

    assert option(run, "--life-span") == "1d"
    assert not [word for word in run if word.startswith("--http") and word != "--http-auth"]
