"""Finds this machine's Docker engine, or Podman's socket that speaks like it, and talks to it.

The Docker Engine API: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import asyncio
import getpass
import grp
import hashlib
import json
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Optional

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from ...errors import EngineUnavailable

# What a call may end with when the engine refuses, restarts or has gone.
FAILURES = (DockerError, aiohttp.ClientError, OSError)

# How long an engine may take for its first answer; Docker Desktop may just be waking up. Seconds.
FIRST_ANSWER = 20.0

SCHEME = "unix://"
INSTEAD = "or use the sandbox: `neuro-local up --engine sandbox`"


@dataclass(frozen=True)
class Client:
    """A client of the engine at `socket`, and what that says of itself (`/info`)."""

    api: Docker
    socket: Path
    info: Mapping[str, Any]

    @property
    def is_here(self) -> bool:
        """Whether its containers share this machine's kernel, and its root is this one's: else it
        runs in a virtual machine or rootless, where neither addresses nor owners are ours."""
        rootless = any("rootless" in option for option in self.info.get("SecurityOptions") or ())
        return self.info.get("KernelVersion") == os.uname().release and not rootless

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman, which differs here and there from the API that it speaks."""
        return "BuildahVersion" in self.info

    async def close(self) -> None:
        """Close all connections to the engine."""
        await _close(self.api)


async def connect(environ: Mapping[str, str]) -> Client:
    """Return a client of the first engine that answers.

    Raises EngineUnavailable with what to do.
    """
    path = find(environ)
    # The usual limit of a hundred connections would be used up by fifty jobs.
    api = Docker("http://docker", connector=aiohttp.UnixConnector(str(path), limit=0))
    try:
        info = await asyncio.wait_for(api.system.info(), FIRST_ANSWER)
    except (*FAILURES, asyncio.TimeoutError, ValueError, TypeError) as error:
        await _close(api)
        text = f"What listens on {path} does not answer like a Docker engine: {said(error)}"
        raise EngineUnavailable(f"{text}. Restart Docker, {INSTEAD}.") from None
    if info.get("OSType") != "linux":
        await _close(api)
        raise EngineUnavailable(
            f"The Docker engine at {path} runs {info.get('OSType')} containers, and jobs need Linux"
            f" ones: switch it, {INSTEAD}."
        )
    return Client(api, path, info)


async def _close(api: Docker) -> None:
    await api.close()
    await api.connector.close()


def said(error: BaseException) -> str:
    """Return the engine's own words, without a status code and without a full stop."""
    text = error.message if isinstance(error, DockerError) else str(error)
    return " ".join(str(text).split()).rstrip(".") or type(error).__name__


def status(error: BaseException) -> int:
    """Return the HTTP status of a refusal, 0 for what is none."""
    return error.status if isinstance(error, DockerError) else 0


def is_gone(error: BaseException) -> bool:
    """Whether a failure is that of an engine which does not answer any more; aiodocker gives that
    the status 900."""
    return not isinstance(error, DockerError) or error.status == 900


def gone(error: BaseException) -> EngineUnavailable:
    """Return what to tell users of such a failure."""
    return EngineUnavailable(
        f"The Docker engine does not answer any more ({said(error)}): start it and try again."
    )


def find(environ: Mapping[str, str]) -> Path:
    """Return the path of the first socket that somebody listens on. Raises EngineUnavailable."""
    named = _named(environ)
    candidates = [named] if named else list(_usual(environ))
    denied: Optional[Path] = None
    for path in candidates:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
            return path
        except PermissionError:
            denied = denied or path
        except OSError:
            pass
    if denied:
        raise EngineUnavailable(_may_not(denied))
    looked = ", ".join(map(str, candidates))
    raise EngineUnavailable(
        f"No Docker engine answers (looked at {looked}): start Docker, or name its socket in"
        f" DOCKER_HOST; {INSTEAD}."
    )


def _named(environ: Mapping[str, str]) -> Optional[Path]:
    """Return the socket that the user chose, by DOCKER_HOST or the context of docker's client."""
    host, source = environ.get("DOCKER_HOST"), "DOCKER_HOST"
    if not host:
        context = environ.get("DOCKER_CONTEXT") or _configured(environ)
        if not context or context == "default":
            return None
        host, source = _host_of(environ, context), f"the docker context {context!r}"
    if not host.startswith(SCHEME):
        raise EngineUnavailable(
            f"{source} names {host!r}, but jobs use folders of this machine: name an engine's"
            f" socket here, for example DOCKER_HOST=unix:///var/run/docker.sock, {INSTEAD}."
        )
    return Path(host[len(SCHEME) :])


def _usual(environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path("/var/run/docker.sock")
    yield _home(environ) / ".docker/run/docker.sock"  # Docker Desktop
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"], "docker.sock")  # rootless
        yield Path(environ["XDG_RUNTIME_DIR"], "podman/podman.sock")


def _configured(environ: Mapping[str, str]) -> Optional[str]:
    """Return the current context of docker's client."""
    try:
        return json.loads((_config(environ) / "config.json").read_text()).get("currentContext")
    except (OSError, ValueError, AttributeError):
        return None


def _host_of(environ: Mapping[str, str], context: str) -> str:
    # Where docker's client keeps it: https://docs.docker.com/engine/manage-resources/contexts/
    folder = hashlib.sha256(context.encode()).hexdigest()
    try:
        meta = (_config(environ) / "contexts/meta" / folder / "meta.json").read_text()
        return str(json.loads(meta)["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        raise EngineUnavailable(
            f"The docker context {context!r} does not exist or names no engine: see"
            f" `docker context ls`, {INSTEAD}."
        ) from None


def _config(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or _home(environ) / ".docker")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _may_not(path: Path) -> str:
    user = getpass.getuser()
    advice: List[str] = []
    try:
        details = path.stat()
        if stat.S_IMODE(details.st_mode) & stat.S_IWGRP:
            group = grp.getgrgid(details.st_gid).gr_name
            advice.append(f"join its group (`sudo usermod -aG {group} {user}`, then log in anew)")
    except (OSError, KeyError):  # the folder is closed to us as well
        pass
    advice.append(INSTEAD.removeprefix("or ") if not advice else INSTEAD)
    return f"You ({user}) may not use the Docker engine at {path}: {', '.join(advice)}."
