"""`help`, `check` and `setup`: from a rendered project to an image of its own."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Callable

import pytest
from machine import impossible

from .commands import wait_until
from .conftest import SANDBOX, Render, no_client, no_job, only_on
from .platform import Platform, available, is_root
from .project import Project, make_wheel

# What a mistake in pip.txt looks like, without a look at the network.
NOT_THERE = "not-there @ file:///nowhere/not_there-1.0.tar.gz\n"


@pytest.fixture(scope="module")
def ordinary_platform(make_platform: Callable[..., Platform]) -> Platform:
    """An instance of an ordinary user's, also when the tests run as root."""
    return make_platform(wrapper=as_ordinary_user())


@pytest.fixture
def quick(project: Project) -> Project:
    """A project whose `make setup` takes a moment: it installs one wheel from requirements/."""
    make_wheel(project.path / "requirements")
    project.write("requirements/pip.txt", "./tiny-1.0-py3-none-any.whl\n")
    return project


def imports(project: Project, module: str) -> None:
    """Fail unless a job of the project's image can import the module."""
    code = f"import {module}"
    project.platform.neuro("run", "-T", f"image:{project.slug}", "python", "-c", code)


@no_job
@no_client
def test_make_alone_prints_help(project: Project) -> None:
    result = project.make()

    for line in ("Setup", "Storage", "Jobs", "Local", "run_training"):
        assert line in result.stdout


@no_job
def test_check_approves_of_a_project_that_is_ready(ready: Project) -> None:
    result = ready.make("check")

    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok"] * 5
    assert "cpu-small" in result.stdout


@no_job
def test_check_names_the_presets_there_are(ready: Project) -> None:
    ready.fails("check", PRESET="gpu-nope", says="there is no preset gpu-nope")

    assert "cpu-large" in ready.make("check", PRESET="gpu-nope", code=2).stderr


@no_job
def test_check_asks_for_setup(project: Project) -> None:
    project.fails("check", says="make setup")


@no_job
def test_check_asks_for_setup_after_the_lists_changed(project: Project) -> None:
    project.mark_set_up()
    project.make("check")
    outdate(project)

    project.fails("check", says="make setup")


@no_job
def test_check_asks_for_login(project: Project) -> None:
    stranger = Project(project.path, project.platform, environment=project.platform.plain_env)

    stranger.fails("check", says="make login")


@no_job
def test_check_asks_for_login_when_the_login_expired(
    render: Render, expired_platform: Platform
) -> None:
    project = render(expired_platform)

    project.fails("check", says="make login")


@no_job
def test_check_notices_that_the_platform_is_gone(render: Render, dead_platform: Platform) -> None:
    project = render(dead_platform)

    project.fails("check", says="no connection")


@no_job
def test_check_refuses_a_run_that_makes_no_job_name(ready: Project) -> None:
    ready.fails("check", RUN="Not_A_Name", says="choose a shorter RUN")


@no_job
@no_client
def test_check_misses_the_client(ready: Project) -> None:
    ready.fails("check", NEURO="no-such-client", says="pip install apolo-cli")


def test_setup_installs_the_requirements_into_the_image(built: Project) -> None:
    imports(built, "sklearn, tensorboard, jupyterlab")


def test_setup_leaves_a_stamp_and_no_job(quick: Project) -> None:
    quick.make("setup")

    assert quick.stamp.exists()
    assert quick.job("setup").status == "cancelled"
    imports(quick, "tiny")


def test_image_made_from_another_base_or_elsewhere_is_made_again(
    quick: Project, make_platform: Callable[..., Platform]
) -> None:
    quick.make("setup")

    quick.fails("run_develop", says="run `make setup`", BASE_IMAGE=f"image:{quick.slug}")
    elsewhere = replace(quick, platform=make_platform())
    elsewhere.fails("check", says="not built")
    elsewhere.make("setup")
    imports(elsewhere, "tiny")


@no_client
def test_setup_calls_nobody_when_nothing_changed(built: Project) -> None:
    # A client that fails at once shows any call.
    built.make("setup", NEURO="false")


def test_setup_runs_again_after_a_list_changed(quick: Project) -> None:
    quick.mark_set_up()
    # Comments, blank lines and the line ends of Windows are all right.
    quick.write("requirements/apt.txt", "# nothing\r\n\r\n")
    quick.write("requirements/pip.txt", "# one\r\n\r\n./tiny-1.0-py3-none-any.whl  # from here\r\n")
    outdate(quick)

    quick.make("setup")

    imports(quick, "tiny")


