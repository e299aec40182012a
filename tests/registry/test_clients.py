"""The registry as users meet it: both clients, and docker, which moves the layers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import AsyncIterator, Dict, List

import pytest
from clients import CLIENTS, Client
from dockercli import Docker
from e2e.commands import Result
from e2e.platform import Browser, scratch_environment

from neuro_local import instance
from neuro_local.config import Settings
from neuro_local.models import Identity

from .conftest import Serving, registry_server, serving
from .dockerimage import content_of, make_image
from .images import push_image

ORG = Identity().org


@dataclass(frozen=True)
class User:
    """Somebody with a client that is logged in and an engine."""

    client: Client
    docker: Docker
    serving: Serving
    env: Dict[str, str]
    name: str  # of images, the test's own

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.serving.server.port}"

    @property
    def remote(self) -> str:
        """The name under which this client's engine knows the image in the registry."""
        org = f"{ORG}/" if self.client.package == "apolo-cli" else ""
        return f"{self.registry}/{org}user/{self.name}"

    async def neuro(self, *words: str, code: int = 0) -> Result:
        process = await asyncio.create_subprocess_exec(
            *self.client.command,
            *words,
            env=self.env,
            cwd=self.env["HOME"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        result = Result(" ".join(words), process.returncode, out.decode(), err.decode())
        return result.expect(code)

    async def listed(self) -> List[str]:
        """Return what `image ls` lists."""
        return (await self.neuro("-q", "image", "ls")).stdout.split()

    async def tags(self) -> List[str]:
        said = (await self.neuro("image", "tags", f"image:{self.name}")).stdout
        return said.rpartition("━")[2].split()  # below the table's head


def user_of(serving: Serving, client: Client, docker: Docker, folder: Path) -> User:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    base = scratch_environment(home, Browser(folder / "browser"), client)
    script = f"{instance.shell_exports(serving.settings)}\nenv -0"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env=base)
    pairs = shell.stdout.decode().rstrip("\0").split("\0")
    env = {**dict(pair.split("=", 1) for pair in pairs), "DOCKER_HOST": docker.host}
    name = f"t{os.urandom(6).hex()}"
    user = User(client, docker, serving, env, name)
    for tag in "v1", "v2", "latest":
        docker.forget_later(f"{name}:{tag}")
        docker.forget_later(f"{user.remote}:{tag}")
    return user


@pytest.fixture
async def user(
    served: Serving, client: Client, docker: Docker, tmp_path: Path
) -> AsyncIterator[User]:
    yield user_of(served, client, docker, tmp_path)


async def test_pushed_image_is_listed_with_its_tags(user: User) -> None:
    make_image(user.docker, f"{user.name}:v1", b"first")
    make_image(user.docker, f"{user.name}:v2", b"second")

    for tag in "v1", "v2":
        pushed = await user.neuro("image", "push", f"{user.name}:{tag}")
        assert f"/user/{user.name}:{tag}" in pushed.stdout

    assert await user.listed() == [f"image:{user.name}"]
    assert await user.tags() == ["v1", "v2"]


async def test_pushed_image_comes_back_as_it_was(user: User) -> None:
    image = f"{user.name}:v1"
    made = make_image(user.docker, image, b"of value")
    await user.neuro("image", "push", image, f"image:{image}")
    user.docker("image", "rm", "--force", image, f"{user.remote}:v1")
    assert not user.docker.has(image)

    pulled = await user.neuro("image", "pull", f"image:{image}")

    assert image in pulled.stdout
    assert user.docker("image", "inspect", "--format={{.Id}}", image) == made
    assert content_of(user.docker, image) == b"of value"
    # The client leaves none of the registry's names behind.
    assert not user.docker.has(f"{user.remote}:v1")


async def test_digest_and_size_are_the_pushed_images(user: User) -> None:
    image = f"{user.name}:v1"
    make_image(user.docker, image, os.urandom(2 * 10**6))
    await user.neuro("image", "push", image)

    digest = (await user.neuro("image", "digest", f"image:{image}")).stdout.strip()
    size = (await user.neuro("image", "size", f"image:{image}")).stdout.strip()
    long = (await user.neuro("image", "tags", "-l", f"image:{user.name}")).stdout

    names = user.docker("image", "inspect", "--format={{.RepoDigests}}", f"{user.remote}:v1")
    assert digest.startswith("sha256:") and f"@{digest}" in names
    assert re.fullmatch(r"(2\.0|1\.9) ?MB?", size), size
    assert "v1" in long


async def test_removed_image_is_gone(user: User) -> None:
    image = f"{user.name}:v1"
    make_image(user.docker, image, b"of no value")
    await user.neuro("image", "push", image)

    await user.neuro("image", "rm", f"image:{image}")

    assert await user.listed() == []
    await user.neuro("image", "digest", f"image:{image}", code=72)
    tags = await user.neuro("image", "tags", f"image:{user.name}", code=72)
    tags.explains("there is no image")
    # And may be pushed again.
    await user.neuro("image", "push", image)
    assert await user.tags() == ["v1"]


async def test_image_that_was_never_pushed_is_a_sentence(user: User) -> None:
    pulled = await user.neuro("image", "pull", f"image:{user.name}:v1", code=127)

    pulled.explains("not found")


async def test_both_clients_see_one_registry(
    served: Serving, docker: Docker, tmp_path: Path
) -> None:
    users = []
    for client in CLIENTS:
        client.require()
        folder = tmp_path / client.package
        folder.mkdir()
        users.append(user_of(served, client, docker, folder))
    for user in users:
        make_image(docker, f"{user.name}:v1", user.name.encode())
        await user.neuro("image", "push", f"{user.name}:v1")
        docker("image", "rm", "--force", f"{user.name}:v1", f"{user.remote}:v1")
    names = sorted(f"image:{user.name}" for user in users)

    for user, other in zip(users, reversed(users)):
        assert sorted(await user.listed()) == names
        await user.neuro("image", "pull", f"image:{other.name}:v1")
        assert content_of(docker, f"{other.name}:v1") == other.name.encode()


async def test_docker_logs_in_with_the_token(user: User) -> None:
    config = Path(user.env["HOME"]) / "docker"
    token = user.serving.server.token

    def login(password: str) -> "subprocess.CompletedProcess[bytes]":
        words = ["docker", "--config", str(config), "login", "--username=user", "--password-stdin"]
        return subprocess.run(
            [*words, user.registry], input=password.encode(), capture_output=True, env=user.env
        )

    wrong = await asyncio.to_thread(login, "wrong")
    right = await asyncio.to_thread(login, token)

    assert wrong.returncode != 0 and b"401 Unauthorized" in wrong.stderr
    assert right.returncode == 0, right.stderr


async def test_image_survives_a_restart_on_another_port(
    settings: Settings, program: str, client: Client, docker: Docker, tmp_path: Path
) -> None:
    async with serving(settings, registry_server(settings)) as first:
        before = user_of(first, client, docker, tmp_path)
        image = f"{before.name}:v1"
        make_image(docker, image, b"kept")
        await before.neuro("image", "push", image)
    docker("image", "rm", "--force", image, f"{before.remote}:v1")
    settings.port_file.unlink()
    with suppress(FileNotFoundError):  # as neuro-local does it where the port is taken
        shutil.rmtree(settings.client_config)

    async with serving(settings, registry_server(settings)) as second:
        after = user_of(second, client, docker, tmp_path)
        assert after.registry != before.registry
        assert await after.listed() == [f"image:{before.name}"]
        await after.neuro("image", "pull", f"image:{image}")

    assert content_of(docker, image) == b"kept"


async def test_engine_without_images_of_docker_says_so_to_the_client(
    sandboxes: Serving, client: Client, docker: Docker, tmp_path: Path
) -> None:
    user = user_of(sandboxes, client, docker, tmp_path)
    make_image(docker, f"{user.name}:v1", b"unwanted")

    pushed = await user.neuro("image", "push", f"{user.name}:v1", code=76)

    pushed.explains("--engine docker")
    assert await user.listed() == []


async def test_long_list_of_images_is_whole(served: Serving, user: User) -> None:
    names = [f"user/many-{number:02}" for number in range(65)]
    for name in names:
        await push_image(served.server, f"{name}:v1")

    assert await user.listed() == [name.replace("user/", "image:") for name in names]
