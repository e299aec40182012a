from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from baking import TEMPLATE, Project, render
from jinja2 import Environment

ANSWERS = {
    "project_name": "My Project",
    "project_slug": "my-project",
    "base_image": "python:3.12-slim-bookworm",
    "preset": "cpu-small",
}


def load_hook(name: str, **answers: str) -> Dict[str, Any]:
    """Render a hook as cookiecutter does, and run it as a module."""
    source = (TEMPLATE / "hooks" / f"{name}.py").read_text()
    context = {**ANSWERS, **answers}
    rendered = Environment(keep_trailing_newline=True).from_string(source)
    module: Dict[str, Any] = {"__name__": name}
    exec(compile(rendered.render(cookiecutter=context), name, "exec"), module)
    return module


@pytest.mark.parametrize(
    "value",
    ["plain", '"', "'", '"""', "'''", "\\", "\\\\", "$(id)", "`id`", "</script>", "Имя", "{{ x }}"],
)
def test_answers_reach_the_hooks_as_data(value: str) -> None:
    assert load_hook("pre_gen_project", project_name=value)["ANSWERS"]["project_name"] == value
    assert load_hook("post_gen_project", project_name=value)["ANSWERS"]["project_name"] == value


@pytest.mark.parametrize("slug", ["abc", "a-b", "a12", "my-project", "a" * 28])
def test_accepted_slugs(slug: str) -> None:
    assert load_hook("pre_gen_project", project_slug=slug)["main"]() == 0


