from __future__ import annotations

import json
from typing import Any

import pytest
from baking import TEMPLATE

CONTEXT = json.loads((TEMPLATE / "cookiecutter.json").read_text())
QUESTIONS = {question for question in CONTEXT if not question.startswith("_")}


def test_few_questions_are_asked() -> None:
    assert QUESTIONS == {"project_name", "project_slug", "base_image", "preset"}


def test_every_question_has_a_prompt() -> None:
    assert set(CONTEXT["__prompts__"]) == QUESTIONS


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Project", "my-project"),
        ("Street   Signs!", "street-signs"),
        ("Проект Икс", "proekt-iks"),
        ("Crème brûlée", "creme-brulee"),
        ("A name that is much longer than jobs can have", "a-name-that-is-much-longer-t"),
        ("abcdefghijklmnopqrstuvwxyza bcd", "abcdefghijklmnopqrstuvwxyza"),
    ],
)
def test_the_slug_follows_the_name(cookies: Any, name: str, slug: str) -> None:
    result = cookies.bake(template=str(TEMPLATE), extra_context={"project_name": name})

    assert result.exit_code == 0
    assert result.project_path.name == slug
