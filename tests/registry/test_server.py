"""The registry server as neuro-local's child: where it listens, and that it never outlives it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from e2e.commands import wait_until
from e2e.platform import is_root
from e2e.sockets import listeners, sockets_of
from machine import impossible

from neuro_local import instance
from neuro_local.config import Settings
from neuro_local.registry import RegistryServer

from .conftest import registry_server

pytestmark = pytest.mark.usefixtures("program")

NOBODY = 65534

# Starts a registry server, tells its process id, and waits for its own end.
PARENT = """
import asyncio, os, pathlib, sys
from neuro_local.registry import RegistryServer

async def main():
    folder = pathlib.Path(sys.argv[1])
    server = RegistryServer(folder, log=folder / "log", environ=os.environ)
    await server.start()
    assert server.missing is None, server.missing
    print(server._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as plug:
        try:
            plug.connect(path)
        except OSError:
            return False
    return True


def pid_of(server: RegistryServer) -> int:
    assert server._process is not None
    return server._process.pid


async def test_it_listens_in_a_folder_whose_name_no_socket_address_could_hold(
    settings: Settings,
) -> None:
    instance.prepare(settings)
    server = registry_server(settings)
    assert len(str(settings.state)) > 108

    await server.start()

    assert server.missing is None
    assert connects(server.socket)
    await server.close()


async def test_it_listens_on_no_port(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the user's environment has settings for a registry of his own."""
    monkeypatch.setenv("REGISTRY_HTTP_NET", "tcp")
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "0.0.0.0:0")
    instance.prepare(settings)
    server = registry_server(settings)

    await server.start()

    held = sockets_of({pid_of(server)})
    assert held
    assert not held & {listener.inode for listener in listeners()}
    await server.close()


def connects_as(user: int, path: str) -> bool:
    """Whether another user of this machine reaches a socket."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setuid(user)
        os._exit(0 if connects(path) else 1)
    return os.waitpid(pid, 0)[1] == 0


async def test_nobody_else_can_reach_its_socket() -> None:
    if not is_root():
        impossible("only root can try as another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # a user's home that others can look into
        settings = Settings(Path(folder) / "state", cache=Path(folder))
        instance.prepare(settings)
        server = registry_server(settings)
        await server.start()
        path = str(settings.state / "registry" / "socket")

        assert not connects_as(NOBODY, path)

        # That was for the folders' modes alone.
        assert connects_as(0, path)
        for part in settings.state, settings.state / "registry", settings.state / "registry/socket":
            part.chmod(0o777)
        assert connects_as(NOBODY, path)
        await server.close()


async def test_its_configuration_is_its_owners_alone(settings: Settings) -> None:
    instance.prepare(settings)
    server = registry_server(settings)

    await server.start()

    folder = settings.state / "registry"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    await server.close()


async def test_it_ends_with_neuro_local(settings: Settings) -> None:
    instance.prepare(settings)
    server = registry_server(settings)
    await server.start()
    pid = pid_of(server)

    await server.close()
    await server.close()

    assert not Path(f"/proc/{pid}").exists()
    assert server.missing is not None


def test_it_ends_with_a_neuro_local_that_is_killed(tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        impossible("setpriv is not installed")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the registry server is gone")


async def test_it_starts_where_a_killed_one_left_its_socket(settings: Settings) -> None:
    instance.prepare(settings)
    first = registry_server(settings)
    await first.start()
    os.kill(pid_of(first), signal.SIGKILL)
    assert first._process is not None
    await first._process.wait()
    assert (settings.state / "registry" / "socket").exists()
    assert "has ended" in (first.missing or "")
    await first.close()

    second = registry_server(settings)
    await second.start()

    assert second.missing is None
    await second.close()


async def test_machine_without_the_program_is_told_what_to_install(settings: Settings) -> None:
    instance.prepare(settings)
    server = registry_server(settings, path=str(settings.state))

    await server.start()

    assert "apt-get install docker-registry" in (server.missing or "")
    assert not (settings.state / "registry").exists()
    await server.close()


async def test_program_that_does_not_start_is_reported_with_its_log(settings: Settings) -> None:
    instance.prepare(settings)
    folder = settings.state / "bin"
    folder.mkdir()
    fake = folder / "docker-registry"
    fake.write_text("#!/bin/sh\necho no such thing as $1 >&2\nexit 3\n")
    fake.chmod(0o755)
    server = registry_server(settings, path=f"{folder}:{os.environ['PATH']}")

    await asyncio.wait_for(server.start(), 10)

    assert "exit code 3" in (server.missing or "")
    assert str(settings.state / "registry.log") in (server.missing or "")
    assert "no such thing as serve" in (settings.state / "registry.log").read_text()
    await server.close()
