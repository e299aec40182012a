"""The Makefile as a whole: its help, its variables, and what it asks of any client."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Dict, List, Sequence, Set

import pytest
from baking import Project, Reply, plant_recorder
from clients import CLIENTS, Client
from targets import REMOTE, no_stamp, sentence


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


@pytest.mark.parametrize("file", ["Makefile", "neuro.mk"])
def test_every_target_is_phony(project: Project, file: str) -> None:
    makefile = project.read(file).replace("\\\n", " ")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)

    assert phony
    targets = set(re.findall(r"^([a-z_]\w+):(?!=)", makefile, re.MULTILINE))
    assert set(phony[1].split()) - {"_outdated"} == targets


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


def all_calls(project: Project) -> List[List[str]]:
    """Every call that the targets make, those of a job that runs and of a terminal included."""
    no_stamp(project)
    lists = Reply("ps --format", out=" job-1 a\n")
    calls = project.make("setup", replies=[lists]).calls
    for target in REMOTE:
        calls += project.make(target, replies=[lists]).calls
    calls += project.make("run_jupyter", "BROWSE=no").calls
    runs = Reply("--quiet ps", out="job-1\n")
    ours, theirs = pty.openpty()
    for target in ["logs_training", "port_forward_develop", "connect_training", "connect_develop"]:
        calls += project.make(target, stdin=theirs, replies=[runs]).calls
    os.close(ours)
    os.close(theirs)
    return calls


@pytest.mark.parametrize("shell", ["dash"])
@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_both_clients_know_every_option(project: Project, client: Client, tmp_path: Path) -> None:
    client.require()
    calls = all_calls(project)
    used: Dict[str, Set[str]] = {}
    for call in calls:
        for command, options_ in options_of(call).items():
            used.setdefault(command, set()).update(options_)

    unknown = {
        command: options_ - known_options(client, command, tmp_path)
        for command, options_ in used.items()
    }

    assert {"run", "ps", "cp", "rm", "exec", "job browse", "config show"} <= set(used)
    assert {"port-forward", "status", "logs", "kill"} <= set(used)
    assert {"--tty", "--no-tty"} <= used["exec"]
    assert {command: options_ for command, options_ in unknown.items() if options_} == {}
    assert [call for call in calls if "--" in call] == []
