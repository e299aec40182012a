"""What trainings, kill and ps call of the client, whole, on success and on failure."""

from __future__ import annotations

import os
import pty
import re
import shlex
from pathlib import Path
from typing import List

import pytest
from baking import Project, Reply, option, options
from targets import MOUNTS, ROOT, TAG, TRAIN, sentence


def status(text: str) -> Reply:
    return Reply("status", out=f" Name   x\n Status    {text}\n Status transitions  x\n")


# What follows the run: which job is it, its log, how it ended, and is there more of the log?
WATCHED = ["ps", "logs", "status", "logs"]


def test_a_training_uploads_runs_and_asks_how_it_ended(project: Project) -> None:
    result = project.make("run_training", replies=[Reply("logs", out="epoch 1\n")])

    assert result.code == 0, result.err
    mkdir, copy, run, *watched = result.calls
    tag = options(run, "--tag")[1]
    assert mkdir == ["mkdir", "--parents", ROOT]
    assert copy[-1] == "code"
    assert run == [
        *["run", "--detach", "--no-tty", "--name", "training-my-project", *TAG, "--tag", tag],
        *["--preset", "cpu-small", "--life-span", "1d", *MOUNTS],
        *["--volume", "storage:my-project/results:/project/results:rw"],
        *["--workdir", "/project/code", "--entrypoint", TRAIN, "image:my-project"],
    ]
    assert re.fullmatch(r"run:[\d-]+", tag)
    logs = ["--quiet", "logs", "job-trained"]
    which = ["--quiet", "ps", "--all", "--tag", tag]
    assert watched == [which, logs, ["status", "job-trained"], logs]
    assert "for 1d at most; to stop it: make kill_training" in result.out
    assert result.out.count("epoch 1") == 1
    assert result.err == ""


def test_a_training_can_leave_the_code_on_storage_alone(project: Project) -> None:
    assert project.make("run_training", "UPLOAD_CODE=no").commands == ["run", *WATCHED]


def test_variables_of_a_training(project: Project) -> None:
    result = project.make(
        "run_training",
        "UPLOAD_CODE=no",
        "RUN=lr-1",
        "PRESET=gpu-small",
        "LIFE_SPAN=2h",
        "IMAGE=image:x",
        "RUN_EXTRA=--env 'A=b c'",
        "DATA_STORAGE=storage:/team/images",
    )

    run = result.calls[0]
    assert option(run, "--name") == "training-my-project-lr-1"
    assert option(run, "--preset") == "gpu-small"
    assert option(run, "--life-span") == "2h"
    assert run[-3:] == ["--env", "A=b c", "image:x"]
    assert "storage:/team/images:/project/data:ro" in options(run, "--volume")
    assert options(run, "--volume")[-1] == "storage:my-project/results/lr-1:/project/results:rw"
    assert "make kill_training RUN=lr-1" in result.out


@pytest.mark.parametrize("words", ["mkdir", "cp", "ps", "logs", "status"])
def test_each_failing_call_fails_the_training(project: Project, words: str) -> None:
    result = project.make("run_training", replies=[Reply(words, 3)])

    assert result.code != 0
    assert result.commands[-1] == words
    assert "Trained" not in result.out
    assert re.match("(run_training|upload_code): ", sentence(result.err))
    assert "Error 3" in result.err


@pytest.mark.parametrize("code", [3, 0])
def test_a_training_that_is_no_job_did_not_start(project: Project, code: int) -> None:
    result = project.make("run_training", replies=[Reply("run", code), Reply("ps")])

    assert result.code != 0
    assert result.commands == ["mkdir", "cp", "run", "ps"]
    assert sentence(result.err).startswith("run_training: the training did not start")
    assert f"Error {code or 1}" in result.err


@pytest.mark.parametrize("code", [37, 74])
def test_a_training_that_the_client_lost_or_that_failed_at_once_goes_by_its_job(
    project: Project, code: int
) -> None:
    result = project.make("run_training", "UPLOAD_CODE=no", replies=[Reply("run", code)])

    assert result.code == 0, result.err
    assert result.commands == ["run", *WATCHED]


