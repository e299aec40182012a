"""`run_training` and what goes with it: a training tells the truth about how it ended."""

from __future__ import annotations

import json
import shlex
import signal

import pytest

from .commands import wait_until
from .conftest import SANDBOX, Render, Trained, made_ready, no_client, no_job
from .platform import Platform, processes_with
from .project import Project

# Tells that it runs, then waits to be ended.
ENDLESS = "sh -c 'echo waiting; exec sleep 600'"

# Writes down the words it was given.
DUMP = 'python -c \'import json, sys; json.dump(sys.argv[1:], open("../results/argv", "w"))\''


def in_shell(script: str) -> str:
    return f"sh -c {shlex.quote(script)}"


def test_training_leaves_metrics_model_and_events_on_storage(trained: Trained) -> None:
    results = trained.project.storage("results")

    assert json.loads((results / "metrics.json").read_text())["epochs"] == 3
    assert (results / "model.joblib").stat().st_size > 0
    assert list(results.glob("events.out.tfevents.*"))
    assert trained.project.job("training").status == "succeeded"


def test_training_shows_its_progress_once(trained: Trained) -> None:
    lines = [line.partition(":")[0] for line in trained.said.stdout.splitlines()]

    epochs = [line for line in lines if line.startswith("epoch")]
    assert epochs == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


def test_training_reads_the_uploaded_data(trainer: Project) -> None:
    rows = [f"{value},{value % 2}" for value in range(40)]
    trainer.write("data/mine.csv", "\n".join(rows) + "\n")
    trainer.make("upload_data")

    result = trainer.make("run_training")

    assert "Training on mine.csv" in result.stdout


def test_training_with_bad_data_fails_with_one_line(trainer: Project) -> None:
    trainer.write("data/bad.csv", "1,2,a\nx,2,b\n")
    trainer.make("upload_data")

    result = trainer.fails("run_training", says="run_training] Error 1")

    assert "train.py: " in result.stdout + result.stderr


def test_training_uploads_the_code_first(ready: Project) -> None:
    ready.write("code/hello.py", "print('hello from code')\n")

    result = ready.make("run_training", TRAIN_CMD="python hello.py", UPLOAD_CODE="yes")

    assert result.stdout.count("hello from code") == 1


def test_upload_of_the_code_can_be_switched_off(ready: Project) -> None:
    ready.write("code/hello.py", "print('first')\n")
    ready.make("upload_code")
    ready.write("code/hello.py", "print('second')\n")

    result = ready.make("run_training", TRAIN_CMD="python hello.py", UPLOAD_CODE="no")

    assert "first" in result.stdout
    assert "second" not in result.stdout


def test_exit_code_of_the_training_arrives(ready: Project) -> None:
    command = in_shell("echo reason; exit 37")

    result = ready.fails("run_training", TRAIN_CMD=command, says="run_training] Error 37")

    assert "reason" in result.stdout
    assert ready.job("training").exit_code == 37


def test_exit_code_of_a_training_that_ran_for_a_while_arrives(ready: Project) -> None:
    command = in_shell("echo begun; sleep 2; exit 38")

    result = ready.fails("run_training", TRAIN_CMD=command, says="run_training] Error 38")

    assert result.stdout.count("begun") == 1


def test_command_that_does_not_exist_is_a_failure(ready: Project) -> None:
    result = ready.fails("run_training", TRAIN_CMD="no-such-command", says="the training failed")

    assert "no-such-command" in result.stdout + result.stderr
    assert ready.job("training").status == "failed"


def test_arguments_arrive_as_typed(ready: Project) -> None:
    arguments = (
        "--name \"it's here\" --cost 5$ --share 50% 'a \"b\" c' '$HOME' $(shell id) `id` $$ \\$x"
        " 'two  spaces' '' '*' '#no comment' a;b 'c|d' '&' '~' '{a,b}' back\\\\slash"
        " naïve 'два слова'"
    )

    ready.make("run_training", TRAIN_CMD=DUMP, TRAIN_ARGS=arguments)

    arrived = json.loads(ready.storage("results/argv").read_text())
    assert arrived == shlex.split(arguments)


@no_job
@no_client
def test_arguments_with_a_line_break_are_refused(ready: Project) -> None:
    ready.fails("run_training", TRAIN_ARGS="one\ntwo", says="on one line")


def test_two_trainings_run_at_once_with_results_apart(ready: Project) -> None:
    command = in_shell(
        "echo $NEURO_JOB_NAME >../results/name; echo waiting;"
        " while [ ! -e ../results/stop ]; do sleep 0.1; done"
    )

    with ready.start("run_training", TRAIN_CMD=command, RUN="one") as one:
        with ready.start("run_training", TRAIN_CMD=command, RUN="two") as two:
            one.wait_for("waiting")
            two.wait_for("waiting")
            states = [ready.job("training", run).status for run in ("one", "two")]
            ready.store("results/one/stop", "")
            ready.store("results/two/stop", "")
            one.wait()
            two.wait()

    assert states == ["running", "running"]
    for run in ("one", "two"):
        assert ready.storage(f"results/{run}/name").read_text() == f"training-{ready.slug}-{run}\n"


