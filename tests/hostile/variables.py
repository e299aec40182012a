"""What must hold of the Makefile's variables, whatever stands in them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

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
BAD_WORD = "This must be one word of letters, digits and"
BAD_SWITCH = "FULL and YES are 1 or nothing", "UPLOAD_CODE and BROWSE are yes or no"

# A job runs and is listed, so that targets that look for one have something to do.
REPLIES = (
    Reply("ps --format", out=" job-1 a\n"),
    Reply("status", out=" Status  succeeded\n Http URL  http://here\n"),
)
DEVELOPS = Reply(f"ps develop-{SLUG}", out="job-1\n")


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

# Those that are one word of a call, each with one that fits and the targets whose calls show it.
WORDS: Dict[str, Tuple[str, Sequence[str]]] = {
    "LOGIN_URL": ("http://somewhere/api/v1", ["login"]),
    "BASE_IMAGE": ("somebase:1", ["setup"]),
    "IMAGE": ("image:something", ["run_training", "run_jupyter", "setup"]),
    "JUPYTER_IMAGE": ("somejupyter:1", ["run_jupyter"]),
    "TENSORBOARD_IMAGE": ("someboard:1", ["run_tensorboard"]),
    "FILEBROWSER_IMAGE": ("somebrowser:1", ["run_filebrowser"]),
    "PRESET": ("somepreset", ["run_training", "run_jupyter", "setup"]),
    "LIFE_SPAN": ("12d34h", ["run_training", "run_jupyter", "run_tensorboard", "run_filebrowser"]),
    "SETUP_LIFE_SPAN": ("12d34h", ["setup"]),
    "LOCAL_PORT": ("12345", ["port_forward_develop"]),
    "REMOTE_PORT": ("12345", ["port_forward_develop"]),
}
# And those of a few values each.
SWITCHES: Dict[str, Tuple[Sequence[str], Sequence[str]]] = {
    "HTTP_AUTH": (("", "--http-auth", "--no-http-auth"), ["run_jupyter", "run_tensorboard"]),
    "UPLOAD_CODE": (("", "yes", "no"), ["run_training"]),
    "BROWSE": (("", "yes", "no"), ["run_jupyter", "help"]),
    "FULL": (("", "1"), ["upload_data", "upload_notebooks"]),
    "YES": (("", "1"), ["clean_code"]),
}
_WORD = re.compile(r"[A-Za-z0-9@:/._=+][A-Za-z0-9@:/._=+-]*")


def _told_apart(result: Result) -> List[List[str]]:
    """The calls without what names this one of them alone."""
    return [
        [re.sub(r"^(run|setup):\d{8}-.*", r"\1", word) for word in call] for call in result.calls
    ]


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

    def holds_of_word(self, name: str, value: str, target: int, by_environment: bool) -> None:
        """Refused with a sentence before any call, or in the calls where another value was."""
        usual, targets = WORDS[name]
        chosen = targets[target % len(targets)]
        word = value.strip(" \t\n\r\v\f")
        fits = "\n" not in value and bool(
            _WORD.fullmatch(word) or (name, word) == ("LOGIN_URL", "")
        )
        result = self.make(chosen, name, value, by_environment)
        self.ended["used" if fits else "refused"] += 1
        if not fits:
            assert result.code != 0, "it should have been refused"
            assert LINE_BREAK in result.err or BAD_WORD in result.err, result.err
            assert result.calls == []
        else:
            assert result.code == 0, result.err
            as_usual = self.make(chosen, name, usual, by_environment)
            assert _told_apart(result) == [
                [said.replace(usual, word) for said in call if said.replace(usual, word)]
                for call in _told_apart(as_usual)
            ]

    def holds_of_switch(self, name: str, value: str, target: int, by_environment: bool) -> None:
        """Refused with a sentence before any call, or one of the few values that it may have."""
        values, targets = SWITCHES[name]
        result = self.make(targets[target % len(targets)], name, value, by_environment)
        self.ended["refused" if result.code else "used"] += 1
        if result.code == 0:
            assert set(value.split()) <= set(values), value
        else:
            assert value not in values
            assert result.calls == []
            assert any(said in result.err for said in (LINE_BREAK, BAD_WORD, *BAD_SWITCH))

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
        notes = [self.project.bin / "calls", self.project.bin / "replies", self.project.stamp]
        before = self.world.files(*notes)
        if by_environment:
            project, words = replace(self.project, env={name: value}), []
        else:
            project, words = self.project, [f"{name}={value}"]
        if "UPLOAD_CODE" != name:
            words.append("UPLOAD_CODE=no")
        self.project.mark_set_up()
        if target == "setup":
            self.project.stamp.unlink()
        needs = [DEVELOPS] if target == "port_forward_develop" else []
        result = project.make(target, *words, replies=[*REPLIES, *needs])
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
