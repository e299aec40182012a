"""A job's life: names, statuses, life span, logs, and taking stock after a restart."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Awaitable, Callable, Dict, Iterator, Optional, Protocol, Set

from ..engines.base import KILLED, Engine, Process, Size, Task
from ..errors import (
    InvalidRequest,
    NeuroLocalError,
    NotFound,
    NotRunning,
    StartFailed,
    StorageError,
)
from ..joblog import JobLog
from ..models import Identity, Job, JobFilter, JobSpec, JobStatus, Reason, Transition, now
from ..store import JobStore
from .images import ImageService
from .tasks import TaskSpecs, words

logger = logging.getLogger(__name__)

# Between SIGTERM and SIGKILL, in seconds; Kubernetes gives 30, a laptop's user waits less.
STOP_GRACE = 5.0

# How long a job that fails at once is still seen running, in seconds. `neuro run` looks five times
# a second, and shows nothing of a job that has failed before its first look.
SHORTEST_FAILURE = 0.6

ACTIVE = frozenset({JobStatus.PENDING, JobStatus.RUNNING})


class WebPages(Protocol):
    """Publishes the HTTP port of a job, which `connect` reaches once the job runs."""

    async def publish(self, job: Job, connect: Callable[[int], Awaitable[socket.socket]]) -> None:
        """Give the job's page an address, before it may answer. Raises OSError."""

    async def withdraw(self, job_id: str) -> None:
        """Take the page's address back, if it has one. Repeatable."""


@dataclass
class Execution:
    """A job that has not ended: its start, its task once it runs, and who looks after it."""

    log: JobLog
    starting: asyncio.Task[Task]
    task: Optional[Task] = None
    supervisor: Optional[asyncio.Task[None]] = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: Optional[float] = None  # on the clock of time.monotonic
    timer: Optional[asyncio.TimerHandle] = None  # of its life span