@pytest.mark.parametrize(
    "slug",
    [
        "",
        "ab",
        "a" * 29,
        "1abc",
        "Abc",
        "a_b",
        "a--b",
        "-abc",
        "abc-",
        "a.b",
        "a b",
        "абв",
        "abc\n",
        "../x",
    ],
)
def test_refused_slugs(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_hook("pre_gen_project", project_slug=slug)["main"]() == 1

    refusal = capsys.readouterr().err
    assert ascii(slug) in refusal
    assert "3 to 28 lower-case letters, digits and single inner hyphens" in refusal
    assert "'street-signs'" in refusal


@pytest.mark.parametrize(
    "image",
    [
        "python:3.12-slim-bookworm",
        "ubuntu",
        "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime",
        "ghcr.io/a/x@sha256:0123456789abcdef",
        "image:base:v1",
        "image:/team/base",
        "image://cluster/team/base:v1",
    ],
)
def test_accepted_images(image: str) -> None:
    assert load_hook("pre_gen_project", base_image=image)["main"]() == 0


@pytest.mark.parametrize(
    ("question", "value", "rule"),
    [
        ("base_image", "", "a Docker image or an image: URI"),
        ("base_image", "python 3", "a Docker image or an image: URI"),
        ("base_image", "--privileged", "a Docker image or an image: URI"),
        ("base_image", "$(shell id)", "a Docker image or an image: URI"),
        ("base_image", "a|b", "a Docker image or an image: URI"),
        ("preset", "", "64 letters, digits, dots, hyphens and underscores"),
        ("preset", "cpu small", "64 letters, digits, dots, hyphens and underscores"),
        ("preset", "a;id", "64 letters, digits, dots, hyphens and underscores"),
        ("preset", "-x", "64 letters, digits, dots, hyphens and underscores"),
        ("project_name", "  ", "must not be empty"),
        ("project_name", "a\nb", "one line without control characters"),
        ("project_name", "a\u2028b", "one line without control characters"),
        ("project_name", "a\x1bb", "one line without control characters"),
        ("project_name", "{{ cookiecutter }}", "marks of the template language"),
        ("project_name", "{% raw %}", "marks of the template language"),
    ],
)
def test_other_refusals(
    question: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_hook("pre_gen_project", **{question: value})["main"]() == 1

    refusal = capsys.readouterr().err
    assert refusal.startswith(f"{question} {value!a} ")
    assert rule in refusal
    assert "for example '" in refusal


def test_nothing_is_written_after_a_refusal(tmp_path: Path) -> None:
    done = render(tmp_path, {"project_slug": "Bad_Slug"})

    assert done.returncode != 0
    assert "'Bad_Slug'" in done.stderr
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name",
    [
        'a "quoted" one',
        "it's",
        "back\\slash \\",
        "`touch canary`",
        "$(touch canary) ${HOME} $HOME $$",
        '"""; import os; os.system("touch canary") #',
        "<b>bold</b> & *star* [link](x) _under_",
        "Проект 项目",
    ],
)
def test_a_hostile_name_is_only_text(bake: Callable[..., Project], name: str) -> None:
    project = bake(project_name=name, project_slug="my-project")

    title = project.read("README.md").splitlines()[0]
    assert re.sub(r"\\([\\`*_\[\]<>&#~$])", r"\1", title) == f"# {name}"
    assert not list(project.path.parent.rglob("canary*"))
    assert project.make().code == 0
    assert not list(project.path.rglob("canary*"))


def test_markdown_in_a_name_is_shown_as_it_is(bake: Callable[..., Project]) -> None:
    project = bake(project_name="C # ~x~ $y$ *z*", project_slug="my-project")

    assert project.read("README.md").splitlines()[0] == r"# C \# \~x\~ \$y\$ \*z\*"


def test_gitignore_is_put_in_place(bake: Callable[..., Project]) -> None:
    project = bake()

    assert "/data/*" in project.read(".gitignore")
    assert not project.has("_gitignore")


def branch(project: Path) -> str:
    return (project / ".git" / "HEAD").read_text().strip()


def only(folder: Path, *commands: str) -> str:
    """A PATH that holds nothing but these commands."""
    folder.mkdir()
    for command in commands:
        (folder / command).symlink_to(str(shutil.which(command)))
    return str(folder)


def test_git_is_initialised_on_main(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nname = A\nemail = a@example.com\n")

    done = render(tmp_path)

    assert "Git: an empty repository on branch main; nothing is committed yet." in done.stdout
    assert branch(tmp_path / "my-project") == "ref: refs/heads/main"


def test_without_git_the_project_is_complete(tmp_path: Path) -> None:
    done = render(tmp_path, PATH=only(tmp_path / "bin", "make"))

    assert done.returncode == 0
    assert "Git: not found" in done.stdout
    assert (tmp_path / "my-project" / ".gitignore").exists()
    assert not (tmp_path / "my-project" / ".git").exists()


def test_old_git_gets_main_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    old = path / "git"
    real = shutil.which("git")
    old.write_text(
        "#!/bin/sh\n"
        'case "$*" in *initial-branch*) echo "error: unknown option" >&2; exit 129;; esac\n'
        f'exec {real} -c init.defaultBranch=master "$@"\n'
    )
    old.chmod(0o755)

    done = render(tmp_path, PATH=str(path))

    assert done.returncode == 0
    assert "Git: an empty repository on branch main" in done.stdout
    assert branch(tmp_path / "my-project") == "ref: refs/heads/main"


def test_git_that_fails_is_said_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin" / "git"
    broken.write_text("#!/bin/sh\nexit 128\n")
    broken.chmod(0o755)

    done = render(tmp_path, PATH=str(tmp_path / "bin"))

    assert done.returncode == 0
    assert "Git: `git init` failed" in done.stdout


def test_without_an_identity_the_line_says_how_to_set_one(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")

    done = render(tmp_path)

    assert done.returncode == 0
    assert "tell git who you are" in done.stdout
    assert branch(tmp_path / "my-project") == "ref: refs/heads/main"


def test_inside_a_repository_none_is_nested(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    done = render(tmp_path)

    assert done.returncode == 0
    assert "inside an existing repository" in done.stdout
    assert not (tmp_path / "my-project" / ".git").exists()


def test_the_end_names_the_next_commands_from_where_the_user_is(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "over there"
    here.mkdir()
    there.mkdir()

    assert "cd my-project && make login && make setup" in render(here, PWD=str(here)).stdout
    elsewhere = render(there, PWD=str(here)).stdout
    assert f"cd '{there.resolve()}/my-project' && make login && make setup" in elsewhere


def test_rendered_again_over_a_project_it_keeps_what_is_the_users(tmp_path: Path) -> None:
    render(tmp_path)
    ignore = tmp_path / "my-project" / ".gitignore"
    ignore.write_text("mine\n")

    again = render(tmp_path, None, "--overwrite-if-exists", "--skip-if-file-exists")

    assert again.returncode == 0, again.stderr
    assert ignore.read_text() == "mine\n"
    assert not ignore.with_name("_gitignore").exists()
    assert "the repository that was here stays" in again.stdout


def test_prompts_and_hooks_ask_the_same_questions() -> None:
    context = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    checked = [question for question, *_ in load_hook("pre_gen_project")["CHECKS"]]

    assert checked == [question for question in context if not question.startswith("_")]
