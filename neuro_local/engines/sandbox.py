"""Jobs as sandboxed processes of this machine, kept apart from it by bubblewrap.

A job sees this machine's own software below layers of its own, and a network of its own: its
ports are reached through `connect`, and its way out is a proxy (egress.py). Inside, init.py is
process 1 and does what the engine asks for (channel.py).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ..errors import EngineUnavailable, NotRunning, StartFailed
from . import catalogue, recipes
from .base import Engine, Process, Size, Task, TaskSpec, Tell, ignore
from .builder import Builder
from .bwrap import PIP_CACHE, Sandbox, locate
from .channel import KILLED, Channel
from .egress import Egress
from .layers import Image, JobFolder, Layers
from .processes import SandboxProcess
from .python import Python, base_environment, is_below, passed_on_paths
from .shared import Shared

DEFAULT_COMMAND = ("/bin/sh",)  # what a plain image runs that is told nothing
DEFAULT_SIZE = Size(80, 24)


class SandboxTask(Task):
    def __init__(self, engine: SandboxEngine, sandbox: Sandbox, spec: TaskSpec) -> None:
        self.sandbox = sandbox
        self._engine = engine
        self._cwd = spec.working_dir or "/"
        self._env: Dict[str, str] = {}
        self._processes: List[SandboxProcess] = []
        self._ended: Optional[asyncio.Task[None]] = None
        self._handle: Optional[int] = None  # of init, safe from reused process numbers
        self._main_ended: Optional[asyncio.Future[int]] = None
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self, spec: TaskSpec, environ: Mapping[str, str]) -> None:
        """Start the sandbox and in it the main process."""
        await self._start_sandbox(environ)
        proxy = await self._greeting()
        self._env = base_environment(environ, PIP_CACHE, f"http://127.0.0.1:{proxy}")
        self._env.update(spec.env)
        entrypoint = self.sandbox.image.entrypoint if spec.entrypoint is None else spec.entrypoint
        command = [*entrypoint, *spec.command] or DEFAULT_COMMAND
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
        await self._engine.keep(self.sandbox, image)

    async def stop(self, grace: float) -> None:
        try:
            await self._channel.request("signal", number=signal.SIGTERM)
            await asyncio.wait({self._exit_code}, timeout=grace)
        except NotRunning:
            pass
        await self._kill()

    async def remove(self) -> None:
        await self._kill()
        for process in self._processes:
            process.close()
        await self._engine.forget(self)

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


class SandboxEngine(Engine):
    """`state` holds images and jobs, `cache` what several instances may share."""

    name = "sandbox"

    def __init__(self, state: Path, *, cache: Path, environ: Mapping[str, str]) -> None:
        self._state = state.resolve()
        self._cache = cache.resolve()
        self._environ = environ
        self._layers = Layers(self._state, Shared(self._state / "shared"))
        self._builder = Builder(self._layers, self._run_to_end)
        self._python = Python.running()
        self._plain = recipes.plain(self._python)
        self._tasks: Set[SandboxTask] = set()
        self._saving = asyncio.Lock()

    async def start(self) -> None:
        seen = [*self._layers.host_roots, self._python.prefix]
        self._check(seen)
        await asyncio.to_thread(self._layers.prepare)
        try:
            await self._probe(self._layers.job_folder("probe"))
        except StartFailed as error:
            raise EngineUnavailable(f"{error} {_advice()}".strip()) from None
        if await self._serves(Shared(self._cache), seen):
            self._layers.shared = Shared(self._cache)
        else:
            await asyncio.to_thread(self._layers.shared.prepare)
        try:
            await self._builder.make(self._plain)
        except StartFailed as error:
            raise EngineUnavailable(str(error)) from None
        await asyncio.to_thread(self._layers.collect, [])

    async def run(self, spec: TaskSpec, tell: Tell = ignore) -> Task:
        image = await self._image(spec.image, tell)
        return await self._run(spec, image, self._layers.job_folder(spec.job_id))

    async def images(self) -> Sequence[str]:
        return [image.reference for image in await asyncio.to_thread(self._layers.images)]

    async def close(self) -> None:
        await self._builder.close()
        await asyncio.gather(*(task.remove() for task in list(self._tasks)))

    async def keep(self, sandbox: Sandbox, reference: str) -> None:
        """Save a job's files as an image, and clear layers of an image that it replaced."""
        image = replace(sandbox.image, reference=reference)
        async with self._saving:
            try:
                await asyncio.to_thread(self._layers.save, sandbox.folder, image)
            finally:  # else a layer without its image fills a full disk for good
                used = {layer for task in self._tasks for layer in task.sandbox.image.layers}
                await asyncio.to_thread(self._layers.collect, used)

    async def forget(self, task: SandboxTask) -> None:
        """Let go of a dead task's files, once nobody copies them."""
        async with self._saving:
            await asyncio.to_thread(self._layers.discard, task.sandbox.folder)
            self._tasks.discard(task)

    async def _image(self, reference: str, tell: Tell) -> Image:
        """Return an image with all its layers in place. Raises StartFailed."""
        image = self._layers.find(reference) or self._unsaved(reference)
        if not os.path.exists(image.python):
            raise _stands_on(reference, image.python)
        on_plain = (recipes.of(entry, self._plain.layer) for entry in catalogue.CATALOGUE)
        known = {recipe.layer: recipe for recipe in (self._plain, *on_plain)}
        for layer in self._layers.missing(image.layers):
            if layer not in known:
                raise _stands_on(reference, str(self._layers.path(layer)))
            tell(f"{known[layer].what} is made on first use, which can take a minute")
            await self._builder.have(known[layer])
        return image

    def _unsaved(self, reference: str) -> Image:
        entry = catalogue.find(reference)
        if entry is None:
            return self._stack(self._plain.layers)
        return self._stack(recipes.of(entry, self._plain.layer).layers, entry.entrypoint)

    def _stack(self, layers: Sequence[str], entrypoint: Sequence[str] = ()) -> Image:
        python = self._python
        return Image("", layers, str(python.executable), str(python.prefix), entrypoint)

    async def _run(self, spec: TaskSpec, image: Image, folder: JobFolder) -> SandboxTask:
        sandbox = Sandbox(
            layers=self._layers,
            folder=folder,
            image=image,
            python=self._python,
            hostname=spec.job_id[:12],
            pip_cache=self._cache / "pip",
            shown=passed_on_paths(self._environ, self._layers.host_roots),
            mounts=spec.mounts,
        )
        task = SandboxTask(self, sandbox, spec)
        self._tasks.add(task)  # from here on its layers stay
        starting = asyncio.create_task(self._start(task, spec))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # It is short: easier taken down when it has ended than in the middle.
            await asyncio.wait({starting})
            await task.remove()
            raise
        return task

    async def _start(self, task: SandboxTask, spec: TaskSpec) -> None:
        try:
            await asyncio.to_thread(task.sandbox.make_folders)
            await task.start(spec, self._environ)
        except BaseException:
            await task.remove()
            raise

    async def _run_to_end(
        self, spec: TaskSpec, layers: Sequence[str], folder: JobFolder
    ) -> Tuple[int, str]:
        task = await self._run(spec, self._stack(layers), folder)
        try:
            await task.main.close_stdin()
            said = b"".join([chunk.data async for chunk in task.main.output()])
            return await task.main.wait(), said.decode(errors="replace")
        finally:
            await task.remove()

    def _check(self, seen: Sequence[Path]) -> None:
        if sys.platform != "linux":
            raise EngineUnavailable("The sandbox needs Linux; on this system use Docker.")
        locate()
        if is_below(self._state, seen):
            raise EngineUnavailable(
                f"The folder {self._state} cannot hold the sandbox's files, since jobs see it:"
                f" choose one outside of {', '.join(map(str, seen))}."
            )
        if importlib.util.find_spec("ensurepip") is None:
            raise EngineUnavailable(
                "The Python of this machine cannot make virtual environments: install the"
                " package python3-venv."
            )

    async def _probe(self, folder: JobFolder) -> None:
        """Find out whether this machine lets us make sandboxes, with their files there."""
        await self._run_to_end(TaskSpec("probe", "", ["/bin/sh", "-c", ":"]), (), folder)

    async def _serves(self, shared: Shared, seen: Sequence[Path]) -> bool:
        """Whether the shared layers can lie in the cache folder.

        Jobs must not see it, nobody else may own it, and its file system has to take overlays.
        """
        if is_below(self._cache, seen):
            return False
        try:
            await asyncio.to_thread(shared.prepare)
            if self._cache.stat().st_dev != self._state.stat().st_dev:
                async with shared.turn("probe") as path:
                    await self._probe(JobFolder(path))
        except (OSError, StartFailed):
            return False
        return True


def _stands_on(reference: str, path: str) -> StartFailed:
    return StartFailed(
        f"The image {reference!r} stands on {path}, which is no longer there: the cache was"
        " deleted, or this machine's Python replaced. Save the image anew: a project does that with"
        " `make setup`.",
        "ErrImagePull",
    )


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


# Settings of several distributions that forbid what the sandbox needs of an ordinary user.
FORBIDDING = {
    "kernel/unprivileged_userns_clone": ("0", "1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user/max_user_namespaces": ("0", "10000"),
}


def _advice() -> str:
    for setting, (forbids, allows) in FORBIDDING.items():
        path = Path("/proc/sys", setting)
        if path.exists() and path.read_text().strip() == forbids:
            change = f"{setting.replace('/', '.')}={allows}"
            return f"An administrator can allow it: `sudo sysctl -w {change}`."
    return (
        "It needs user namespaces and overlays in them: Linux 5.11 or newer, and inside a"
        " container one that may make them (`docker run --privileged`)."
    )