def test_failing_requirement_leaves_no_job_and_no_stamp(project: Project) -> None:
    project.write("requirements/pip.txt", NOT_THERE)

    project.fails("setup", says="failed while installing requirements/")

    assert project.job("setup").status == "cancelled"
    assert_not_set_up(project)


def test_failing_setup_takes_back_the_old_stamp(quick: Project) -> None:
    quick.mark_set_up()
    quick.write("requirements/pip.txt", NOT_THERE)
    outdate(quick)

    quick.fails("setup", says="make setup again")

    assert_not_set_up(quick)


def test_apt_packages_are_installed_into_the_image(project: Project, engine: str) -> None:
    if engine == SANDBOX and not is_root():
        pytest.skip("apt-get in a sandbox needs root")
    if engine == SANDBOX and available("sh", "-c", "command -v cowsay"):
        pytest.skip("this machine has cowsay already")
    project.write("requirements/apt.txt", "cowsay # small\r\n")
    project.write("requirements/pip.txt", "")

    project.make("setup", timeout=180)

    command = ["run", "-T", f"image:{project.slug}", "/usr/games/cowsay", "moo"]
    assert "moo" in project.platform.neuro(*command).stdout


@only_on(SANDBOX)  # who is root in a container, whoever started it
def test_ordinary_user_learns_that_apt_packages_need_root(
    render: Render, ordinary_platform: Platform
) -> None:
    project = render(ordinary_platform)
    project.write("requirements/apt.txt", "tree\n")

    project.fails("setup", says="need root in the job")

    assert project.job("setup").status == "cancelled"
    assert_not_set_up(project)


@only_on(SANDBOX)
def test_ordinary_user_sets_up_with_pip(render: Render, ordinary_platform: Platform) -> None:
    project = render(ordinary_platform)
    make_wheel(project.path / "requirements")
    project.write("requirements/pip.txt", "./tiny-1.0-py3-none-any.whl\n")

    project.make("setup")

    imports(project, "tiny")


def test_setup_gives_way_to_one_that_runs(quick: Project) -> None:
    other = quick.start_job("setup")

    quick.fails("setup", says="failed while starting a job")

    assert quick.platform.job(other.id).status == "running"
    assert_not_set_up(quick)


def test_interrupted_setup_leaves_no_job_and_no_stamp(project: Project) -> None:
    script = '[ "${1:-}" = check ] || { echo installing; sleep 600; }\n'
    project.write("requirements/install.sh", script)

    with project.start("setup") as setup:
        setup.wait_for("installing")
        setup.signal(signal.SIGINT)
        result = setup.wait(code=None)

    assert result.code != 0
    result.explains("run make setup again")
    wait_until(lambda: project.job("setup").status == "cancelled", "the job is killed")
    assert_not_set_up(project)


def test_setup_does_without_a_list(quick: Project) -> None:
    (quick.path / "requirements" / "apt.txt").unlink()

    quick.make("setup")

    imports(quick, "tiny")


@no_job
def test_setup_without_login_starts_nothing(project: Project) -> None:
    stranger = Project(project.path, project.platform, environment=project.platform.plain_env)

    stranger.fails("setup", says="failed while copying requirements/")

    assert_not_set_up(project)


@no_job
def test_setup_with_a_wrong_preset_starts_nothing(quick: Project) -> None:
    quick.fails("setup", PRESET="nope", says="failed while starting a job")

    assert_not_set_up(quick)


@no_job
@no_client
@pytest.mark.parametrize("target", ["run_training", "run_jupyter"])
def test_job_refuses_to_start_before_setup(project: Project, target: str) -> None:
    project.fails(target, says="run `make setup`")


@no_job
@no_client
def test_job_refuses_to_start_with_a_stale_image(project: Project) -> None:
    project.mark_set_up()
    outdate(project)

    project.fails("run_training", says="run `make setup`")

    assert not project.storage("code").exists()


def outdate(project: Project) -> None:
    """Edit a list of requirements, a moment after the last `make setup`."""
    later = time.time() + 2
    os.utime(project.path / "requirements" / "pip.txt", (later, later))


def assert_not_set_up(project: Project) -> None:
    assert not list(project.path.glob(".setup_done*"))


def as_ordinary_user() -> list[str]:
    """Return what runs a command as an ordinary user, also when the tests run as root."""
    if not is_root():
        return []
    words = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if not available(*words, "true"):
        impossible("this machine allows no user namespaces, so root cannot act as a user")
    return words
