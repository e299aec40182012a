"""What must hold of the Makefile's variables, whatever stands in them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

from baking import Project, Reply, Result, option
from hypothesis import strategies as st

from .texts import TRAPS, texts
from .world import World

SLUG = "my-project"
ROOT = f"storage:{SLUG}"
TRAIN = "python -u train.py --data ../data --results ../results"

# What the refusals say; the first is make's own, before anything else.
LINE_BREAK = "must not hold a line break: write it on one line"
BAD_RUN = "does not fit"
BAD_COMMAND = "must be words in which each quote is closed"
BAD_STORAGE = "must look like storage:folder/folder"
NOT_OURS = "is never cleaned from here"
BAD_WORD = "This may only have letters, digits and"

# A job runs and is listed, so that targets that look for one have something to do.
REPLIES = (Reply("ps --format", out=" job-1 a\n"),)


@dataclass(frozen=True, repr=False)
class Use:
    """A target that uses a variable, and what a call with its value looks like."""

    target: str
    shown: Callable[[Result, str], bool]

    def __repr__(self) -> str:
        return self.target


def _run_name(result: Result, value: str) -> bool:
    name = f"training-{SLUG}" + (f"-{value}" if value else "")
    return any(name in call for call in result.calls)


def _run_result(result: Result, value: str) -> bool:
    return f"{ROOT}/results" + (f"/{value}" if value else "") in result.calls[0]


def _checked(result: Result, value: str) -> bool:
    return f"names: training-{SLUG}" + (f"-{value}" if value else "") in result.out


def _command(result: Result, value: str) -> bool:
    return option(result.calls[0], "--entrypoint") == value


def _in_a_call(result: Result, value: str) -> bool:
    return any(word.startswith(value) for call in result.calls for word in call)


def _in_a_pattern(result: Result, value: str) -> bool:
    return any(
        word.replace("[", "").replace("]", "").startswith(value)
        for call in result.calls
        for word in call
    )


@dataclass(frozen=True, repr=False)
class Variable:
    """A variable, its hostile values, and every kind of target that uses it."""

    name: str
    values: st.SearchStrategy[str]
    uses: Sequence[Use]
    refusals: Sequence[str]
    # What a trap may hide behind.
    start: str = ""
    # What the calls hold of a value, and whether that can be used at all; None: not decided here.
    becomes: Callable[[str], str] = lambda value: value
    fits: Callable[[str], Optional[bool]] = lambda value: None

    def __repr__(self) -> str:
        return self.name


def splits(command: str) -> bool:
    """Does it split as shell words, at least one? The rule of the platform."""
    try:
        return bool(shlex.split(command)) and bool(command.strip(" \t\r\v\f"))
    except ValueError:
        return False


_URI = re.compile(r"storage:(//[A-Za-z0-9_-]|/?[A-Za-z0-9_-])[A-Za-z0-9/._-]*")

_TRAINING = [Use("run_training", _command)]
_STORED = texts("storage:", ROOT, f"{ROOT}/data", "/data", "storage:/team/images", bad_bytes=True)
_FOLDERS = st.from_regex(r"storage:/?[a-z0-9]{1,4}(/[A-Za-z0-9_-]{1,6}){0,3}", fullmatch=True)

VARIABLES = (
    Variable(
        "RUN",
        st.one_of(
            texts("lr-01", bad_bytes=True),
            st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,8}", fullmatch=True),
        ),
        [
            Use("run_training", _run_name),
            Use("kill_training", _run_name),
            Use("logs_training", _run_name),
            Use("download_results", _run_result),
            Use("check", _checked),
        ],
        [LINE_BREAK, BAD_RUN],
        start="lr-1",
        fits=lambda value: bool(re.fullmatch(r"([a-z0-9](-?[a-z0-9]){0,19})?", value))
        and len(value) <= 20,
    ),
    Variable(
        "TRAIN_ARGS",
        texts("--epochs 5", "'a b'", '"a b"', bad_bytes=True),
        _TRAINING,
        [LINE_BREAK, BAD_COMMAND],
        start="--note ",
        becomes=lambda value: f"{TRAIN} {value}" if value else TRAIN,
        fits=lambda value: "\n" not in value and splits(f"{TRAIN} {value}"),
    ),
    Variable(
        "TRAIN_CMD",
        texts("python x.py", "'a b'", '"a b"', bad_bytes=True),
        _TRAINING,
        [LINE_BREAK, BAD_COMMAND],
        start="--note ",
        fits=lambda value: "\n" not in value and splits(value),
    ),
    Variable(
        "PROJECT_STORAGE",
        st.one_of(_STORED, _FOLDERS),
        [
            Use("upload_code", _in_a_call),
            Use("download_results", _in_a_call),
            Use("clean_code", _in_a_pattern),
            Use("run_tensorboard", _in_a_call),
        ],
        [LINE_BREAK, BAD_STORAGE],
        start=ROOT,
        fits=lambda value: None if _URI.fullmatch(value) else False,
    ),
    Variable(
        "DATA_STORAGE",
        st.one_of(_STORED, _FOLDERS),
        [
            Use("upload_data", _in_a_call),
            Use("upload", _in_a_call),
            Use("clean_data", _in_a_pattern),
            Use("run_training", _in_a_call),
            Use("run_develop", _in_a_call),
        ],
        [LINE_BREAK, BAD_STORAGE, NOT_OURS],
        start=ROOT,
        fits=lambda value: None if _URI.fullmatch(value) else False,
    ),
)

# Those that are words of a call, and those that switch something on.
WORDS = (
    *("LOGIN_URL", "BASE_IMAGE", "IMAGE", "JUPYTER_IMAGE", "TENSORBOARD_IMAGE"),
    *("FILEBROWSER_IMAGE", "PRESET", "LIFE_SPAN", "SETUP_LIFE_SPAN", "HTTP_AUTH"),
    *("LOCAL_PORT", "REMOTE_PORT", "UPLOAD_CODE", "FULL", "YES", "BROWSE"),
)
WORD_TARGETS = (
    *("check", "login", "upload_data", "clean_code", "run_training", "run_jupyter"),
    *("run_tensorboard", "run_filebrowser", "run_develop", "port_forward_develop", "help"),
)


def dropped(value: str) -> str:
    """What make leaves of a value on its command line, before it reads any Makefile."""
    return value.lstrip(" \t\n\r\v\f")


@dataclass(frozen=True)
class Calling:
    """Calls the targets of a project in a world, as its user does, and counts how that ended."""

    world: World
    project: Project
    ended: Counter[str] = field(default_factory=Counter)

    def holds(self, variable: Variable, value: str, use: Use, by_environment: bool) -> None:
        """Refused with a sentence before any call, or called with exactly this value."""
        if not by_environment:
            value = dropped(value)
        result = self.make(use.target, variable.name, value, by_environment)
        fits = variable.fits(value)
        self.ended["refused" if result.code else "used"] += 1
        if result.code == 0:
            assert fits is not False, "it should have been refused"
            assert use.shown(result, variable.becomes(value)), result.calls
        else:
            assert not fits, result.err
            assert any(sentence in result.err for sentence in variable.refusals), result.err
            # `check` only looks.
            assert [call for call in result.calls if use.target != "check"] == []

    def holds_of_words(self, name: str, value: str, target: str, by_environment: bool) -> None:
        result = self.make(target, name, value, by_environment)
        if result.code != 0 and not result.calls:
            assert LINE_BREAK in result.err or BAD_WORD in result.err, result.err

    def holds_locally(self, value: str) -> None:
        """Refused, or split into words as a shell does and handed to the program."""
        command = f"{TRAIN} {value}"
        result = self.make("train_local", "TRAIN_ARGS", value, by_environment=True)
        if "\n" in value or not splits(command):
            assert result.code != 0
            assert any(sentence in result.err for sentence in (LINE_BREAK, BAD_COMMAND))
        else:
            assert result.code == 0, result.err
            assert result.calls == [shlex.split(command)[3:]]

    def make(self, target: str, name: str, value: str, by_environment: bool) -> Result:
        """Make, and see that nothing but the calls happened."""
        notes = [self.project.bin / note for note in ("calls", "replies")]
        before = self.world.files(*notes)
        if by_environment:
            project, words = replace(self.project, env={name: value}), []
        else:
            project, words = self.project, [f"{name}={value}"]
        if "UPLOAD_CODE" != name:
            words.append("UPLOAD_CODE=no")
        result = project.make(target, *words, replies=REPLIES)
        assert self.world.canaries() == []
        assert self.world.files(*notes) == before
        assert "Traceback" not in result.err
        return result


def strategies(variable: Variable) -> Dict[str, st.SearchStrategy[Any]]:
    """Generated arguments of `Calling.holds`."""
    return {
        "variable": st.just(variable),
        "value": variable.values,
        "use": st.sampled_from(list(variable.uses)),
        "by_environment": st.booleans(),
    }


def traps(variable: Variable) -> Iterator[Dict[str, Any]]:
    """Arguments of `Calling.holds`: every trap once, at every target and both ways in turn."""
    for number, trap in enumerate(TRAPS):
        yield {
            "variable": variable,
            "value": trap if number % 3 else variable.start + trap,
            "use": variable.uses[number % len(variable.uses)],
            "by_environment": number % 4 < 2,
        }
