"""Fixtures for baked projects; those of neuro-local and the end-to-end tests are beside them."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest
from baking import TEMPLATE, Project, plant_recorder
from dockercli import Docker
from machine import impossible, untimed

if TYPE_CHECKING:
    from dockerimages import Images

# A shell that starts `make test &` has SIGINT ignored, and whatever a test starts and interrupts
# would inherit that. Python's own handler, which no new program keeps, gives them the usual one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def baked(cookies_session: Any) -> Path:
    """The template with its default answers, baked once; not to be written to."""
    result = cookies_session.bake(template=str(TEMPLATE))
    assert result.exit_code == 0, result.exception
    return Path(result.project_path)


@pytest.fixture
def bake(cookies: Any, tmp_path: Path) -> Callable[..., Project]:
    """Bakes with the answers given, and fails unless that succeeds."""

    def bake_with(**answers: str) -> Project:
        result = cookies.bake(template=str(TEMPLATE), extra_context=answers)
        assert result.exit_code == 0, result.exception
        plant_recorder(tmp_path / "bin")
        return Project(Path(result.project_path), tmp_path / "bin")

    return bake_with


@pytest.fixture(params=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        impossible(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def project(baked: Path, tmp_path: Path, shell: str) -> Project:
    """A fresh copy of the default project, set up, in a path with spaces."""
    path = tmp_path / "my work" / "my-project"
    shutil.copytree(baked, path, ignore=shutil.ignore_patterns(".git"))
    plant_recorder(tmp_path / "bin")
    project = Project(path, tmp_path / "bin", shell)
    project.mark_set_up()
    return project


@pytest.fixture(scope="session")
def engine() -> str:
    """The engine that jobs run on, where tests do not have each in its place."""
    return "sandbox"


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Images]:
    """A Docker engine that has the plain images; `host` is its address, `ensure` gets others."""
    # Not above: the template's own tests also run where neuro-local's dependencies are missing.
    import dockerd
    from dockerimages import ALIASES, BASE, Images, is_kept

    try:
        with ExitStack() as stack:
            with untimed():
                images = Images(stack.enter_context(dockerd.used(is_kept)))
                images.ensure(BASE, *ALIASES)
            yield images
    except dockerd.Unavailable as error:
        impossible(str(error))


@pytest.fixture
def docker(docker_engine: Images) -> Iterator[Docker]:
    """The command of that engine, which must be one that reaches this machine's loopback."""
    docker = Docker(docker_engine.host)
    if not docker.reaches_loopback:
        impossible("this Docker engine runs in a machine or network of its own")
    yield docker
    docker.forget()
