"""A job in a sandbox: its init, and what that starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import suppress
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ...errors import NotRunning, StartFailed
from ..base import KILLED, Process, Size, Task, TaskSpec, Usage
from .bwrap import PIP_CACHE, Sandbox
from .channel import Channel
from .egress import Egress
from .process import SandboxProcess
from .python import base_environment

DEFAULT_COMMAND = ("/bin/sh",)  # what a plain image runs that is told nothing
DEFAULT_SIZE = Size(80, 24)
# How often what it uses is measured. Seconds.
PERIOD = 1.0


class SandboxTask(Task):
    """`keep` saves its files as the image of a name, `forget` lets go of them; it is called when
    nothing else is left of the job."""

    def __init__(
        self,
        sandbox: Sandbox,
        spec: TaskSpec,
        *,
        keep: Callable[[Sandbox, str], Awaitable[None]],
        forget: Callable[[SandboxTask], Awaitable[None]],
    ) -> None:
        self.sandbox = sandbox
        self._keep = keep
        self._forget = forget
        self._cwd = spec.working_dir or "/"
        self._env: Dict[str, str] = {}
        self._processes: List[SandboxProcess] = []
        self._ended: Optional[asyncio.Task[None]] = None
        self._handle: Optional[int] = None  # of init, safe from reused process numbers
        self._main_ended: Optional[asyncio.Future[int]] = None
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._began = 0.0

    async def start(self, spec: TaskSpec, environ: Mapping[str, str]) -> None:
        """Start the sandbox and in it the main process."""
        await self._start_sandbox(environ)
        proxy = await self._greeting()
        self._env = base_environment(environ, PIP_CACHE, f"http://127.0.0.1:{proxy}")
        self._env.update(spec.env)
        entrypoint = self.sandbox.image.entrypoint if spec.entrypoint is None else spec.entrypoint
        command = [*entrypoint, *spec.command] or DEFAULT_COMMAND
        self._began = time.monotonic()
        self.main = await self._start_process(command, spec.tty, DEFAULT_SIZE)

    async def exec(
        self, command: Sequence[str], *, tty: bool = False, size: Optional[Size] = None
    ) -> Process:
        self._assert_running()
        return await self._start_process(command, tty, size or DEFAULT_SIZE)

    async def connect(self, port: int) -> socket.socket:
        self._assert_running()
        try:
            return await self._connect(socket.AF_INET, ("127.0.0.1", port))
        except ConnectionRefusedError:
            return await self._connect(socket.AF_INET6, ("::1", port))

    async def save(self, image: str) -> None:
        self._assert_running()
        await self._keep(self.sandbox, image)

    async def usage(self) -> AsyncIterator[Usage]:
        self._assert_running()
        before, moment = 0.0, self._began
        with suppress(NotRunning):
            while True:
                told, _ = await self._channel.request("measure")
                now = time.monotonic()
                yield Usage((told["cpu"] - before) / (now - moment), told["memory"])
                before, moment = told["cpu"], now
                await asyncio.sleep(PERIOD)

    async def stop(self, grace: float) -> None:
        with suppress(NotRunning):
            if grace:
                await self._channel.request("signal", number=signal.SIGTERM)
                await asyncio.wait({self._exit_code}, timeout=grace)
        await self._kill()

    async def remove(self) -> None:
        await self._kill()
        for process in self._processes:
            process.close()
        await self._forget(self)

    async def _start_sandbox(self, environ: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self.sandbox.folder.log.open("wb") as log:
            self._bwrap = await asyncio.create_subprocess_exec(
                *self.sandbox.command(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={},
                start_new_session=True,  # Ctrl-C at the server's terminal is the server's
            )
        self._channel = Channel(ours)
        self._egress = Egress(environ)
        self._ended = asyncio.create_task(self._watch())

    async def _greeting(self) -> int:
        """Wait for init, take what it hands over, and return the port of the job's proxy."""
        try:
            greeting, (self._handle, listener, setting) = await self._channel.greeting()
        except NotRunning:
            await self._kill()
            said = self.sandbox.folder.log.read_text(errors="replace").strip()
            raise StartFailed(f"The sandbox could not be started: {said}.") from None
        _open_privileged_ports(setting)
        await self._egress.start(socket.socket(fileno=listener))
        return int(greeting["proxy"])

    async def _watch(self) -> None:
        """Wait until nothing of the job is left, then let go of what only a live one needs."""
        await self._bwrap.wait()
        self._channel.close()
        await self._egress.close()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        self._exit_code.set_result(self._main_ended.result() if self._main_ended else KILLED)

    async def _start_process(self, command: Sequence[str], tty: bool, size: Size) -> SandboxProcess:
        env = {"TERM": "xterm-256color", **self._env} if tty else self._env
        request: Dict[str, Any] = {"argv": list(command), "env": env, "cwd": self._cwd}
        request.update(tty=tty, size=(size.width, size.height))
        self._close_ended()
        process = SandboxProcess()
        self._processes.append(process)
        streams = [] if tty else process.open_pipes()
        try:
            ended, terminal = await self._channel.start(request, streams)
        except BaseException:
            process.close()
            self._processes.remove(process)
            raise
        finally:
            for stream in streams:
                os.close(stream)
        if self._main_ended is None:  # the first process is the main one: it ends with all others
            self._main_ended, ended = ended, self._exit_code
        process.started(ended, terminal)
        return process

    def _close_ended(self) -> None:
        """Let go of those that are over: a job may be entered ten thousand times in its life."""
        for process in [process for process in self._processes if process.is_over]:
            process.close()
            self._processes.remove(process)

    async def _connect(self, family: int, address: Tuple[str, int]) -> socket.socket:
        _, descriptors = await self._channel.request("socket", family=int(family))
        connection = socket.socket(fileno=descriptors[0])
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _kill(self) -> None:
        if self._ended is None:
            return
        if self._handle is not None:
            try:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._channel.close()
        await asyncio.shield(self._ended)

    def _assert_running(self) -> None:
        if self._main_ended is None or self._main_ended.done():
            raise NotRunning("The job has ended.")


def _open_privileged_ports(setting: int) -> None:
    """Let any user of a job's own network listen on port 80, as under Docker.

    Only who made that network may: us, by way of the descriptor that was opened inside.
    """
    try:
        with open(f"/proc/self/fd/{setting}", "w") as writing:
            writing.write("0")
    except OSError:
        pass  # as root the setting is out of reach, and not needed
    finally:
        os.close(setting)
