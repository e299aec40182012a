"""The tests' own platforms and projects; nothing here touches the user's configuration."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import pytest
from clients import APOLO, CLIENTS, Client
from cookiecutter.main import cookiecutter  # type: ignore[import-untyped]
from dockerimages import FILEBROWSER, STAND_IN, TENSORBOARD
from machine import impossible, limit

from .commands import Result
from .platform import Platform
from .project import Project

HERE = Path(__file__).parent
TEMPLATE = HERE.parent.parent

# Not saved by anybody, so the engine gives its plain base with Python 3.
PLAIN_IMAGE = "python:3.12-slim-bookworm"

SANDBOX, DOCKER = "sandbox", "docker"

# What one test may take, the set-up of a project and a training included. Seconds.
DEADLINE = 480

# What takes long to make. The tests that share one go to the same worker, so that it is made once.
COSTLY = ("built", "pair", "dead_platform", "bare_python", "ordinary_platform", "file_server")

Render = Callable[..., Project]


def only_with(client: Client) -> pytest.MarkDecorator:
    """Mark a test of what only this client can do."""
    return pytest.mark.parametrize("client", [client], indirect=True, ids=str)


def only_on(engine: str) -> pytest.MarkDecorator:
    """Mark a test of what only this engine does."""
    return pytest.mark.parametrize("engine", [engine], indirect=True)


# Every test runs with both clients but those that call neither of them: they say so with this.
no_client = only_with(APOLO)
# And on both engines but those that start no job.
no_job = only_on(SANDBOX)


def pytest_itemcollected(item: pytest.Item) -> None:
    limit(item, DEADLINE)
    for name in COSTLY:
        if name in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(f"{name}-{lane(item)}"))
            return


def lane(item: pytest.Item) -> str:
    """The names of the client and the engine that the test runs with."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    return "-".join(str(params[name]) for name in ("client", "engine") if name in params)


@pytest.fixture(scope="session", params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two clients, one after the other: whatever depends on this is made for each."""
    client: Client = request.param
    client.require()
    return client


@pytest.fixture(scope="session", params=[SANDBOX, DOCKER])
def engine(request: pytest.FixtureRequest) -> str:
    """Each of the engines that jobs run on, likewise."""
    return str(request.param)


@pytest.fixture(scope="session")
def engine_settings(request: pytest.FixtureRequest, engine: str) -> Dict[str, str]:
    """The variables that make neuro-local use this engine."""
    if engine == DOCKER:
        images = request.getfixturevalue("docker_engine")
        images.ensure(TENSORBOARD, FILEBROWSER, STAND_IN)
        return {"NEURO_LOCAL_ENGINE": DOCKER, "DOCKER_HOST": images.host}
    if not sys.platform.startswith("linux"):
        impossible("neuro-local's sandboxes need Linux")
    return {"NEURO_LOCAL_ENGINE": SANDBOX}


@pytest.fixture(scope="session")
def make_platform(
    tmp_path_factory: pytest.TempPathFactory, client: Client, engine_settings: Dict[str, str]
) -> Iterator[Callable[..., Platform]]:
    """Starts instances of neuro-local; all are taken down in the end."""
    platforms: List[Platform] = []

    def start(settings: Optional[Dict[str, str]] = None, wrapper: Sequence[str] = ()) -> Platform:
        folder = tmp_path_factory.mktemp("platform")
        settings = {**engine_settings, **(settings or {})}
        platforms.append(Platform(folder, client=client, settings=settings, wrapper=wrapper))
        platforms[-1].up()
        return platforms[-1]

    yield start
    for platform in platforms:
        platform.down()


@pytest.fixture(scope="session")
def platform(make_platform: Callable[..., Platform]) -> Platform:
    """The instance that most tests share, each with a project or jobs of its own."""
    return make_platform()


@dataclass(frozen=True)
class Pair:
    """An instance, and the same one as a client sees it whose login is no longer accepted."""

    platform: Platform
    expired: Platform


@pytest.fixture(scope="session")
def pair(make_platform: Callable[..., Platform]) -> Pair:
    platform = make_platform({"NEURO_LOCAL_MINUTE": "2"})
    platform.neuro("config", "show")
    platform.down()
    expired = platform.with_old_login()
    (platform.state / "token").unlink()
    platform.up()
    return Pair(platform, expired)


@pytest.fixture
def other_platform(pair: Pair) -> Platform:
    """A second instance, for tests that stop or kill the server; a life-span's minute lasts two
    seconds on it."""
    if not pair.platform.answers:
        pair.platform.up()
    return pair.platform


@pytest.fixture
def expired_platform(pair: Pair, other_platform: Platform) -> Platform:
    """An instance that no longer accepts the token its client has logged in with."""
    return pair.expired


@pytest.fixture(scope="session")
def dead_platform(make_platform: Callable[..., Platform]) -> Platform:
    """An instance whose client has logged in, and whose server has gone since."""
    platform = make_platform()
    platform.neuro("config", "show")
    platform.down()
    return platform


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Render:
    """Renders a project with a slug of its own, in a path with a space."""
    config = tmp_path_factory.mktemp("cookiecutter") / "config"
    config.write_text(
        f"cookiecutters_dir: {config.parent}/cookiecutters\nreplay_dir: {config.parent}/replay\n"
    )
    numbers = itertools.count(1)

    def bake(on: Platform = platform, **answers: str) -> Project:
        slug = f"e2e-{next(numbers)}"
        path = cookiecutter(
            str(TEMPLATE),
            no_input=True,
            config_file=str(config),
            output_dir=str(tmp_path_factory.mktemp("my work")),
            extra_context={"project_name": slug, **answers},
        )
        return Project(Path(path), on)

    return bake


@pytest.fixture
def project(render: Render) -> Iterator[Project]:
    """A freshly rendered project; its jobs end with the test."""
    project = render()
    yield project
    project.end_jobs()


def made_ready(project: Project) -> Project:
    project.variables.update(IMAGE=PLAIN_IMAGE, UPLOAD_CODE="no")
    project.mark_set_up()
    return project


@pytest.fixture
def ready(project: Project) -> Project:
    """A project that counts as set up; its jobs start from the plain base, without an upload."""
    return made_ready(project)


@pytest.fixture(scope="session")
def built(render: Render) -> Project:
    """A project whose `make setup` has really run, with the template's own requirements."""
    project = render()
    project.make("setup", timeout=DEADLINE - 10)
    return project


@dataclass(frozen=True)
class Trained:
    """A project after a training of three epochs, and what that training said."""

    project: Project
    said: Result


@pytest.fixture(scope="session")
def trained(render: Render, built: Project) -> Trained:
    project = render()
    project.variables["IMAGE"] = f"image:{built.slug}"
    project.mark_set_up()
    return Trained(project, project.make("run_training", TRAIN_ARGS="--epochs 3"))


@pytest.fixture
def trainer(project: Project, built: Project) -> Project:
    """A project that counts as set up; its jobs start from the image of `built`."""
    project.variables["IMAGE"] = f"image:{built.slug}"
    project.mark_set_up()
    return project