@no_job
@no_client
@pytest.mark.parametrize("run", ["Upper", "a--b", "a-", "under_score", "x" * 40, "a b", "$$HOME"])
def test_run_that_makes_no_job_name_is_refused_before_any_upload(ready: Project, run: str) -> None:
    ready.fails("run_training", RUN=run, UPLOAD_CODE="yes", says="RUN must be of a-z")

    assert not ready.storage("code").exists()


def test_training_gives_way_to_one_of_the_same_name(ready: Project) -> None:
    with ready.start("run_training", TRAIN_CMD=ENDLESS) as first:
        first.wait_for("waiting")
        job = ready.job("training")

        ready.fails("run_training", says="the training did not start")

        assert ready.platform.job(job.id).status == "running"


def test_training_killed_from_outside_is_a_failure(ready: Project) -> None:
    with ready.start("run_training", TRAIN_CMD=ENDLESS) as training:
        training.wait_for("waiting")

        ready.make("kill_training")

        training.wait(code=2).explains("did not run to its end")
    assert ready.job("training").status == "cancelled"


def test_training_that_outlives_its_life_span_is_a_failure(
    render: Render, other_platform: Platform
) -> None:
    project = made_ready(render(other_platform))

    project.fails(
        "run_training", TRAIN_CMD=ENDLESS, LIFE_SPAN="1m", says="ran out of its life-span"
    )

    job = project.job("training")
    assert (job.status, job.reason) == ("cancelled", "LifeSpanEnded")


def test_life_span_is_printed_at_start(ready: Project) -> None:
    result = ready.make("run_training", TRAIN_CMD="true", LIFE_SPAN="90m")

    assert "for 90m at most" in result.stdout


def test_killed_training_may_clean_up(ready: Project) -> None:
    command = in_shell(
        'trap "echo saved >../results/checkpoint; exit 3" TERM; echo waiting;'
        " while :; do sleep 0.1; done"
    )
    with ready.start("run_training", TRAIN_CMD=command) as training:
        training.wait_for("waiting")

        ready.make("kill_training")

        checkpoint = ready.storage("results/checkpoint")
        wait_until(lambda: checkpoint.exists() and checkpoint.read_text(), "it has cleaned up")


def test_killed_training_takes_its_processes_along(ready: Project) -> None:
    marker = f"sleep 60{id(ready)}"
    command = in_shell(f'trap "" TERM; {marker} & setsid {marker} & echo waiting; wait; wait')
    with ready.start("run_training", TRAIN_CMD=command) as training:
        training.wait_for("waiting")
        argument = "\0".join(marker.split())
        wait_until(lambda: len(processes_with(argument)) == 2, "both children run")

        ready.make("kill_training")

        wait_until(lambda: not processes_with(argument), "no process is left")


def test_code_and_data_cannot_be_written_in_a_training(ready: Project) -> None:
    ready.write("data/a.txt", "a")
    ready.make("upload_data")
    command = in_shell(
        "touch ../code/x && exit 1; touch ../data/x && exit 1; echo b >>../data/a.txt && exit 1;"
        " touch ../results/x ../notebooks/x"
    )

    ready.make("upload_notebooks", "run_training", TRAIN_CMD=command)

    assert ready.storage("data/a.txt").read_text() == "a"
    assert ready.storage("results/x").exists()
    assert ready.storage("notebooks/x").exists()


def test_training_runs_with_data_kept_elsewhere(ready: Project) -> None:
    shared = ready.platform.storage(f"{ready.slug}-shared/images.txt")
    shared.parent.mkdir()
    shared.write_text("images of the team")

    result = ready.make(
        "run_training",
        TRAIN_CMD="cat ../data/images.txt",
        DATA_STORAGE=f"storage:{ready.slug}-shared",
    )

    assert "images of the team" in result.stdout


def test_more_options_reach_the_client(ready: Project) -> None:
    result = ready.make(
        "run_training",
        TRAIN_CMD=in_shell("echo seed is $SEED on $NEURO_JOB_PRESET"),
        RUN_EXTRA="--env SEED=7",
        PRESET="cpu-large",
    )

    assert "seed is 7 on cpu-large" in result.stdout


@no_job
def test_training_on_a_wrong_preset_is_a_failure(ready: Project) -> None:
    ready.fails("run_training", PRESET="gpu-nope", says="did not start")

    assert ready.platform.jobs(name=f"training-{ready.slug}") == []


@no_job
def test_training_without_login_is_a_failure(ready: Project) -> None:
    stranger = Project(
        ready.path, ready.platform, ready.variables, environment=ready.platform.plain_env
    )

    stranger.fails("run_training", UPLOAD_CODE="yes", says="not complete; see the message above")