@pytest.mark.parametrize(
    ("told", "code", "says"),
    [
        (" Status  failed\n Exit code  37\n", 37, "the training failed; its log is above: failed"),
        (" Status  failed (OOMKilled)\n Exit code  137\n", 137, "above: failed (oomkilled)"),
        (" Status  JobStatus.FAILED\n Exit code  0\n", 1, "the training failed"),
        (" Status  failed\n", 1, "the training failed"),
        (" Status  cancelled\n Exit code  0\n", 1, "the training did not run to its end"),
        (" Status  JobStatus.CANCELLED\n", 1, "the training did not run to its end"),
        ("", 1, "whether the training has ended is unknown"),
    ],
)
def test_a_training_fails_with_the_code_of_its_job(
    project: Project, told: str, code: int, says: str
) -> None:
    result = project.make("run_training", replies=[Reply("status", out=told)])

    assert result.code != 0
    assert "Trained" not in result.out
    assert says in sentence(result.err)
    assert f"Error {code}\n" in result.err


# What a log is when it is read, and read again.
GROWS = Reply("logs", sh="echo line >>shown; cat shown")
CHANGES = Reply("logs", sh="[ -e read ] && echo another || echo line; touch read")


def test_the_rest_of_a_log_that_broke_off_is_shown(project: Project) -> None:
    result = project.make("run_training", "UPLOAD_CODE=no", replies=[GROWS])

    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[1:3] == ["line", "line"]


def test_a_training_whose_log_is_another_tells_where_all_of_it_is(project: Project) -> None:
    result = project.make("run_training", "RUN=a", replies=[CHANGES])

    assert result.code == 0
    assert "Trained" in result.out
    assert "make logs_training RUN=a shows all of it" in sentence(result.err)


def test_a_training_that_outlives_its_log_is_lost_sight_of(project: Project) -> None:
    result = project.make("run_training", "RUN=a", replies=[status("running")])

    assert result.code != 0
    assert sentence(result.err).startswith("run_training: the log broke off; while `make ps` lists")
    assert "`make kill_training RUN=a` ends it" in sentence(result.err)


