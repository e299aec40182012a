"""What each target calls, on success and on failure; no engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from baking import Reply
from e2e.commands import wait_until
from machine import impossible
from tools.newer_make import newer_features

from .builder import SOURCE, Builder
from .deepo import Deepo

MAKEFILE = (SOURCE / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z]\w+):(?!=)", MAKEFILE, re.MULTILINE)
VARIABLES = re.findall(r"^([A-Z_]+) \??=", MAKEFILE.partition("\nexport ")[0], re.MULTILINE)
INDEX = "TORCH_INDEX=http://localhost/cpu"
ENGINE_CALL = ["version"]


def test_make_alone_lists_every_target(builder: Builder) -> None:
    result = builder.make()

    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == TARGETS
    assert builder.calls("docker") == []


def test_readme_explains_every_target_and_variable() -> None:
    readme = (SOURCE / "README.md").read_text()

    named = set(re.findall(r"`([A-Za-z_]+)`", readme))
    assert named >= {*TARGETS} - {"help"}
    assert {name for name in named if name.isupper()} == {*VARIABLES}


def test_makefile_needs_nothing_newer_than_make_3_81() -> None:
    assert newer_features(MAKEFILE) == []


# Deepo


def test_deepo_is_called_with_the_command_line_of_the_original_design(
    builder: Builder, deepo: Deepo
) -> None:
    assert builder.make("deepo_dockerfile").code == 0

    folder, call, base = builder.dockerfile.read_text().splitlines()
    assert folder == "# in generator"
    assert json.loads(call[2:]) == [
        "generate.py",
        "Dockerfile",
        *["tensorflow", "pytorch", "jupyter", "jupyterlab", "python==3.10"],
        *["--ubuntu-ver", "22.04"],
    ]
    assert base == "FROM scratch"


def test_deepo_of_old_still_makes_python_3_6(builder: Builder, deepo: Deepo) -> None:
    words = [f"DEEPO_REVISION={deepo.old}", "PYTHON_VERSION=3.6", "GENERATE_EXTRA="]

    assert builder.make("deepo_dockerfile", *words, "MODULES=pytorch jupyter").code == 0

    call = json.loads(builder.dockerfile.read_text().splitlines()[1][2:])
    assert call == ["generate.py", "Dockerfile", "pytorch", "jupyter", "python==3.6"]


def test_deepo_takes_a_python_that_it_cannot_install(builder: Builder, deepo: Deepo) -> None:
    assert builder.make("deepo_dockerfile", "PYTHON_VERSION=3.6").code == 0

    assert "python==3.6" in builder.dockerfile.read_text()


def test_other_revision_replaces_the_one_before(builder: Builder, deepo: Deepo) -> None:
    assert builder.make("deepo_dockerfile").code == 0
    words = [f"DEEPO_REVISION={deepo.old}", "PYTHON_VERSION=3.6"]

    assert builder.make("deepo_dockerfile", *words).code == 0

    assert "python==3.6" in builder.dockerfile.read_text()
    assert builder.left_behind == ["deepo"]


def test_python_version_of_the_environment_means_another_thing(
    builder: Builder, deepo: Deepo
) -> None:
    builder.environment["PYTHON_VERSION"] = "3.12.8"  # as in Python's own images

    assert builder.make("deepo_dockerfile").code == 0

    assert "python==3.10" in builder.dockerfile.read_text()


def test_deepo_image_is_built_where_its_dockerfile_is(builder: Builder, deepo: Deepo) -> None:
    builder.reply("docker", Reply("build", sh="cat Dockerfile"))

    result = builder.make("base_image")

    assert result.code == 0, result
    assert builder.calls("docker") == [ENGINE_CALL, ["build", "--tag", "neuro/base", "."]]
    assert "FROM scratch" in result.out
    assert "make push_base_image" in result.out


def test_repository_that_cannot_be_cloned_is_said(builder: Builder) -> None:
    words = ["DEEPO_REPOSITORY=/no/such/repository"]

    builder.fails("deepo_dockerfile", *words, says="could not clone DEEPO_REPOSITORY")

    assert builder.left_behind == []


def test_revision_that_is_not_there_is_said(builder: Builder, deepo: Deepo) -> None:
    words = ["DEEPO_REVISION=0123456"]

    builder.fails("deepo_dockerfile", *words, says="has no DEEPO_REVISION 0123456")

    assert builder.left_behind == []


def test_what_deepo_refuses_is_said_and_leaves_no_dockerfile(
    builder: Builder, deepo: Deepo
) -> None:
    assert builder.make("deepo_dockerfile").code == 0
    words = ["MODULES=tensorflow nosuch"]

    builder.fails("base_image", *words, says="Deepo wrote no Dockerfile")

    assert builder.left_behind == []
    assert builder.calls("docker") == [ENGINE_CALL]


def test_module_is_no_pattern_for_files(builder: Builder, deepo: Deepo) -> None:
    result = builder.make("deepo_dockerfile", "MODULES=gen*")

    assert "No module named 'modules.gen*'" in result.err


def test_interrupted_clone_leaves_nothing(builder: Builder, deepo: Deepo) -> None:
    ready = builder.path / "ready"
    revision = deepo.commit(
        f"import time\nopen({str(ready)!r}, 'w').close()\ntime.sleep(60)\n",
    )
    command, environ = builder.command("deepo_dockerfile", f"DEEPO_REVISION={revision}")
    with subprocess.Popen(
        command, cwd=builder.path, env=environ, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        wait_until(ready.exists, "the generator runs")
        assert builder.left_behind == ["deepo.new"]
        os.killpg(process.pid, signal.SIGINT)

    assert process.returncode != 0
    assert builder.left_behind == []


def test_missing_git_is_said(builder: Builder, tmp_path: Path) -> None:
    builder.environment["PATH"] = only(tmp_path / "few", "sh", "printf", "rm")

    builder.fails("deepo_dockerfile", says="git is not installed")


# Our own Dockerfile


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_own_image_is_built_with_its_variant(builder: Builder, variant: str) -> None:
    shows = 'printf "%s " "$BASE" "$TORCH_INDEX"'  # docker takes both from its environment
    builder.reply("docker", Reply("build", sh=shows))

    result = builder.make(
        f"base_image_{variant}", INDEX, "BASE=debian:12", "IMAGE=me/base:2", "BUILD_EXTRA=--pull"
    )

    assert result.code == 0, result
    arguments = ["BASE", "TORCH_INDEX", f"VARIANT={variant}"]
    options = [word for argument in arguments for word in ("--build-arg", argument)]
    build = ["build", "--pull", "--tag", "me/base:2", *options, "."]
    assert builder.calls("docker") == [ENGINE_CALL, build]
    assert "debian:12 http://localhost/cpu" in result.out


def test_cpu_image_asks_for_the_index_it_needs(builder: Builder) -> None:
    builder.fails("base_image_cpu", says="set TORCH_INDEX to")

    assert builder.calls("docker") == [ENGINE_CALL]


def test_gpu_image_needs_no_index(builder: Builder) -> None:
    assert builder.make("base_image_gpu").code == 0


def test_failed_build_is_said(builder: Builder) -> None:
    builder.reply("docker", Reply("build", code=7, err="no space left\n"))

    result = builder.fails("base_image_cpu", INDEX, says="the image is not built")

    assert "no space left" in result.err
    assert "Error 7" in result.err


# Push


def test_push_hands_the_image_to_the_client(builder: Builder) -> None:
    result = builder.make("push_base_image", "IMAGE=me/base:2")

    assert result.code == 0, result
    assert builder.calls("neuro") == [["image", "push", "me/base:2"]]
    assert "BASE_IMAGE=image:me/base:2" in result.out


def test_push_of_an_image_that_was_not_built_says_how_to(builder: Builder) -> None:
    builder.reply("docker", Reply("inspect", code=1))

    builder.fails("push_base_image", says="docker has no image neuro/base; build it first")

    assert builder.calls("neuro") == []


def test_failed_push_is_said(builder: Builder) -> None:
    builder.reply("neuro", Reply("push", code=65, err="You are not logged in\n"))

    result = builder.fails("push_base_image", says="if you are not logged in: neuro login")

    assert "Error 65" in result.err
    assert "Pushed" not in result.out


def test_missing_client_is_said(builder: Builder) -> None:
    builder.fails("push_base_image", "NEURO=no-such-client", says="pip install apolo-cli")


@pytest.mark.parametrize("target", ["base_image", "base_image_cpu", "push_base_image"])
def test_missing_docker_is_said(builder: Builder, deepo: Deepo, target: str) -> None:
    builder.fails(target, "DOCKER=no-such-docker", says="no-such-docker is not installed")

    assert builder.left_behind == []


@pytest.mark.parametrize("target", ["base_image", "base_image_cpu", "push_base_image"])
def test_engine_that_does_not_answer_is_said(builder: Builder, deepo: Deepo, target: str) -> None:
    builder.reply("docker", Reply("version", code=1, err="permission denied\n"))

    result = builder.fails(target, says="is its engine running")

    assert "permission denied" in result.err
    assert builder.left_behind == []


def test_values_reach_programs_as_they_are(builder: Builder) -> None:
    image = "it's; touch here `touch here` \" *"

    builder.make("base_image_cpu", INDEX, f"IMAGE={image}")
    builder.make("push_base_image", f"IMAGE={image}")

    assert builder.calls("docker")[1][:3] == ["build", "--tag", image]
    assert builder.calls("neuro") == [["image", "push", image]]
    assert not (builder.path / "here").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_an_old_make_does_the_same(builder: Builder, deepo: Deepo, target: str) -> None:
    old = os.environ.get("OLD_MAKE") or shutil.which("ckati")
    if not old:
        impossible("ckati is not installed, and no OLD_MAKE is named")
    new, calls = builder.make(target, INDEX), (builder.calls("docker"), builder.calls("neuro"))
    builder.plant("docker", "neuro")
    builder.maker = old

    result = builder.make(target, INDEX)

    assert (result.code, result.out) == (new.code, new.out)
    assert (builder.calls("docker"), builder.calls("neuro")) == calls


def only(folder: Path, *programs: str) -> str:
    """Return a folder for PATH that has no other programs."""
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(str(shutil.which(program)))
    return str(folder)
