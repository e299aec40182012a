"""Any answer to the template's questions is refused with a sentence, or rendered as it is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import strategies as st

from .answers import ANSWERS, PLAIN, Rendering
from .exploring import explore
from .texts import TRAPS
from .world import World


@pytest.fixture
def rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Rendering:
    rendering = Rendering(World(tmp_path)).plant()
    monkeypatch.chdir(rendering.world.work)
    monkeypatch.setenv("HOME", str(rendering.world.home))
    # No git, which has tests of its own: it would take a fifth of the time.
    monkeypatch.setenv("PATH", str(rendering.world.home))
    # It logs a traceback of its own for each refusal.
    caplog.set_level(logging.CRITICAL, "cookiecutter")
    return rendering


@pytest.mark.parametrize(
    ("question", "examples"),
    [("project_name", 280), ("project_slug", 280), ("base_image", 200), ("preset", 200)],
)
def test_any_answer_to_one_question(rendering: Rendering, question: str, examples: int) -> None:
    explore(
        examples - len(TRAPS),
        rendering.holds,
        ({"given": {question: trap}, "typed": number % 2} for number, trap in enumerate(TRAPS)),
        given=st.fixed_dictionaries({question: ANSWERS[question]}),
        typed=st.booleans(),
    )

    assert rendering.ended["rendered"] > examples / 20
    assert rendering.ended["refused"] > examples / 20


def test_any_answers_to_all_questions(rendering: Rendering) -> None:
    explore(50, rendering.holds, given=st.fixed_dictionaries(ANSWERS), typed=st.booleans())


@pytest.mark.parametrize("question", ["project_name", "base_image", "preset"])
def test_an_answer_that_cookiecutter_takes_for_a_template_is_refused(
    rendering: Rendering, question: str
) -> None:
    rendering.judge({**PLAIN, question: "{{ 7 * 7 }}"}, typed=False)

    assert rendering.ended == {"refused": 1}