class JobService:
    """Starts jobs on the engine, follows each to its end, and keeps its record in `store` and its
    output in the folder `logs`. `minute` is the length of a life span's minute in seconds."""

    def __init__(
        self,
        *,
        identity: Identity,
        store: JobStore,
        engine: Engine,
        specs: TaskSpecs,
        images: ImageService,
        pages: WebPages,
        logs: Path,
        minute: float = 60.0,
    ) -> None:
        self._identity = identity
        self._store = store
        self._engine = engine
        self._specs = specs
        self._images = images
        self._pages = pages
        self._logs = logs
        self._minute = minute
        self._executions: Dict[str, Execution] = {}
        self._stopping: Set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Record the end of jobs that an earlier life of the server took with it."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for job in list(self._store.select(JobFilter(statuses=ACTIVE))):
            self._move(
                job.id,
                JobStatus.FAILED,
                Reason.ERROR,
                "neuro-local stopped while the job was running",
            )

    async def close(self) -> None:
        """Cancel what still runs, and wait until it is gone."""
        for job_id in list(self._executions):
            self._cancel(job_id, Reason.USER_REQUESTED, "neuro-local was shut down")
        supervisors = [e.supervisor for e in self._executions.values() if e.supervisor]
        await asyncio.gather(*supervisors, return_exceptions=True)
        self._store.close()

    # What clients ask for

    async def create(self, spec: JobSpec) -> Job:
        """Accept a job and start it in the background. Raises InvalidRequest, and StorageError
        when the disk has no room for its records."""
        if spec.name is not None:
            self._require_free(spec.name)
        words(spec.entrypoint, "entrypoint")
        words(spec.command, "command")
        job = Job(
            id=f"job-{uuid.uuid4()}",
            owner=self._identity.user,
            spec=spec,
            transitions=(Transition(JobStatus.PENDING, now(), Reason.CREATING),),
        )
        log = self.log(job.id)
        try:
            log.open()
        except OSError as error:
            text = f"The job's log cannot be kept: {error.strerror}."
            raise StorageError(text, error.errno or errno.EIO) from error
        try:
            self._store.put(job)
        except StorageError:
            log.discard()
            raise
        execution = Execution(log, asyncio.create_task(self._start(job)))
        self._executions[job.id] = execution
        execution.supervisor = asyncio.create_task(self._supervise(job, execution))
        return job

    def get(self, id_or_name: str) -> Job:
        """Return a job by its id, or the newest one of that name. Raises NotFound."""
        job = self._store.get(id_or_name)
        if job is None:
            by_name = self._store.select(JobFilter(name=id_or_name), newest_first=True)
            job = next(by_name, None)
        if job is None:
            raise NotFound(f"no such job {id_or_name}")
        return job

    def select(self, filter: JobFilter, *, newest_first: bool = False) -> Iterator[Job]:
        """Yield the matching jobs, each as it is when its turn comes."""
        return self._store.select(filter, newest_first=newest_first)

    async def cancel(self, id_or_name: str) -> None:
        """End a job: its status changes at once, its processes follow. Repeatable."""
        self._cancel(self.get(id_or_name).id, Reason.USER_REQUESTED)

    async def kill(self, id_or_name: str) -> None:
        """Kill a running job's processes; it ends as one that failed. Raises NotRunning."""
        await self.running(id_or_name).stop(grace=0)

    def set_life_span(self, id_or_name: str, minutes: int) -> None:
        """Let a job run for so many minutes in all, from its start."""
        job = self.get(id_or_name).lasting(minutes)
        self._store.put(job)
        if job.id in self._executions:
            self._set_timer(job, self._executions[job.id])

    async def save(self, id_or_name: str, image: str) -> None:
        """Keep a running job as the image of that reference. Raises NotRunning, SaveFailed."""
        job = self.get(id_or_name)
        await self._task(job).save(self._images.to_save(image))

    async def exec(
        self, id_or_name: str, command: str, *, tty: bool, size: Optional[Size] = None
    ) -> Process:
        """Start a process in a running job; `command` is split into words, without a shell."""
        # The older client passes a leading `--` on, which others take for the end of options.
        split = words(command, "command")
        if split[:1] == ["--"]:
            split = split[1:]
        if not split:
            raise InvalidRequest("the command to execute is empty")
        return await self._task(self.get(id_or_name)).exec(split, tty=tty, size=size)

    def running(self, id_or_name: str) -> Task:
        """Return the task of a running job. Raises NotFound, NotRunning."""
        return self._task(self.get(id_or_name))

    def log(self, job_id: str) -> JobLog:
        """Return the log of a job, the one that is being written if the job has not ended."""
        execution = self._executions.get(job_id)
        return execution.log if execution else JobLog(self._logs / f"{job_id}.log")

    async def ended(self, job_id: str) -> None:
        """Wait until the job's status is final and its log closed."""
        execution = self._executions.get(job_id)
        if execution is not None:
            await execution.ended.wait()

    # The life of one job

    async def _supervise(self, job: Job, execution: Execution) -> None:
        try:
            await self._live(job, execution)
        except asyncio.CancelledError:  # so was its start: the status says it already
            pass
        except StartFailed as error:
            self._move(job.id, JobStatus.FAILED, error.reason, str(error))
        except (NeuroLocalError, OSError) as error:  # a volume that cannot be, a full disk
            self._move(job.id, JobStatus.FAILED, Reason.CANNOT_RUN, str(error))
        except Exception:
            logger.exception("job %s", job.id)
            self._move(job.id, JobStatus.FAILED, Reason.ERROR, "neuro-local failed; see its log")
        finally:
            if execution.timer is not None:
                execution.timer.cancel()
            execution.log.close()
            execution.ended.set()
            try:
                await self._pages.withdraw(job.id)
                if execution.task is not None:
                    await execution.task.remove()
            finally:
                del self._executions[job.id]

    async def _start(self, job: Job) -> Task:
        def tell(waiting_for: str) -> None:
            self._move(job.id, JobStatus.PENDING, Reason.PULLING, waiting_for)

        # First, and here, where nothing has started that could be left if there is no port: what
        # asks for the address of a job that still waits for its image gets it, as on the platform.
        if job.spec.http is not None:
            await self._pages.publish(job, partial(self._connect, job.id))
        return await self._engine.run(await self._specs.of(job), tell)

    async def _live(self, job: Job, execution: Execution) -> None:
        task = execution.task = await execution.starting
        if self.get(job.id).is_finished:  # cancelled while it started
            return
        self._move(job.id, JobStatus.RUNNING)
        started = execution.started = time.monotonic()
        self._set_timer(self.get(job.id), execution)
        recorder = asyncio.create_task(_record(task.main, execution.log))
        code = await task.main.wait()
        # Output may come after the end; whoever follows the log must see both before it closes.
        await recorder
        if code == 0:
            self._move(job.id, JobStatus.SUCCEEDED, Reason.COMPLETED, _gap(execution.log), 0)
        else:
            await asyncio.sleep(started + SHORTEST_FAILURE - time.monotonic())
            reason = await _reason(task, code)
            self._move(job.id, JobStatus.FAILED, reason, _gap(execution.log), code)

    def _set_timer(self, job: Job, execution: Execution) -> None:
        """Have a running job end with its life span, as that is now."""
        if execution.timer is not None:
            execution.timer.cancel()
        minutes = job.spec.life_span_minutes
        if minutes and execution.started is not None:
            left = execution.started + minutes * self._minute - time.monotonic()
            loop = asyncio.get_running_loop()
            execution.timer = loop.call_later(left, self._cancel, job.id, Reason.LIFE_SPAN_ENDED)

    def _cancel(self, job_id: str, reason: str, description: Optional[str] = None) -> None:
        self._move(job_id, JobStatus.CANCELLED, reason, description)
        execution = self._executions.get(job_id)
        if execution is None:
            return
        if execution.task is None:
            execution.starting.cancel()
        else:
            stopping = asyncio.create_task(execution.task.stop(STOP_GRACE))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    def _move(
        self,
        job_id: str,
        status: JobStatus,
        reason: Optional[str] = None,
        description: Optional[str] = None,
        exit_code: Optional[int] = None,
    ) -> None:
        """Record a change of status, unless the job has its final one: the first end counts."""
        job = self._store.get(job_id)
        assert job is not None
        if not job.is_finished:
            self._store.put(job.moved(Transition(status, now(), reason, description, exit_code)))

    # Small parts

    async def _connect(self, job_id: str, port: int) -> socket.socket:
        return await self.running(job_id).connect(port)

    def _task(self, job: Job) -> Task:
        execution = self._executions.get(job.id)
        if job.status is not JobStatus.RUNNING or execution is None or execution.task is None:
            raise NotRunning(f"job {job.id} is not running")
        return execution.task

    def _require_free(self, name: str) -> None:
        holder = next(self._store.select(JobFilter(name=name, statuses=ACTIVE)), None)
        if holder is not None:
            raise InvalidRequest(
                f"Failed to create job: job with name '{name}' and project "
                f"'{self._identity.project}' already exists: '{holder.id}'"
            )


async def _record(process: Process, log: JobLog) -> None:
    async for chunk in process.output():
        log.append(chunk.channel, chunk.data)


async def _reason(task: Task, code: int) -> str:
    """Return why a job failed that has ended with that exit code."""
    if code == KILLED and await task.out_of_memory():
        return Reason.OUT_OF_MEMORY
    return Reason.ERROR


def _gap(log: JobLog) -> Optional[str]:
    """Return what the job's status says of output that was lost."""
    return f"part of its output is lost: {log.lost}" if log.lost else None