@pytest.mark.parametrize("target", ["run_training", "logs_training"])
def test_watching_leaves_no_file_behind(project: Project, target: str, tmp_path: Path) -> None:
    project.env["TMPDIR"] = str(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()

    project.make(target, replies=[Reply("logs", 3)])

    assert list((tmp_path / "temporary").iterdir()) == []


TYPED = [
    """--note "a b" --price $5""",
    """--note 'single' "it's" """,
    r"""--back \\ --dollar $$HOME ${x} $(id)""",
    """--tick `id` ; & | > < * ? # ! ~""",
    """--equals a=b,c  --two  spaces""",
    """--percent 5% -x @file""",
    """--words Грüße""",
]


@pytest.mark.parametrize("typed", TYPED)
def test_arguments_arrive_as_typed(project: Project, typed: str) -> None:
    result = project.make("run_training", "UPLOAD_CODE=no", f"TRAIN_ARGS={typed}")

    assert result.code == 0, result.err
    assert option(result.calls[0], "--entrypoint") == f"{TRAIN} {typed}"


@pytest.mark.parametrize("typed", TYPED)
def test_arguments_arrive_as_set_in_the_environment(project: Project, typed: str) -> None:
    project.env["TRAIN_ARGS"] = typed

    result = project.make("run_training", "UPLOAD_CODE=no")

    assert option(result.calls[0], "--entrypoint") == f"{TRAIN} {typed}"


def test_words_of_a_training_are_those_a_shell_would_make(project: Project) -> None:
    result = project.make(
        "run_training", "TRAIN_CMD=python x.py", 'TRAIN_ARGS=--note "a b" --price $5'
    )

    command = option(result.calls[2], "--entrypoint")
    assert shlex.split(command) == ["python", "x.py", "--note", "a b", "--price", "$5"]


@pytest.mark.parametrize("variable", ["TRAIN_CMD", "TRAIN_ARGS"])
@pytest.mark.parametrize("target", ["run_training", "train_local"])
def test_a_line_break_is_refused(project: Project, variable: str, target: str) -> None:
    result = project.make(target, f"{variable}=a\nb")

    assert result.code != 0
    assert result.calls == []
    assert "must not hold a line break" in result.err


@pytest.mark.parametrize(
    "run", ["A", "a_b", "a--b", "-a", "a-", "a b", "a/b", "..", "a;id", "a'b", "x" * 21, "é"]
)
def test_a_bad_run_is_refused_before_any_call(project: Project, run: str) -> None:
    result = project.make("run_training", f"RUN={run}")

    assert result.code != 0
    assert result.calls == []
    assert "does not fit" in sentence(result.err)


@pytest.mark.parametrize(
    "target",
    ["kill_training", "connect_training", "logs_training", "download_results", "train_local"],
)
def test_wherever_a_run_is_named_it_is_checked(project: Project, target: str) -> None:
    result = project.make(target, "RUN=../x")

    assert result.code != 0
    assert result.calls == []
    assert "does not fit" in sentence(result.err)


def test_the_longest_run_fits(project: Project) -> None:
    assert project.make("run_training", f"RUN={'x' * 20}").code == 0


@pytest.mark.parametrize(
    ("target", "arguments", "filter_"),
    [
        ("kill_training", [], ["--name", "training-my-project", *TAG]),
        ("kill_training", ["RUN=a"], ["--name", "training-my-project-a", *TAG]),
        ("kill_jupyter", [], ["--name", "jupyter-my-project"]),
        ("kill_tensorboard", [], ["--name", "tensorboard-my-project"]),
        ("kill_filebrowser", [], ["--name", "filebrowser-my-project"]),
        ("kill_develop", [], ["--name", "develop-my-project"]),
        ("kill", [], TAG),
    ],
)
class TestKill:
    # A table as both clients print it; the second job has no name.
    TABLE = "\n  ID      NAME     \n ━━━━━━━━━━━━━━━━━ \n  job-1   my-job  \n job-2           \n\n"

    def test_what_runs_is_killed_in_one_call_and_named(
        self, project: Project, target: str, arguments: List[str], filter_: List[str]
    ) -> None:
        result = project.make(target, *arguments, replies=[Reply("ps", out=self.TABLE)])

        assert result.code == 0
        assert result.calls == [["ps", "--format", "id name", *filter_], ["kill", "job-1", "job-2"]]
        assert result.out.splitlines() == ["Killed: my-job", "Killed: job-2"]

    def test_nothing_running_is_success(
        self, project: Project, target: str, arguments: List[str], filter_: List[str]
    ) -> None:
        result = project.make(
            target, *arguments, replies=[Reply("ps", out="  ID  NAME  \n ━━━ \n")]
        )

        assert result.code == 0
        assert result.calls == [["ps", "--format", "id name", *filter_]]
        assert "nothing to kill" in result.out

    @pytest.mark.parametrize("words", ["ps", "kill"])
    def test_a_failing_client_is_failure(
        self,
        project: Project,
        target: str,
        arguments: List[str],
        filter_: List[str],
        words: str,
    ) -> None:
        result = project.make(
            target, *arguments, replies=[Reply(words, 77, out="x"), Reply("ps", out=self.TABLE)]
        )

        assert result.code != 0
        assert result.commands[-1] == words
        assert sentence(result.err).startswith(f"{target}: could not")
        assert "Killed" not in result.out


def test_ps_lists_this_projects_jobs_and_since_when(project: Project) -> None:
    assert project.make("ps").calls == [
        ["ps", "--format", "name status started life_span image", *TAG]
    ]


@pytest.mark.parametrize("target", ["ps", "logs_training", "port_forward_develop"])
def test_a_failing_call_ends_in_a_sentence(project: Project, target: str) -> None:
    result = project.make(target, replies=[Reply("", 77)])

    assert result.code != 0
    assert sentence(result.err).startswith(f"{target}: ")


ENDED = "logs_training: the training has ended: "


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("succeeded", "succeeded"),
        ("failed (OOMKilled)", "failed (oomkilled)"),
        ("JobStatus.FAILED", "failed"),  # the older client
    ],
)
def test_log_of_a_training_is_shown_once_and_read_again(
    project: Project, told: str, says: str
) -> None:
    replies = [Reply("logs", out="a\nb"), status(told)]

    result = project.make("logs_training", "RUN=a", replies=replies)

    name = "training-my-project-a"
    logs = ["--quiet", "logs", name]
    assert result.calls == [logs, ["status", name], logs]
    assert (result.code, result.out, result.err) == (0, "a\nb", f"{ENDED}{says}\n")


