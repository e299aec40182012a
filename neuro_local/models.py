"""Jobs and what belongs to them, as frozen values in the platform's words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import FrozenSet, Mapping, Optional, Tuple


def now() -> datetime:
    """Return the present moment, in UTC and marked so."""
    return datetime.now(timezone.utc)


class JobStatus(str, Enum):
    """The platform's statuses of a job, spelled as clients read and send them."""

    PENDING = "pending"
    SUSPENDED = "suspended"  # clients ask for such jobs; there are none on one machine
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        """Whether a job in it has ended, and will have no other."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class Reason:
    """The platform's usual words for why a job is in its status."""

    CREATING = "Creating"
    PULLING = "Pulling"
    COMPLETED = "Completed"
    ERROR = "Error"
    OUT_OF_MEMORY = "OOMKilled"
    CANNOT_RUN = "ContainerCannotRun"
    USER_REQUESTED = "UserRequested"
    LIFE_SPAN_ENDED = "LifeSpanEnded"


@dataclass(frozen=True)
class Preset:
    """A named size of job. The sandbox engine knows the sizes but does not enforce them."""

    name: str
    cpu: float
    memory_mb: int


@dataclass(frozen=True)
class Identity:
    """Who and where everybody is on this platform: one user in one project."""

    cluster: str = "local"
    org: str = "neuro-local"
    user: str = "user"

    @property
    def project(self) -> str:
        """The name of the project, which is the user's."""
        # The older client knows users, the newer one projects: with one name for both,
        # each sees the other's storage, jobs and images.
        return self.user


@dataclass(frozen=True)
class Volume:
    """A storage folder in the job; `path` is its path on storage, `uri` as the client sent it."""

    uri: str
    path: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Secret:
    """A secret of that `key`; `uri` as the client sent it."""

    uri: str
    key: str


@dataclass(frozen=True)
class SecretFile:
    """A secret as a read-only file in the job."""

    secret: Secret
    target: str


@dataclass(frozen=True)
class Http:
    """The port that serves the job's web page."""

    port: int
    requires_auth: bool


@dataclass(frozen=True)
class JobSpec:
    """What the client asked for. Life span in minutes; None means no limit."""

    image: str
    preset: Preset
    name: Optional[str] = None
    tags: Tuple[str, ...] = ()
    description: Optional[str] = None
    command: Optional[str] = None
    entrypoint: Optional[str] = None
    working_dir: Optional[str] = None
    http: Optional[Http] = None
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, Secret] = field(default_factory=dict)
    volumes: Tuple[Volume, ...] = ()
    secret_files: Tuple[SecretFile, ...] = ()
    tty: bool = False
    shm: bool = False
    life_span_minutes: Optional[int] = None


@dataclass(frozen=True)
class Transition:
    """A change of status. `exit_code` only where a process ended."""

    status: JobStatus
    at: datetime
    reason: Optional[str] = None
    description: Optional[str] = None
    exit_code: Optional[int] = None


@dataclass(frozen=True)
class Job:
    """A job with its history, the first transition being its creation."""

    id: str
    owner: str
    spec: JobSpec
    transitions: Tuple[Transition, ...]

    @property
    def last(self) -> Transition:
        """The latest transition: what the job's status is, since when and why."""
        return self.transitions[-1]

    @property
    def status(self) -> JobStatus:
        return self.last.status

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    @property
    def created_at(self) -> datetime:
        return self.transitions[0].at

    @property
    def started_at(self) -> Optional[datetime]:
        """When it began to run; for a job that ended without ever running, when it ended."""
        for transition in self.transitions:
            if transition.status is JobStatus.RUNNING:
                return transition.at
        return self.finished_at

    @property
    def finished_at(self) -> Optional[datetime]:
        """When it ended, None as long as it has not."""
        return self.last.at if self.is_finished else None

    def run_time_seconds(self) -> float:
        """Return for how long it ran, or has run until now; 0 for one that never did."""
        if self.started_at is None:
            return 0.0
        return ((self.finished_at or now()) - self.started_at).total_seconds()

    @property
    def secrets(self) -> FrozenSet[str]:
        """Keys of the secrets that it was given."""
        files = (file.secret for file in self.spec.secret_files)
        return frozenset(secret.key for secret in (*self.spec.secret_env.values(), *files))

    def lasting(self, minutes: int) -> Job:
        """Return it with another life span."""
        return dataclasses.replace(
            self, spec=dataclasses.replace(self.spec, life_span_minutes=minutes)
        )

    def moved(self, transition: Transition) -> Job:
        """Return it with one more transition."""
        return dataclasses.replace(self, transitions=self.transitions + (transition,))


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list: any of the statuses and owners, all of the tags, exact name."""

    statuses: frozenset[JobStatus] = frozenset()
    owners: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    name: Optional[str] = None
    since: Optional[datetime] = None
    until: Optional[datetime] = None

    def matches(self, job: Job) -> bool:
        """Whether a job is to be listed; `since` and `until` include a job created at that
        moment."""
        return (
            (not self.statuses or job.status in self.statuses)
            and (not self.owners or job.owner in self.owners)
            and self.tags <= frozenset(job.spec.tags)
            and (self.name is None or job.spec.name == self.name)
            and (self.since is None or job.created_at >= self.since)
            and (self.until is None or job.created_at <= self.until)
        )