@no_job
def test_training_with_an_expired_login_is_a_failure(
    render: Render, expired_platform: Platform
) -> None:
    project = made_ready(render(expired_platform))

    project.fails("run_training", says="whether the training began is unknown")


def test_platform_that_dies_in_the_middle_is_a_failure_and_comes_back(
    render: Render, other_platform: Platform, engine: str
) -> None:
    project = made_ready(render(other_platform))
    marker, state = f"60{id(project)}", str(other_platform.state / "engine")

    def leaves_nothing() -> bool:
        return not processes_with(f"sleep\0{marker}") and not processes_with(state)

    command = in_shell(f"echo waiting; sleep {marker}")
    with project.start("run_training", TRAIN_CMD=command) as training:
        training.wait_for("waiting")

        other_platform.kill()
        training.wait(code=2).explains("it broke off; see above; while `make ps` lists")
    if engine == SANDBOX:
        wait_until(leaves_nothing, "no process of the job is left")
    other_platform.up()
    assert leaves_nothing()  # containers end only now
    assert project.job("training").status == "failed"
    project.make("run_training", TRAIN_CMD="true")
    assert project.job("training").status == "succeeded"


@pytest.mark.parametrize("target", ["run_training", "logs_training"])
def test_interrupted_watching_leaves_the_training_running_and_says_so(
    ready: Project, target: str
) -> None:
    if target == "logs_training":
        ready.start_job("training", ENDLESS)
    with ready.at_terminal(target, TRAIN_CMD=ENDLESS) as terminal:
        terminal.wait_for("waiting", timeout=60)
        terminal.type("\x03")
        screen = terminal.wait(code=None)

    assert f"{target}: interrupted; while `make ps` lists the training it runs on" in screen
    assert "Trained." not in screen
    assert ready.job("training").status == "running"
    assert "training-" in ready.make("kill_training").stdout


def test_watching_that_is_terminated_as_the_job_starts_is_told_of(ready: Project) -> None:
    with ready.start("run_training", TRAIN_CMD=ENDLESS) as training:
        training.wait_for("Job ID")
        training.signal(signal.SIGTERM)
        result = training.wait(code=None).explains("run_training: interrupted")

    assert result.code != 0
    assert "Trained." not in result.stdout
    assert ready.job("training").is_active


def test_debugger_works_in_a_job(ready: Project) -> None:
    ready.write("code/hello.py", "print('debugged')\n")

    result = ready.make(
        "run_training",
        TRAIN_CMD="python -m pdb -c continue -c quit hello.py",
        UPLOAD_CODE="yes",
    )

    assert "debugged" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_module_named_code_is_the_one_of_python(ready: Project) -> None:
    result = ready.make(
        "run_training",
        TRAIN_CMD="python -c 'import code; print(code.InteractiveConsole)'",
        RUN_EXTRA="--env PYTHONPATH=/project --workdir /project",
        UPLOAD_CODE="yes",
    )

    assert "code.InteractiveConsole" in result.stdout


def test_log_of_a_finished_training_is_complete_and_comes_once(ready: Project) -> None:
    ready.make("run_training", TRAIN_CMD="seq -f 'line %g' 1 5000")

    log = ready.make("logs_training").stdout

    lines = [line for line in log.splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, 5001)]


def test_log_of_a_running_training_is_followed_to_its_end(ready: Project) -> None:
    command = in_shell("echo begun; while [ ! -e ../results/stop ]; do sleep 0.1; done; echo over")
    with ready.start("run_training", TRAIN_CMD=command) as training:
        training.wait_for("begun")
        with ready.start("logs_training") as log:
            log.wait_for("begun")
            ready.store("results/stop", "")
            result = log.wait()

    assert result.stdout.count("begun") == 1
    assert result.stdout.count("over") == 1


@no_job
def test_log_of_no_training_says_so(ready: Project) -> None:
    ready.fails("logs_training", says="no log to show")


def test_shell_in_the_running_training(ready: Project) -> None:
    with ready.start("run_training", TRAIN_CMD=ENDLESS) as training:
        training.wait_for("waiting")
        with ready.at_terminal("connect_training") as terminal:
            terminal.type("cat /proc/1/comm; ls -d /project/co*; echo $((6 * 7))\n")
            terminal.wait_for("/project/code")
            terminal.wait_for("42")
            # The last command of a shell says nothing about the target.
            terminal.type("exit 3\n")
            terminal.wait()


@no_job
def test_shell_without_a_running_training_says_so(ready: Project) -> None:
    with ready.at_terminal("connect_training") as terminal:
        screen = terminal.wait(code=2)

    assert "connect_training: it does not run: make run_training" in screen


@no_job
@no_client
def test_shell_without_a_terminal_says_so(ready: Project) -> None:
    ready.fails("connect_training", says="needs a terminal")