def test_log_that_broke_off_without_a_word_is_completed(project: Project) -> None:
    """As the newer client has it when its connection breaks."""
    result = project.make("logs_training", replies=[GROWS, status("succeeded")])

    assert (result.code, result.out, result.err) == (0, "line\nline\n", f"{ENDED}succeeded\n")


def test_log_that_nothing_was_shown_of_is_completed(project: Project) -> None:
    reply = Reply("logs", sh="[ ! -e read ] || echo line; touch read")

    result = project.make("logs_training", replies=[reply, status("succeeded")])

    assert (result.code, result.out) == (0, "line\n")


def test_log_that_is_another_when_read_again_is_told(project: Project) -> None:
    result = project.make("logs_training", replies=[CHANGES, status("succeeded")])

    assert (result.code != 0, result.out) == (True, "line\n")
    assert sentence(result.err).startswith("logs_training: the log broke off: there is more")


def test_log_that_is_shorter_when_read_again_is_whole(project: Project) -> None:
    """A platform may need a moment to keep the log of what has ended."""
    reply = Reply("logs", sh="[ -e read ] || echo line; touch read")

    result = project.make("logs_training", replies=[reply, status("succeeded")])

    assert (result.code, result.out, result.err) == (0, "line\n", f"{ENDED}succeeded\n")


def test_log_that_the_client_says_broke_off_is_shown_as_far_as_it_came(project: Project) -> None:
    result = project.make("logs_training", replies=[Reply("logs", 74, out="line\n")])

    assert (result.code != 0, result.out) == (True, "line\n")
    assert sentence(result.err).startswith("logs_training: no log to show or it broke off")


def test_log_that_ends_although_the_training_runs_on_is_told(project: Project) -> None:
    result = project.make("logs_training", replies=[status("running")])

    assert result.code != 0
    assert sentence(result.err).startswith(
        "logs_training: the log broke off; while `make ps` lists"
    )
    assert result.commands == ["logs", "status", "status", "status"]


def test_log_that_ends_a_moment_before_its_training_is_whole(project: Project) -> None:
    line = "[ -e asked ] && echo ' Status    succeeded' || echo ' Status    running'; touch asked"

    result = project.make("logs_training", replies=[Reply("status", sh=line)])

    assert (result.code, result.err) == (0, f"{ENDED}succeeded\n")
    assert result.commands == ["logs", "status", "status", "logs"]


@pytest.mark.parametrize("job", ["training", "develop"])
def test_connect_needs_a_terminal(project: Project, job: str) -> None:
    result = project.make(f"connect_{job}")

    assert result.code != 0
    assert result.calls == []
    assert sentence(result.err) == f"connect_{job}: a shell needs a terminal."


@pytest.mark.parametrize("job", ["training", "develop"])
@pytest.mark.parametrize(("code", "is_ours"), [(0, True), (1, True), (130, True), (72, False)])
def test_connect_opens_a_shell_whose_own_code_is_its_own(
    project: Project, job: str, code: int, is_ours: bool
) -> None:
    ours, theirs = pty.openpty()

    replies = [Reply("ps", out="job-1\n"), Reply("exec", code)]
    result = project.make(f"connect_{job}", stdin=theirs, replies=replies)

    os.close(ours)
    os.close(theirs)
    name = f"{job}-my-project"
    assert result.calls == [
        ["--quiet", "ps", "--name", name],
        ["--quiet", "exec", "--tty", name, "bash"],
    ]
    assert (result.code == 0) is is_ours


@pytest.mark.parametrize("job", ["training", "develop"])
def test_connect_needs_the_job(project: Project, job: str) -> None:
    ours, theirs = pty.openpty()

    result = project.make(f"connect_{job}", stdin=theirs)

    os.close(ours)
    os.close(theirs)
    assert result.code != 0
    assert result.commands == ["ps"]
    assert sentence(result.err) == f"connect_{job}: it does not run: make run_{job}"
