"""Images that Docker builds, the real clients push, and projects start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from baking import render
from dockercli import Docker
from dockerimages import BASE
from e2e.commands import run
from e2e.platform import Platform
from e2e.project import Project, make_wheel

from .deepo import Deepo

# Seconds.
pytestmark = pytest.mark.timeout(240)

# Only in what Deepo's Dockerfile made, and in what `make setup` put on it.
DOCKERFILE = f"FROM {BASE}\nRUN echo by Deepo >/made\n"
TRAIN = "python -c \"import tiny; open('../results/made', 'w').write(open('/made').read())\""


@pytest.fixture
def image(tmp_path: Path, copied: Path, platform: Platform, docker: Docker) -> str:
    """What Deepo's Dockerfile makes, on the platform and nowhere else."""
    image = docker.image()
    deepo = Deepo(tmp_path / "deepo", DOCKERFILE)
    words = [f"DEEPO_REPOSITORY={deepo.path}", f"DEEPO_REVISION={deepo.new}", f"IMAGE={image}"]
    command = ["make", "base_image", "push_base_image", *words]
    done = run(command, cwd=copied, env=platform.env, timeout=120)
    assert f"BASE_IMAGE=image:{image}" in done.stdout
    docker.forget()
    return image


def test_project_starts_from_an_image_that_deepo_made(
    tmp_path: Path, platform: Platform, image: str
) -> None:
    answers = {"project_name": "Base", "base_image": f"image:{image}"}
    assert render(tmp_path / "work", answers).returncode == 0
    project = Project(tmp_path / "work" / "base", platform)
    make_wheel(project.path / "requirements")
    project.write("requirements/pip.txt", "./tiny-1.0-py3-none-any.whl\n")

    project.make("setup")
    project.make("run_training", TRAIN_CMD=TRAIN)

    assert project.storage("results/made").read_text() == "by Deepo\n"


def test_push_without_a_login_says_how_to_log_in(
    copied: Path, platform: Platform, docker: Docker
) -> None:
    image = docker.image()
    docker("tag", BASE, image)

    done = run(
        ["make", "push_base_image", f"IMAGE={image}"],
        cwd=copied,
        env={**platform.plain_env, "DOCKER_HOST": docker.host},
        code=2,
    )

    done.explains("if you are not logged in: neuro")


def test_build_that_fails_leaves_no_image(
    tmp_path: Path, copied: Path, platform: Platform, docker: Docker
) -> None:
    image = docker.image()
    deepo = Deepo(tmp_path / "deepo", f"FROM {BASE}\nRUN exit 5\n")
    words = [f"DEEPO_REPOSITORY={deepo.path}", f"DEEPO_REVISION={deepo.new}", f"IMAGE={image}"]

    words.append("BUILD_EXTRA=--force-rm")  # nor a container, in an engine that may be the user's
    done = run(["make", "base_image", *words], cwd=copied, env=platform.env, code=2)

    done.explains("base_image: the image is not built")
    assert docker("image", "ls", "--quiet", image) == ""
