"""A job's life as the service records it, on the real engine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import AsyncIterator, Optional

import pytest
from enginekit import cache_with_base, eventually, ready, shared_cache

from neuro_local.config import PRESETS
from neuro_local.engines.sandbox.engine import SandboxEngine
from neuro_local.errors import InvalidRequest, NotFound, NotRunning
from neuro_local.models import Identity, Job, JobSpec, JobStatus, Volume
from neuro_local.services.images import ImageService
from neuro_local.services.jobs import JobService
from neuro_local.services.secrets import SecretService
from neuro_local.services.storage import StorageService
from neuro_local.services.tasks import TaskSpecs
from neuro_local.store import JobStore

REGISTRY = "127.0.0.1:1"


class NoPages:
    async def publish(self, job: Job, connect: object) -> None:
        raise AssertionError("these jobs have no port")

    async def withdraw(self, job_id: str) -> None:
        pass


class World:
    """A state folder that outlives its services."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.identity = Identity()
        self.folder = folder
        self.engine = SandboxEngine(folder / "engine", cache=cache, environ=os.environ)
        self.storage = StorageService(
            folder / "storage", cluster="local", org=self.identity.org, home=self.identity.user
        )
        self.secrets = SecretService(folder / "secrets", self.identity)

    def service(self) -> JobService:
        images = ImageService(REGISTRY, self.identity, self.engine)
        return JobService(
            identity=self.identity,
            store=JobStore(self.folder / "jobs.db"),
            engine=self.engine,
            specs=TaskSpecs(self.identity, self.storage, images, self.secrets),
            images=images,
            pages=NoPages(),
            logs=self.folder / "logs",
            minute=0.5,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_cache(tmp_path_factory)


@pytest.fixture
async def world(folder: Path, cache: Path) -> AsyncIterator[World]:
    made = World(folder, cache)
    await ready(made.engine)
    yield made
    await made.engine.close()


@pytest.fixture
async def jobs(world: World) -> AsyncIterator[JobService]:
    service = world.service()
    await service.start()
    yield service
    await service.close()


def spec(command: str, name: Optional[str] = None, **more: object) -> JobSpec:
    return JobSpec("plain", PRESETS[0], name=name, entrypoint=command, **more)  # type: ignore


async def until_running(jobs: JobService, job: Job) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while jobs.get(job.id).status is JobStatus.PENDING:
        assert asyncio.get_running_loop().time() < deadline, f"{job.id} does not start"
        await asyncio.sleep(0.01)


async def text(jobs: JobService, job: Job) -> bytes:
    return b"".join([record.data async for record in jobs.log(job.id).read()])


@pytest.mark.parametrize(
    "command, status, code",
    [("true", JobStatus.SUCCEEDED, 0), ("sh -c 'exit 7'", JobStatus.FAILED, 7)],
)
async def test_job_ends_with_its_commands_code(
    jobs: JobService, command: str, status: JobStatus, code: int
) -> None:
    job = await jobs.create(spec(command))

    await jobs.ended(job.id)

    ended = jobs.get(job.id)
    assert (ended.status, ended.last.exit_code) == (status, code)
    assert [t.status for t in ended.transitions][:2] == [JobStatus.PENDING, JobStatus.RUNNING]


async def test_log_is_whole_when_the_job_has_ended(jobs: JobService) -> None:
    job = await jobs.create(spec("sh -c 'echo one; echo two >&2'"))

    await jobs.ended(job.id)

    assert sorted((await text(jobs, job)).split()) == [b"one", b"two"]


async def test_cancelled_job_is_so_at_once_and_its_name_is_free(jobs: JobService) -> None:
    job = await jobs.create(spec("sleep 100", "taken"))
    await until_running(jobs, job)

    await jobs.cancel("taken")

    assert jobs.get(job.id).last.reason == "UserRequested"
    again = await jobs.create(spec("true", "taken"))
    await jobs.ended(again.id)
    assert jobs.get("taken").id == again.id


async def test_name_of_an_unfinished_job_is_taken(jobs: JobService) -> None:
    job = await jobs.create(spec("sleep 100", "only-one"))

    with pytest.raises(InvalidRequest, match=f"already exists: '{job.id}'"):
        await jobs.create(spec("true", "only-one"))


async def test_first_end_counts(jobs: JobService) -> None:
    job = await jobs.create(spec("sh -c 'trap \"exit 0\" TERM; sleep 100 & wait'"))
    await until_running(jobs, job)
    await jobs.cancel(job.id)

    await jobs.ended(job.id)

    assert jobs.get(job.id).status is JobStatus.CANCELLED


async def test_life_span_ends_a_job(jobs: JobService) -> None:
    job = await jobs.create(spec("sleep 100", life_span_minutes=1))

    await asyncio.wait_for(jobs.ended(job.id), 30)

    assert jobs.get(job.id).last.reason == "LifeSpanEnded"


async def test_life_span_of_a_running_job_can_be_changed(jobs: JobService) -> None:
    longer = await jobs.create(spec("sleep 1.5", life_span_minutes=1))
    shorter = await jobs.create(spec("sleep 100", life_span_minutes=10000))
    for job in longer, shorter:
        await until_running(jobs, job)

    jobs.set_life_span(longer.id, 10000)
    jobs.set_life_span(shorter.id, 1)

    await asyncio.wait_for(jobs.ended(shorter.id), 30)
    assert jobs.get(shorter.id).last.reason == "LifeSpanEnded"
    await asyncio.wait_for(jobs.ended(longer.id), 30)
    assert jobs.get(longer.id).status is JobStatus.SUCCEEDED


async def test_job_whose_image_is_being_made_is_pending_and_can_be_killed(
    tmp_path: Path, cache: Path
) -> None:
    world = World(tmp_path, await cache_with_base(tmp_path, cache))
    await ready(world.engine)
    jobs = world.service()
    await jobs.start()
    image = "filebrowser/filebrowser"
    killed, other = [await jobs.create(JobSpec(image, PRESETS[0], command="-h")) for _ in range(2)]
    await eventually(lambda: jobs.get(killed.id).last.reason == "Pulling", "a beginning")
    assert image in (jobs.get(killed.id).last.description or "")

    await jobs.cancel(killed.id)
    await jobs.ended(killed.id)

    assert jobs.get(killed.id).status is JobStatus.CANCELLED
    assert jobs.get(other.id).status is JobStatus.PENDING
    await asyncio.wait_for(jobs.ended(other.id), 60)
    assert jobs.get(other.id).status is JobStatus.SUCCEEDED
    await jobs.close()
    await world.engine.close()


async def test_image_of_ours_that_nobody_saved_cannot_be_pulled(jobs: JobService) -> None:
    job = await jobs.create(JobSpec(f"{REGISTRY}/user/nope:latest", PRESETS[0], command="true"))

    await jobs.ended(job.id)

    ended = jobs.get(job.id)
    assert (ended.status, ended.last.reason) == (JobStatus.FAILED, "ErrImagePull")
    assert ended.last.exit_code is None


async def test_saved_image_is_the_same_for_both_clients(jobs: JobService) -> None:
    job = await jobs.create(spec("sh -c 'echo kept >/kept; sleep 100'"))
    await until_running(jobs, job)
    process = await jobs.exec(job.id, "sh -c 'until [ -s /kept ]; do :; done'", tty=False)
    assert await process.wait() == 0

    await jobs.save(job.id, f"{REGISTRY}/neuro-local/user/kept:latest")

    other = await jobs.create(
        JobSpec(f"{REGISTRY}/user/kept:latest", PRESETS[0], command="cat /kept")
    )
    await jobs.ended(other.id)
    assert await text(jobs, other) == b"kept\n"


async def test_volume_that_cannot_be_fails_the_job_with_the_reason(
    jobs: JobService, world: World
) -> None:
    link = world.folder / "storage" / "user" / "link"
    link.symlink_to("/etc")
    try:
        volume = Volume("storage://local/user/link", "/user/link", "/x", False)
        job = await jobs.create(spec("true", volumes=(volume,)))
        await jobs.ended(job.id)
    finally:
        link.unlink()

    assert jobs.get(job.id).status is JobStatus.FAILED
    assert "Symbolic links" in (jobs.get(job.id).last.description or "")


async def test_command_that_does_not_split_is_refused(jobs: JobService) -> None:
    with pytest.raises(InvalidRequest, match="shell words"):
        await jobs.create(spec("echo 'unfinished"))


async def test_ended_job_is_not_entered(jobs: JobService) -> None:
    job = await jobs.create(spec("true"))
    await jobs.ended(job.id)

    with pytest.raises(NotRunning):
        await jobs.exec(job.id, "true", tty=False)
    with pytest.raises(NotFound):
        jobs.get("job-of-nobody")


async def test_next_life_reports_the_jobs_that_died_with_the_last(world: World) -> None:
    first = world.service()
    await first.start()
    job = await first.create(spec("sleep 100"))
    await until_running(first, job)

    second = world.service()  # as after a crash: the first never said good-bye
    await second.start()

    died = second.get(job.id)
    assert died.status is JobStatus.FAILED
    assert "stopped while the job was running" in (died.last.description or "")
    await first.close()
    await second.close()


async def test_closing_leaves_no_job_running(world: World) -> None:
    service = world.service()
    await service.start()
    job = await service.create(spec("sleep 100"))
    await until_running(service, job)

    await service.close()

    stored = JobStore(world.folder / "jobs.db").get(job.id)
    assert stored is not None and stored.status is JobStatus.CANCELLED
