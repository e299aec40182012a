"""What an engine must do to run jobs: the one interface between jobs and machines.

A job is one `Task`. Its main process and every process that `exec` starts beside it are
`Process`es with the same streams, so the callers that attach, exec and log share their code.
Engines know nothing of HTTP, users or job records. All methods are coroutines of one event
loop and never block it.
"""

from __future__ import annotations

import abc
import asyncio
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Coroutine, Mapping, Optional, Sequence

from ..errors import Unsupported

STDOUT = 1
STDERR = 2

# The exit code after SIGKILL, which is also what running out of memory ends with.
KILLED = 128 + 9

# What an engine calls itself where it pushes to and pulls from this platform's registry; nobody
# else has that name.
REGISTRY_USER = "neuro-local"


@dataclass(frozen=True)
class Chunk:
    """A piece of output: `channel` is STDOUT or STDERR (always STDOUT on a terminal)."""

    channel: int
    data: bytes


@dataclass(frozen=True)
class Size:
    """Size of a terminal window in character cells."""

    width: int
    height: int


@dataclass(frozen=True)
class Usage:
    """What a job uses: processors (1.5 is one and a half), on average since it was last looked at
    and at first since its start, and memory in bytes."""

    cpu: float
    memory: int


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine at an absolute path in the job. The source exists."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True)
class TaskSpec:
    """All that an engine needs to start a job.

    `image` is a docker reference, of an image that this platform itself keeps if it is `own`: saved
    from a job or pushed. `entrypoint` and `command` are already split into words;
    an entrypoint replaces the image's own, None leaves it, and nothing is ever run through a shell.
    `cpu` (cores) and `memory_mb` limit the job where the engine can limit it, and `shm` asks for
    shared memory up to all of that memory. The sandbox has no limits.
    """

    job_id: str
    image: str
    command: Sequence[str] = ()
    entrypoint: Optional[Sequence[str]] = None
    working_dir: Optional[str] = None
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    tty: bool = False
    cpu: Optional[float] = None
    memory_mb: Optional[int] = None
    shm: bool = False
    own: bool = False


class Process(abc.ABC):
    """A process inside a job, with its streams."""

    @abc.abstractmethod
    def output(self) -> AsyncIterator[Chunk]:
        """Yield output as it comes, until the process and all who hold its streams closed them.

        Read by exactly one reader. An unread process may stall on a full pipe.
        """

    @abc.abstractmethod
    async def write(self, data: bytes) -> None:
        """Send bytes to standard input; ignored once that is closed."""

    @abc.abstractmethod
    async def close_stdin(self) -> None:
        """End standard input (on a terminal: send end-of-file). Repeatable."""

    @abc.abstractmethod
    async def resize(self, size: Size) -> None:
        """Set the terminal's window size; ignored without a terminal."""

    @abc.abstractmethod
    async def wait(self) -> int:
        """Return the exit code, 0 to 255; 128 + N after death by signal N. Repeatable."""


class Task(abc.ABC):
    """A started job."""

    main: Process

    @abc.abstractmethod
    async def exec(
        self, command: Sequence[str], *, tty: bool = False, size: Optional[Size] = None
    ) -> Process:
        """Start one more process in the job, with the job's environment and working folder.

        Killed with the job. A command that cannot be found is a process that says so on its
        output and exits with 127, as under a shell. Raises NotRunning once the job has ended.
        """

    @abc.abstractmethod
    async def connect(self, port: int) -> socket.socket:
        """Return a TCP socket, connected and non-blocking, to a port the job listens on.

        Raises ConnectionRefusedError when nothing listens, NotRunning once the job has ended.
        """

    @abc.abstractmethod
    async def save(self, image: str) -> None:
        """Keep the job's file system, volumes left out, as the image of that reference.

        The job goes on running. The image is whole or absent, and replaces an older one of the
        same reference. Raises NotRunning or SaveFailed.
        """

    @abc.abstractmethod
    def usage(self) -> AsyncIterator[Usage]:
        """Yield what the job uses, about once a second until it has ended. Raises NotRunning when
        it has ended before."""

    async def out_of_memory(self) -> bool:
        """Whether the job, which has ended, was killed since it took more memory than its limit."""
        return False

    @abc.abstractmethod
    async def stop(self, grace: float) -> None:
        """Send SIGTERM to the main process, after `grace` seconds SIGKILL to all, with none of
        them SIGKILL alone; return once no process of the job is left. Repeatable, also after the
        job has ended."""

    @abc.abstractmethod
    async def remove(self) -> None:
        """Stop at once and let go of all the job holds on this machine (not its image).

        Repeatable. Its files may be deleted in the background."""


Tell = Callable[[str], None]


def ignore(sentence: str) -> None:
    """For a caller who wants to be told nothing."""


async def start_whole(task: Task, start: Coroutine[Any, Any, None]) -> None:
    """Wait for the start of a task. One that is cancelled goes on to its end, and the task is then
    removed: a start is short, and easier taken down when it has ended than in the middle."""
    starting = asyncio.create_task(start)
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})
        await task.remove()
        raise


class Engine(abc.ABC):
    """Runs jobs on this machine."""

    name: str

    @abc.abstractmethod
    async def start(self) -> None:
        """Make ready, and clear what an earlier life of this server left behind.

        Raises EngineUnavailable with what is missing and what to do.
        """

    @abc.abstractmethod
    async def run(self, spec: TaskSpec, tell: Tell = ignore) -> Task:
        """Start a job; return once its main process runs.

        An image that `save` never kept is the engine's to find, which may take minutes, and `tell`
        is called with what it is waiting for. The sandbox has a small catalogue, made on first use,
        and takes its plain base for any other. Cancelled, it starts nothing, and an image that is
        on its way goes on to its end for the next job.
        Raises StartFailed with the platform's reason: `ErrImagePull` for an image that cannot be
        had, `ContainerCannotRun` for the rest (a command that cannot be found among them).
        """

    @abc.abstractmethod
    async def images(self) -> Sequence[str]:
        """References of the images that `save` has kept, sorted. Raises EngineUnavailable when the
        engine has gone."""

    async def discard(self, image: str) -> None:
        """Remove an image of that reference that `save` has kept, and what the engine has copied of
        one that a registry keeps; a job that runs from it goes on. Raises Unsupported."""
        raise Unsupported(f"the {self.name} engine removes no images")

    @abc.abstractmethod
    async def close(self) -> None:
        """Remove every task that is left and let go of the machine."""
