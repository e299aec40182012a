"""What must hold of the answers to the template's questions, whatever they are."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, Mapping

from baking import TEMPLATE
from cookiecutter.exceptions import (  # type: ignore[import-untyped]
    CookiecutterException,
    FailedHookException,
)
from cookiecutter.main import cookiecutter  # type: ignore[import-untyped]
from hypothesis import strategies as st

from .texts import has_jinja_marks, one_line, texts
from .world import World

QUESTIONS = [
    name for name in json.loads((TEMPLATE / "cookiecutter.json").read_text()) if name[0] != "_"
]
PLAIN = {
    "project_name": "My Project",
    "project_slug": "my-project",
    "base_image": "python:3.12-slim-bookworm",
    "preset": "cpu-small",
}

# Texts of a question: hostile ones, and some that are answers.
ANSWERS = {
    "project_name": texts("My Project", "Crème brûlée", "C#"),
    "project_slug": st.one_of(
        texts("my-project", "a"),
        st.from_regex(r"[a-z](-?[a-z0-9]){2,13}", fullmatch=True),
    ),
    "base_image": st.one_of(
        texts("python:3.12", "image:x"),
        st.from_regex(
            r"(image:)?[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[a-z0-9.]{1,8})?", fullmatch=True
        ).filter(lambda text: text[-1] != "."),
    ),
    "preset": st.one_of(
        texts("cpu-small"), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
    ),
}


@dataclass(frozen=True)
class Rendering:
    """Renders into `world`, by the questions or by --no-input, and counts how that ended."""

    world: World
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def out(self) -> Path:
        return self.world.work / "out"

    @property
    def config(self) -> Path:
        """Cookiecutter's own notes on each call, which are not ours to judge."""
        return self.world.root / "cookiecutter"

    def plant(self) -> Rendering:
        self.world.plant()
        self.out.mkdir()
        self.config.mkdir()
        (self.config / "config").write_text(
            f"cookiecutters_dir: {self.config}/cookiecutters\nreplay_dir: {self.config}/replay\n"
        )
        return self

    def holds(self, given: Mapping[str, str], typed: bool) -> None:
        """Refused with a sentence and nothing made, or rendered with exactly these answers."""
        # With --no-input cookiecutter runs the Jinja of an answer before anybody can refuse it.
        if "project_slug" in given:
            given = {**given, "project_slug": within_the_world(given["project_slug"])}
        typed = typed or any(has_jinja_marks(text) for text in given.values())
        if typed:
            # What a terminal can send in one line; cookiecutter strips it.
            given = {name: one_line(text).strip() for name, text in given.items()}
        answers = {**PLAIN, **{name: text for name, text in given.items() if text or not typed}}
        before = self.world.files(self.out, self.config)
        try:
            self.judge(answers, typed)
            assert self.world.files(self.out, self.config) == before
            assert self.world.canaries() == []
        finally:
            shutil.rmtree(self.out)
            self.out.mkdir()

    def judge(self, answers: Mapping[str, str], typed: bool) -> None:
        """Render, and look at what was said and made."""
        with said() as streams:
            try:
                path = Path(self._render(answers, typed))
            except FailedHookException:
                self.ended["refused"] += 1
                assert not any(files for _, _, files in os.walk(self.out))
                assert any(line.startswith(tuple(QUESTIONS)) for line in streams.lines()), streams
                assert "Traceback" not in streams.text()
                return
            except (CookiecutterException, OSError, ValueError):
                # No folder can have this name; cookiecutter finds out before it runs a hook.
                self.ended["no folder"] += 1
                assert not re.fullmatch(r"[a-z0-9-]{1,28}", answers["project_slug"])
                assert not any(files for _, _, files in os.walk(self.out))
                return
        self.ended["rendered"] += 1
        assert path == self.out / answers["project_slug"]
        assert os.listdir(self.out) == [answers["project_slug"]]
        title = (path / "README.md").read_text(encoding="utf-8").split("\n")[0]
        assert (
            re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", title) == f"# {answers['project_name'].strip()}"
        )
        settings = (path / "Makefile").read_text(encoding="utf-8").splitlines()
        for variable, question in (
            ("PROJECT =", "project_slug"),
            ("BASE_IMAGE ?=", "base_image"),
            ("PRESET ?=", "preset"),
        ):
            assert f"{variable} {answers[question]}" in settings

    def _render(self, answers: Mapping[str, str], typed: bool) -> str:
        options: Dict[str, object] = {"no_input": True, "extra_context": dict(answers)}
        if typed:
            options = {}
        with typing("".join(f"{answers[name]}\n" for name in QUESTIONS)):
            path: str = cookiecutter(
                str(TEMPLATE),
                output_dir=str(self.out),
                config_file=str(self.config / "config"),
                **options,
            )
        return path


def within_the_world(slug: str) -> str:
    """No absolute path, and only a few `..`: cookiecutter makes the folder before any hook runs."""
    parts = slug.lstrip("/").split("/")
    ups = [number for number, part in enumerate(parts) if part.strip() == ".."]
    return "/".join(part for number, part in enumerate(parts) if number not in ups[3:])


@contextmanager
def typing(text: str) -> Iterator[None]:
    """Let the questions be answered with these lines."""
    before, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.stdin = before


class Streams:
    """What the hooks, which are processes of their own, have said."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def text(self) -> str:
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, size, 0).decode(errors="replace")

    def lines(self) -> list[str]:
        return self.text().splitlines()

    def __str__(self) -> str:
        return self.text()


@contextmanager
def said() -> Iterator[Streams]:
    """Collect what is written to this process's standard streams, by whomever."""
    saved = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield Streams(file.fileno())
        finally:
            for number, copy in zip((1, 2), saved):
                os.dup2(copy, number)
                os.close(copy)
