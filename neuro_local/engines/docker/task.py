"""A job in a container of a Docker engine."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from typing import Any, AsyncIterator, Callable, Mapping, Optional, Sequence, Union

from aiodocker.containers import DockerContainer
from aiodocker.execs import Exec

from ...errors import NotRunning, StartFailed
from ..base import KILLED, Process, Size, Task, Usage
from .client import FAILURES, Client, said
from .images import Images
from .owner import Owner
from .ports import Ports
from .process import DockerProcess
from .stream import hijack

DEFAULT_SIZE = Size(80, 24)
# How often a process that runs beside the main one is asked after, in seconds: at first, at last.
SOON, LATER = 0.01, 0.5

logger = logging.getLogger(__name__)


class DockerTask(Task):
    """`image` is what the engine says of the image that it starts from, `config` describes the
    container to it (`/containers/create`), and `forget` is called when nothing is left of it."""

    def __init__(
        self,
        client: Client,
        images: Images,
        owner: Owner,
        *,
        image: Mapping[str, Any],
        config: Mapping[str, Any],
        forget: Callable[[DockerTask], None],
    ) -> None:
        self._client = client
        self._images = images
        self._owner = owner
        self._image = image
        self._config = config
        self._forget = forget
        self._container: Optional[DockerContainer] = None
        self._ended: Optional[asyncio.Task[int]] = None
        self._began = 0.0
        self._ports: Optional[Ports] = None

    async def start(self, name: str) -> None:
        """Make the container, of that name, and start its main process. Raises StartFailed."""
        try:
            self._container = await self._client.api.containers.create(
                dict(self._config), name=name
            )
            await self._start(self._container)
        except FAILURES as error:
            raise StartFailed(f"The job cannot be started: {said(error)}.") from None

    async def exec(
        self, command: Sequence[str], *, tty: bool = False, size: Optional[Size] = None
    ) -> Process:
        container, shape = self._running(), size or DEFAULT_SIZE
        try:
            made = await container.exec(
                list(command), stdin=True, tty=tty, environment=terminal(tty)
            )
            body = {"Detach": False, "Tty": tty, "ConsoleSize": [shape.height, shape.width]}
            stream = await hijack(self._client.socket, f"/exec/{made.id}/start", body, tty=tty)
        except FAILURES as error:
            raise NotRunning(f"The job starts nothing more: {said(error)}.") from None
        await _exec_started(made)
        if tty:  # once more, since engines before version 23 (API 1.42) know no size at the start
            await _resize(made, shape)
        ended = asyncio.create_task(_exec_ended(made, stream.at_end))
        return DockerProcess(stream, ended, tty=tty, resize=lambda size: _resize(made, size))

    async def connect(self, port: int) -> socket.socket:
        self._running()
        assert self._ports is not None
        return await self._ports.connect(port)

    async def save(self, image: str) -> None:
        await self._images.keep(self._running().id, self._image, image)

    async def usage(self) -> AsyncIterator[Usage]:
        container = self._running()
        began, before = self._began, 0
        with suppress(*FAILURES):  # gone with the job
            async for told in container.stats():
                if self._ended is None or self._ended.done():
                    return  # the engine goes on, with zeros
                now, used = time.monotonic(), told["cpu_stats"]["cpu_usage"]["total_usage"]
                yield Usage((used - before) / 1e9 / (now - began), _memory(told["memory_stats"]))
                began, before = now, used

    async def out_of_memory(self) -> bool:
        try:
            assert self._container is not None
            return bool((await self._container.show())["State"]["OOMKilled"])
        except (*FAILURES, KeyError):  # removed by somebody, or gone with its engine
            return False

    async def stop(self, grace: float) -> None:
        if self._ended is not None:
            if grace:
                await self._signal("SIGTERM")
                await asyncio.wait({self._ended}, timeout=grace)
            await self._kill()

    async def remove(self) -> None:
        await self._kill()
        if self._ports is not None:
            self._ports.close()
        container, self._container = self._container, None
        if container is not None:
            with suppress(*FAILURES):  # gone already, or with its engine
                await container.delete(force=True, v=True)
            await self._owner.take_back(self._config)
        self._forget(self)

    async def _start(self, container: DockerContainer) -> None:
        target = f"/containers/{container.id}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        tty = bool(self._config["Tty"])
        stream = await hijack(self._client.socket, target, tty=tty)
        try:
            self._began = time.monotonic()
            await container.start()
            details = await container.show()
        except BaseException:
            stream.close()
            raise
        self._ports = Ports(_address(details) if self._client.is_here else None, self.exec)
        self._ended = asyncio.create_task(_ended(container))
        self.main = DockerProcess(
            stream, self._ended, tty=tty, resize=lambda size: _resize(container, size)
        )
        await self.main.resize(DEFAULT_SIZE)

    def _running(self) -> DockerContainer:
        if self._container is None or self._ended is None or self._ended.done():
            raise NotRunning("The job has ended.")
        return self._container

    async def _signal(self, name: str) -> None:
        assert self._container is not None
        with suppress(*FAILURES):  # it has ended
            await self._container.kill(signal=name)

    async def _kill(self) -> None:
        if self._ended is not None:
            if not self._ended.done():
                await self._signal("SIGKILL")
            await asyncio.wait({self._ended})


def terminal(tty: bool) -> Mapping[str, str]:
    """Return the variables that a process on a terminal gets, as in a sandbox."""
    return {"TERM": "xterm-256color"} if tty else {}


async def _ended(container: DockerContainer) -> int:
    """Return the exit code of a container's main process, once it has one."""
    try:
        code = int((await container.wait())["StatusCode"])
        if code == 0:  # says Podman also of a container that somebody removed
            await container.show()
        return code
    except (*FAILURES, KeyError, ValueError) as error:
        logger.warning("container %s is lost: %s", container.id, said(error))
        return KILLED


async def _exec_started(made: Exec) -> None:
    """Return once a process beside the main one is there, or will never be."""
    with suppress(*FAILURES):  # gone with the job
        state = await made.inspect()
        while not state["Pid"] and state["ExitCode"] is None:
            await asyncio.sleep(SOON)
            state = await made.inspect()


async def _exec_ended(made: Exec, at_end: asyncio.Event) -> int:
    """Return the exit code of a process beside the main one, once it has one. Nobody tells, so it
    is asked for: now and then, and at the end of its output."""
    pause = SOON
    while True:
        try:
            state = await made.inspect()
        except FAILURES:  # gone with the job
            return KILLED
        if not state["Running"] and state["ExitCode"] is not None:
            return int(state["ExitCode"])
        if at_end.is_set():
            await asyncio.sleep(pause)
        else:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(at_end.wait(), pause)
        pause = min(pause * 1.5, LATER)


async def _resize(process: Union[DockerContainer, Exec], size: Size) -> bool:
    """Tell the engine the size of a terminal; return whether it took it."""
    try:
        await process.resize(h=size.height, w=size.width)
    except (
        *FAILURES,
        ValueError,
    ):  # no process yet, or none any more; or no JSON in an empty answer
        return False
    return True


def _memory(told: Mapping[str, Any]) -> int:
    """Return the bytes in use without what is only cached, as `docker stats` counts them."""
    details = told.get("stats") or {}
    cached = details.get("total_inactive_file", details.get("inactive_file", 0))
    return max(0, int(told.get("usage", 0)) - int(cached))


def _address(details: Mapping[str, Any]) -> Optional[str]:
    """Return the address of a container in its network."""
    networks = details.get("NetworkSettings", {}).get("Networks") or {}
    return next((net["IPAddress"] for net in networks.values() if net.get("IPAddress")), None)
