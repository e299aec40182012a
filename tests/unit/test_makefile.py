"""Each target's calls to the client, compared whole, on success and on failure."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Sequence, Set

import pytest
from baking import TEMPLATE, Project, Reply, Result, option, options, plant_recorder
from clients import CLIENTS, Client

EXCLUDED = [
    f"--exclude={line}"
    for line in (TEMPLATE / "{{cookiecutter.project_slug}}/.neuroignore").read_text().splitlines()
    if line and not line.startswith("#")
]
MOUNTS = [
    *["--volume", "storage:my-project/data:/project/data:ro"],
    *["--volume", "storage:my-project/code:/project/code:ro"],
    *["--volume", "storage:my-project/notebooks:/project/notebooks:rw"],
]
TAG = ["--tag", "project:my-project"]
ROOT = "storage:my-project"
TRAIN = "python -u train.py --data ../data --results ../results"
REMOTE = [
    "check",
    "login",
    "setup",
    "upload_code",
    "clean_code",
    "upload_data",
    "clean_data",
    "upload_notebooks",
    "clean_notebooks",
    "upload",
    "clean",
    "download_notebooks",
    "download_results",
    "clean_results",
    "run_training",
    "kill_training",
    "logs_training",
    "run_jupyter",
    "kill_jupyter",
    "run_tensorboard",
    "kill_tensorboard",
    "run_filebrowser",
    "kill_filebrowser",
    "run_develop",
    "port_forward_develop",
    "kill_develop",
    "kill",
    "ps",
]


def no_stamp(project: Project) -> None:
    (project.path / ".setup_done").unlink()


def sentence(text: str) -> str:
    """The last line that make itself did not write."""
    return [line for line in text.splitlines() if not re.match(r"make(\[\d\])?: ", line)][-1]


def test_make_alone_prints_help(project: Project) -> None:
    result = project.make()

    assert result.code == 0
    assert result.calls == []
    assert [line for line in result.out.splitlines() if re.match("[A-Z]", line)] == [
        "Setup",
        "Storage",
        "Jobs",
        "Local",
    ]


def test_help_lists_every_target_in_the_order_of_the_file(project: Project) -> None:
    listed = re.findall(r"^  (\w+) +\S", project.make("help").out, re.MULTILINE)

    targets = re.findall(r"^([a-z]\w+):(?!=)", project.read("Makefile"), re.MULTILINE)
    assert listed == targets
    local = {"setup_local", "train_local", "lint", "help"}
    assert {*REMOTE, "connect_training", "connect_develop", *local} == set(listed)


def test_no_help_text_ends_a_rule_for_an_old_make(project: Project) -> None:
    assert re.findall(r"^.*## .*;.*$", project.read("Makefile"), re.MULTILINE) == []


def test_every_target_is_phony(project: Project) -> None:
    makefile = project.read("Makefile").replace("\\\n", " ")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)

    assert phony
    assert set(phony[1].split()) == set(re.findall(r"^([a-z_]\w+):(?!=)", makefile, re.MULTILINE))


def test_every_variable_has_a_comment_with_an_example_call(project: Project) -> None:
    lines = project.read("Makefile").splitlines()

    bare = [
        line
        for before, line in zip(lines, lines[1:])
        if (match := re.match(r"(\w+) \?=", line))
        and not re.match(rf"# .+ {{5}}make .*{match[1]}=", before)
    ]
    assert bare == []


@pytest.mark.parametrize("shell", ["dash"])
@pytest.mark.parametrize("target", REMOTE)
def test_a_missing_client_is_said_in_one_sentence(project: Project, target: str) -> None:
    result = project.make(target, "NEURO=no-such-client --skip-stats")

    assert result.code != 0
    assert sentence(result.err) == (
        "The client `no-such-client` is not installed: pip install apolo-cli"
    )


@pytest.mark.parametrize("shell", ["dash"])
@pytest.mark.parametrize("target", REMOTE)
def test_every_call_goes_through_one_variable(project: Project, target: str) -> None:
    plant_recorder(project.bin / "other", "other")
    (project.bin / "other" / "replies").write_text(
        '[{"words": [], "out": "x\\n", "err": "", "sh": "", "code": 0}]'
    )

    result = project.make(target, f"NEURO={project.bin}/other/other --skip-stats")

    assert result.calls == []
    other = (project.bin / "other" / "calls").read_text().splitlines()
    if target != "setup":
        assert other
    assert all(call.startswith('["--skip-stats", ') for call in other)


# Commands whose first argument is a command again.
GROUPS = ("config", "job")


def options_of(call: List[str]) -> Dict[str, Set[str]]:
    """The long options of a call to the client, by the command they are given to; those before
    any command by ''."""
    at = next((index for index, word in enumerate(call) if not word.startswith("-")), len(call))
    end = at + (2 if call[at : at + 1] and call[at] in GROUPS else 1)
    return {"": long_options(call[:at]), " ".join(call[at:end]): long_options(call[end:])}


def long_options(words: Sequence[str]) -> Set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")}


def known_options(client: Client, command: str, home: Path) -> Set[str]:
    """The long options that the client's own help lists for the command."""
    done = subprocess.run(
        [client.program, *command.split(), "--help" if command else "--options"],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    # Each at the start of a line, with its short name and its opposite: -t, --tty / -T, --no-tty
    listed = re.findall(r"^ +(-.*?)(?:  |$)", done.stdout.split("Options:")[1], re.MULTILINE)
    return set(re.findall(r"--[a-z][a-z-]+", " ".join(listed)))


@pytest.mark.parametrize("shell", ["dash"])
@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_both_clients_know_every_option(project: Project, client: Client, tmp_path: Path) -> None:
    client.require()
    runs = Reply("ps --format", out=" job-1 a\n")
    no_stamp(project)
    calls = project.make("setup", replies=[runs]).calls
    for target in REMOTE:
        calls += project.make(target, replies=[runs]).calls
    used: Dict[str, Set[str]] = {}
    for call in calls:
        for command, options_ in options_of(call).items():
            used.setdefault(command, set()).update(options_)

    unknown = {
        command: options_ - known_options(client, command, tmp_path)
        for command, options_ in used.items()
    }

    assert {"run", "ps", "cp", "rm", "exec", "job browse", "config show"} <= set(used)
    assert {command: options_ for command, options_ in unknown.items() if options_} == {}
    assert [call for call in calls if "--" in call] == []


# Setup


def test_check_says_one_line_each(project: Project) -> None:
    result = project.make("check")

    assert result.code == 0
    assert result.calls == [["--version"], ["config", "show"], ["--quiet", "ps", *TAG]]
    assert [line.split(":")[0] for line in result.out.splitlines()] == [
        "ok       client",
        "ok       login",
        "ok       preset",
        "ok       names",
        "ok       image",
    ]
    assert "26.9.0" in result.out
    assert "Name: alice  Cluster: local" in result.out


@pytest.mark.parametrize(
    ("arguments", "reply", "problem"),
    [
        ([], Reply("--version", 1, err="broken"), "the client does not start"),
        ([], Reply("config show", 77, err="Not logged in"), "make login"),
        ([], Reply("--quiet ps", 74, err="Connection error"), "no connection"),
        (["PRESET=huge"], Reply("never"), "there is no preset huge"),
        (["PRESET=cpu"], Reply("never"), "to one of: cpu-small gpu-small"),
        (["RUN=Upper"], Reply("never"), "training-my-project-Upper does not fit"),
    ],
)
def test_check_names_the_problem(
    project: Project, arguments: List[str], reply: Reply, problem: str
) -> None:
    result = project.make("check", *arguments, replies=[reply])

    assert result.code != 0
    assert problem in result.err
    assert reply.err in result.err


def test_check_wants_setup(project: Project) -> None:
    no_stamp(project)

    result = project.make("check")

    assert result.code != 0
    assert (
        "problem  the image is not built from requirements/ as they are now: make setup"
        in result.err
    )


def test_login_takes_an_address(project: Project) -> None:
    assert project.make("login").calls == [["login"]]
    assert project.make("login", "LOGIN_URL=http://x/api").calls == [["login", "http://x/api"]]


def test_a_failed_login_is_a_failure(project: Project) -> None:
    result = project.make("login", replies=[Reply("login", 1)])

    assert result.code != 0
    assert sentence(result.err).startswith("login: not logged in")


def test_setup_makes_six_calls(project: Project) -> None:
    no_stamp(project)

    result = project.make("setup")

    assert result.code == 0, result.err
    tag = options(result.calls[2], "--tag")[1]
    assert re.fullmatch(r"setup:[\d-]+", tag)
    assert result.calls == [
        ["mkdir", "--parents", ROOT],
        ["cp", "--recursive", "--target-directory", ROOT, "requirements"],
        [
            *["run", "--detach", "--name", "setup-my-project", *TAG, "--tag", tag],
            *["--preset", "cpu-small", "--life-span", "1h"],
            *["--volume", "storage:my-project/requirements:/project/requirements:ro"],
            *["--entrypoint", "sleep 86400", "python:3.12-slim-bookworm"],
        ],
        [
            *["--quiet", "exec", "--no-tty", "setup-my-project"],
            "sh /project/requirements/install.sh",
        ],
        ["save", "setup-my-project", "image:my-project"],
        ["kill", "setup-my-project"],
    ]
    assert project.has(".setup_done")


def test_setup_right_after_setup_does_nothing_and_says_so(project: Project) -> None:
    result = project.make("setup")

    assert result.code == 0
    assert result.calls == []
    assert "The image image:my-project is built" in result.out


@pytest.mark.parametrize("name", ["apt.txt", "pip.txt", "install.sh"])
def test_an_edited_list_makes_setup_stale(project: Project, name: str) -> None:
    later = time.time() + 5
    os.utime(project.path / "requirements" / name, (later, later))

    assert sentence(project.make("run_training").err).endswith("run `make setup`.")
    assert len(project.make("setup").calls) == 6


def test_a_list_edited_during_setup_leaves_it_stale(project: Project) -> None:
    no_stamp(project)
    edit = Reply("save", sh="sleep 0.05; echo numpy >> requirements/pip.txt")

    assert project.make("setup", replies=[edit]).code == 0

    assert project.make("run_training").code != 0


@pytest.mark.parametrize(
    ("words", "step", "calls"),
    [
        ("mkdir", "copying requirements/ to storage", ["mkdir"]),
        ("cp", "copying requirements/ to storage", ["mkdir", "cp"]),
        ("run", "starting a job", ["mkdir", "cp", "run", "ps", "kill"]),
        ("exec", "installing requirements/", ["mkdir", "cp", "run", "exec", "ps", "kill"]),
        ("save", "saving the image", ["mkdir", "cp", "run", "exec", "save", "ps", "kill"]),
    ],
)
def test_a_failing_step_of_setup(project: Project, words: str, step: str, calls: List[str]) -> None:
    no_stamp(project)

    result = project.make("setup", replies=[Reply(words, 3), Reply("ps", out="job-7\n")])

    assert result.code != 0
    assert result.commands == calls
    if "kill" in calls:
        assert options(result.calls[-2], "--tag") == options(result.calls[2], "--tag")[1:]
        assert result.calls[-1] == ["kill", "job-7"]
    assert sentence(result.err).startswith(f"setup: failed while {step}")
    assert not project.has(".setup_done") and not project.has(".setup_done.new")


def test_a_failing_repetition_of_setup_leaves_no_stamp(project: Project) -> None:
    assert project.make("--always-make", "setup", replies=[Reply("exec", 3)]).code != 0

    assert not project.has(".setup_done")


def test_setup_that_cannot_stop_its_job_says_so(project: Project) -> None:
    no_stamp(project)

    result = project.make("setup", replies=[Reply("kill", 3), Reply("ps", out="job-7\n")])

    assert result.code != 0
    assert "its job may still be running: run `make kill`" in result.err
    assert not project.has(".setup_done")


def test_interrupted_setup_stops_its_job(project: Project) -> None:
    no_stamp(project)
    # One process that surely heeds the signal: dash can miss one between two commands, and
    # Python's own handler one that comes just before it sleeps.
    wait = "from signal import *; signal(SIGINT, SIG_DFL); import time; "
    wait += 'open("started", "w"); time.sleep(60)'
    project.reply(
        Reply("exec", sh=f"exec {sys.executable} -IS -c '{wait}'"), Reply("ps", out="job-7\n")
    )
    command, environment = project.command("setup")
    process = subprocess.Popen(
        command,
        cwd=project.path,
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not project.has("started"):
        assert time.monotonic() < deadline, "setup did not reach its exec"
        time.sleep(0.01)

    os.killpg(process.pid, signal.SIGINT)

    assert process.wait(timeout=20) != 0
    assert project.calls()[-1] == ["kill", "job-7"]
    assert not project.has(".setup_done") and not project.has(".setup_done.new")


@pytest.mark.parametrize("target", ["run_training", "run_jupyter", "run_develop"])
def test_jobs_that_need_the_image_ask_for_setup(project: Project, target: str) -> None:
    no_stamp(project)

    result = project.make(target)

    assert result.code != 0
    assert result.calls == []
    assert sentence(result.err) == (
        "The image of the project is missing or older than requirements/: run `make setup`."
    )


@pytest.mark.parametrize(
    "target",
    [
        target
        for target in REMOTE
        if target not in {"check", "setup", "run_training", "run_jupyter", "run_develop"}
    ],
)
def test_nothing_else_asks_for_setup(project: Project, target: str) -> None:
    no_stamp(project)

    result = project.make(target, replies=[Reply("ps", out="job-1\n")])

    assert result.code == 0 or "the log broke off" in result.err
    assert "setup" not in result.err


def test_jupyter_in_another_image_needs_no_setup(project: Project) -> None:
    no_stamp(project)

    assert project.make("run_jupyter", "JUPYTER_IMAGE=quay.io/jupyter/base").code == 0


# Storage


@pytest.mark.parametrize("folder", ["code", "notebooks"])
def test_code_and_notebooks_are_copied_whole(project: Project, folder: str) -> None:
    result = project.make(f"upload_{folder}")

    assert result.code == 0, result.err
    assert result.calls == [
        ["mkdir", "--parents", ROOT],
        ["cp", "--recursive", *EXCLUDED, "--target-directory", ROOT, folder],
    ]


@pytest.mark.parametrize(("full", "how"), [("", ["--continue"]), ("1", [])])
def test_data_is_continued_unless_full(project: Project, full: str, how: List[str]) -> None:
    result = project.make("upload_data", f"FULL={full}")

    assert result.calls == [
        ["mkdir", "--parents", f"{ROOT}/data"],
        ["cp", "--recursive", *EXCLUDED, *how, "--no-target-directory", "data", f"{ROOT}/data"],
    ]


def test_upload_of_all_makes_three_calls(project: Project) -> None:
    result = project.make("upload", "DATA_STORAGE=storage:/team/images")

    data = "storage:/team/images"
    assert result.calls == [
        ["mkdir", "--parents", ROOT, data],
        ["cp", "--recursive", *EXCLUDED, "--target-directory", ROOT, "code", "notebooks"],
        ["cp", "--recursive", *EXCLUDED, "--continue", "--no-target-directory", "data", data],
    ]


def test_the_ignore_file_may_have_windows_line_ends_and_comments(project: Project) -> None:
    (project.path / ".neuroignore").write_bytes(b"# junk\r\n\r\n*.tmp\r\n__pycache__/\r\n")
    (project.path / "a.tmp").touch()

    call = project.make("upload_code").calls[1]

    assert [w for w in call if w.startswith("--exclude")] == [
        "--exclude=*.tmp",
        "--exclude=__pycache__/",
    ]


@pytest.mark.parametrize("target", ["upload_code", "upload_data", "upload_notebooks", "upload"])
@pytest.mark.parametrize("words", ["mkdir", "cp"])
def test_a_failed_upload_is_a_failure(project: Project, target: str, words: str) -> None:
    result = project.make(target, replies=[Reply(words, 72)])

    assert result.code != 0
    assert result.commands[-1] == words
    assert sentence(result.err).startswith(f"{target}: the upload is not complete")


@pytest.mark.parametrize("folder", ["code", "data", "notebooks"])
@pytest.mark.parametrize("target", ["upload_{}", "upload"])
def test_a_missing_folder_is_said_before_any_call(
    project: Project, folder: str, target: str
) -> None:
    (project.path / folder).rename(project.path / "elsewhere")

    result = project.make(target.format(folder))

    assert result.code != 0
    assert result.calls == []
    assert f"there is no folder {folder}/ here" in sentence(result.err)


@pytest.mark.parametrize(
    ("target", "arguments", "folders", "patterns"),
    [
        ("clean_code", [], ["code"], ["storage:[m]y-project/[c]ode"]),
        ("clean_data", [], ["data"], ["storage:[m]y-project/[d]ata"]),
        ("clean_notebooks", [], ["notebooks"], ["storage:[m]y-project/[n]otebooks"]),
        ("clean_results", [], ["results"], ["storage:[m]y-project/[r]esults"]),
        (
            "clean",
            [],
            ["code", "data", "notebooks"],
            [f"storage:[m]y-project/{name}" for name in ("[c]ode", "[d]ata", "[n]otebooks")],
        ),
    ],
)
def test_clean_makes_two_calls(
    project: Project, target: str, arguments: List[str], folders: List[str], patterns: List[str]
) -> None:
    uris = [f"{ROOT}/{folder}" for folder in folders]

    result = project.make(target)

    assert result.code == 0, result.err
    assert result.calls == [["rm", "--recursive", *patterns], ["mkdir", "--parents", *uris]]
    assert [line.strip() for line in result.out.splitlines() if line.startswith("  ")] == uris


@pytest.mark.parametrize(
    ("root", "pattern"),
    [
        ("storage:a/b/c", "storage:[a]/[b]/[c]/[c]ode"),
        ("storage:/team/a", "storage:/team/[a]/code"),
        ("storage:/a", "storage:/[a]/code"),
        ("storage://cluster/org/team/a", "storage://cluster/org/team/[a]/code"),
    ],
)
def test_a_missing_parent_is_nothing_to_delete(project: Project, root: str, pattern: str) -> None:
    result = project.make("clean_code", f"PROJECT_STORAGE={root}")

    assert result.calls[0] == ["rm", "--recursive", pattern]


@pytest.mark.parametrize("target", ["clean_code", "clean_data", "clean_results", "clean"])
@pytest.mark.parametrize("words", ["rm", "mkdir"])
def test_a_failed_clean_is_a_failure(project: Project, target: str, words: str) -> None:
    result = project.make(target, replies=[Reply(words, 72)])

    assert result.code != 0
    assert result.commands[-1] == words
    assert sentence(result.err).startswith(f"{target}: ")
    assert "Done" not in result.out


@pytest.mark.parametrize("target", ["clean", "upload"])
@pytest.mark.parametrize(
    "root",
    [
        *["", "storage:", "storage:/", "storage://cluster", "storage:.", "storage:a/..", "a"],
        *["storage:..", "storage:a/", "storage:a b", "storage:*", "storage:$HOME", "storage:a\nb"],
    ],
)
def test_a_project_folder_that_is_no_folder_is_refused(
    project: Project, target: str, root: str
) -> None:
    result = project.make(target, f"PROJECT_STORAGE={root.replace('$', '$$')}")

    assert result.code != 0
    assert result.calls == []


def test_the_refusal_of_an_empty_variable_names_the_rule(project: Project) -> None:
    assert "must look like storage:folder/folder" in project.make("clean", "PROJECT_STORAGE=").err
    assert "must look like storage:folder/folder" in project.make("clean", "DATA_STORAGE=").err


@pytest.mark.parametrize(
    "data", ["storage:/team/images", "storage:my-project", "storage:my-project-2/data"]
)
def test_data_kept_elsewhere_is_never_cleaned(project: Project, data: str) -> None:
    alone = project.make("clean_data", f"DATA_STORAGE={data}")
    among = project.make("clean", f"DATA_STORAGE={data}")

    assert alone.code != 0
    assert alone.calls == []
    assert f"{data} is not below storage:my-project/" in sentence(alone.err)
    assert among.code == 0
    assert among.calls[1] == ["mkdir", "--parents", f"{ROOT}/code", f"{ROOT}/notebooks"]
    assert f"Kept: {data}" in among.out


@pytest.mark.parametrize(
    ("answer", "arguments", "deleted"),
    [
        ("y\n", [], True),
        ("YES\n", [], True),
        ("\n", [], False),
        ("n\n", [], False),
        ("yep\n", [], False),
        ("\x04", [], False),
        ("", ["YES=1"], True),
    ],
)
def test_clean_asks_at_a_terminal(
    project: Project, answer: str, arguments: List[str], deleted: bool
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())

    result = project.make("clean", *arguments, stdin=theirs)

    os.close(ours)
    os.close(theirs)
    assert (result.code == 0) is deleted
    assert bool(result.calls) is deleted
    assert ("Continue?" in result.out) is (not arguments)
    if not deleted:
        assert "nothing was deleted" in sentence(result.err)


def test_download_of_results(project: Project) -> None:
    result = project.make("download_results")

    assert result.code == 0
    assert result.calls == [
        [
            *["cp", "--recursive", "--continue", "--no-target-directory"],
            *[f"{ROOT}/results", "results"],
        ]
    ]


def test_download_of_one_trainings_results(project: Project) -> None:
    result = project.make("download_results", "RUN=lr-1", "FULL=1")

    assert result.calls == [
        ["cp", "--recursive", "--no-target-directory", f"{ROOT}/results/lr-1", "results/lr-1"]
    ]
    assert project.has("results/lr-1")


@pytest.mark.parametrize("target", ["download_results", "download_notebooks"])
def test_a_failed_download_is_a_failure(project: Project, target: str) -> None:
    before = project.files()

    result = project.make(
        target, replies=[Reply("cp", 72, sh="echo half > .notebooks.new/demo.ipynb")]
    )

    assert result.code != 0
    assert sentence(result.err).startswith(f"{target}: the download is not complete")
    assert project.files() == before


def test_download_of_notebooks_moves_in_whole_files(project: Project) -> None:
    old = project.read("notebooks/demo.ipynb")
    brought = (
        "cd .notebooks.new && echo new > demo.ipynb && mkdir 'a b' && echo x > 'a b/c d.ipynb'"
    )

    result = project.make("download_notebooks", replies=[Reply("cp", sh=brought)])

    assert result.code == 0, result.err
    assert result.calls == [
        [
            *["cp", "--recursive", "--update", "--no-target-directory"],
            *[f"{ROOT}/notebooks", ".notebooks.new"],
        ]
    ]
    assert project.read("notebooks/demo.ipynb") == "new\n"
    assert project.read("notebooks/demo.ipynb~") == old
    assert project.read("notebooks/a b/c d.ipynb") == "x\n"
    assert not project.has(".notebooks.new")


@pytest.mark.parametrize(
    "name", ["-n", "a\\c b.ipynb", "$(touch CANARY)", "`touch CANARY`", "a'b\"c", "a\nb", "%s", " "]
)
def test_notebooks_of_any_name_are_brought(project: Project, name: str) -> None:
    create = f"cd .notebooks.new && echo new >./{shlex.quote(name)}"

    result = project.make("download_notebooks", replies=[Reply("cp", sh=create)])

    assert result.code == 0, result.err
    assert project.read(f"notebooks/{name}") == "new\n"
    assert f"Brought: {name}\n" in result.out
    assert not project.has("CANARY") and not project.has("notebooks/CANARY")


def test_download_keeps_a_notebook_that_was_saved_meanwhile(project: Project) -> None:
    saved = "echo old > .notebooks.new/demo.ipynb; sleep 0.05; echo saved > notebooks/demo.ipynb"

    assert project.make("download_notebooks", replies=[Reply("cp", sh=saved)]).code == 0

    assert project.read("notebooks/demo.ipynb") == "saved\n"


def test_times_are_kept_for_the_clients_comparison(project: Project) -> None:
    os.utime(project.path / "notebooks/demo.ipynb", (1e9, 1e9))
    look = Reply("cp", sh="find .notebooks.new -name demo.ipynb -newermt 2002-01-01 > newer")

    assert project.make("download_notebooks", replies=[look]).code == 0

    assert project.read("newer") == ""


# Jobs


def test_a_training_uploads_runs_and_asks_how_it_ended(project: Project) -> None:
    result = project.make("run_training")

    assert result.code == 0, result.err
    mkdir, copy, run, ended = result.calls
    tag = options(run, "--tag")[1]
    assert mkdir == ["mkdir", "--parents", ROOT]
    assert copy[-1] == "code"
    assert run == [
        *["run", "--no-tty", "--name", "training-my-project", *TAG, "--tag", tag],
        *["--preset", "cpu-small", "--life-span", "1d", *MOUNTS],
        *["--volume", "storage:my-project/results:/project/results:rw"],
        *["--workdir", "/project/code", "--entrypoint", TRAIN, "image:my-project"],
    ]
    assert re.fullmatch(r"run:[\d-]+", tag)
    assert ended == ["--quiet", "ps", "--tag", tag, "--status", "succeeded"]
    assert "for 1d at most; to stop it: make kill_training" in result.out


def test_a_training_can_leave_the_code_on_storage_alone(project: Project) -> None:
    assert project.make("run_training", "UPLOAD_CODE=no").commands == ["run", "ps"]


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


@pytest.mark.parametrize("words", ["mkdir", "cp", "run", "ps"])
def test_each_failing_call_fails_the_training(project: Project, words: str) -> None:
    result = project.make("run_training", replies=[Reply(words, 3)])

    assert result.code != 0
    assert result.commands[-1] == words
    assert "Trained" not in result.out
    assert re.match("(run_training|upload_code): ", sentence(result.err))
    assert "Error 3" in result.err


def test_a_training_that_was_killed_is_no_success(project: Project) -> None:
    result = project.make("run_training", replies=[Reply("ps", out="")])

    assert result.code != 0
    assert "the training did not run to its end" in sentence(result.err)


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
        ("kill_training", [], ["--name", "training-my-project"]),
        ("kill_training", ["RUN=a"], ["--name", "training-my-project-a"]),
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


def test_logs_of_a_named_training(project: Project) -> None:
    calls = project.make("logs_training", "RUN=a").calls

    name = "training-my-project-a"
    assert calls == [["logs", name], ["--quiet", "ps", "--name", name]]


def test_log_that_ends_before_the_training_does_broke_off(project: Project) -> None:
    result = project.make("logs_training", replies=[Reply("ps", out="job-1\n")])

    assert result.code != 0
    assert sentence(result.err).startswith("logs_training: the log broke off")
    assert len(result.calls) == 4


@pytest.mark.parametrize("job", ["training", "develop"])
def test_connect_needs_a_terminal(project: Project, job: str) -> None:
    result = project.make(f"connect_{job}")

    assert result.code != 0
    assert result.calls == []
    assert sentence(result.err) == f"connect_{job}: a shell needs a terminal."


@pytest.mark.parametrize("job", ["training", "develop"])
@pytest.mark.parametrize("code", [0, 72])
def test_connect_opens_a_shell(project: Project, job: str, code: int) -> None:
    ours, theirs = pty.openpty()

    result = project.make(f"connect_{job}", stdin=theirs, replies=[Reply("exec", code)])

    os.close(ours)
    os.close(theirs)
    assert result.calls == [["--quiet", "exec", "--tty", f"{job}-my-project", "bash"]]
    assert (result.code == 0) is (code == 0)


def started(result: Result, job: str) -> List[str]:
    """The call that started the job, between the look for one that runs and the page."""
    assert result.code == 0, result.err
    assert result.calls[0] == ["--quiet", "ps", "--name", f"{job}-my-project"]
    assert result.calls[2:] in ([["job", "browse", f"{job}-my-project"]], [])
    return result.calls[1]


WEB = ["jupyter", "tensorboard", "filebrowser"]

RUNS = Reply("--quiet ps", out="job-1\n")

JUPYTER = (
    "python -m jupyterlab --no-browser --allow-root --ip=0.0.0.0 --port=80 "
    "--ServerApp.root_dir=/project/notebooks "
)


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


@pytest.mark.parametrize(
    "value", ["--no-http-auth", "", "--http-auth --no-http-auth", "--no-http-auth --http-auth", "x"]
)
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


# Local


def plant_python(project: Project, code: int = 0) -> List[str]:
    plant_recorder(project.bin / "py", "python3")
    (project.bin / "py" / "replies").write_text(
        '[{"words": [], "out": "", "err": "", "sh": "", "code": %d}]' % code
    )
    return [f"PYTHON={project.bin}/py/python3"]


@pytest.mark.parametrize("code", [0, 1])
def test_setup_local(project: Project, code: int) -> None:
    result = project.make("setup_local", *plant_python(project, code))

    calls = (project.bin / "py" / "calls").read_text()
    assert calls == '["-m", "pip", "install", "--requirement", "requirements/pip.txt"]\n'
    assert (result.code == 0) is (code == 0)
    if code:
        assert sentence(result.err).startswith("setup_local: not installed")


def test_train_local_runs_the_same_command_without_a_shell(project: Project) -> None:
    (project.path / "code" / "train.py").write_text("import sys; print(sys.argv[1:])")

    result = project.make("train_local", 'TRAIN_ARGS=--note "a b" --price $5', "RUN=x")

    assert result.code == 0, result.err
    words = ["--data", "../data", "--results", "../results", "--note", "a b", "--price", "$5"]
    assert result.out.splitlines()[0] == str([*words, "--results", "../results/x"])
    assert project.has("results/x")


def test_a_failing_local_training_is_a_failure(project: Project) -> None:
    (project.path / "code" / "train.py").write_text("import sys; sys.exit(3)")

    result = project.make("train_local")

    assert result.code != 0
    assert sentence(result.err).startswith("train_local: the training failed")
    assert "Error 3" in result.err


def test_lint_without_flake8_says_what_to_run(project: Project) -> None:
    result = project.make("lint", *plant_python(project, 1))

    assert result.code != 0
    assert sentence(result.err) == "lint: flake8 is not installed: make setup_local"
