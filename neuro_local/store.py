"""Job records on disk: an SQLite file, so that a crash leaves every record whole.

A full disk refuses new jobs. What becomes of the others is not lost by it: their records wait in
memory for room, and are shown from there.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from .errors import StorageError
from .models import (
    Http,
    Job,
    JobFilter,
    JobSpec,
    JobStatus,
    Preset,
    Secret,
    SecretFile,
    Transition,
    Volume,
)

# What the file and those beside it need at least to be opened. Bytes.
ROOM = 128 * 1024

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    status TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_name ON jobs (name);
CREATE INDEX IF NOT EXISTS jobs_status ON jobs (status);
"""


class JobStore:
    """Keeps jobs in order of creation. Used from one thread."""

    def __init__(self, path: Path) -> None:
        self._unwritten: Dict[str, Job] = {}
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            # Of a full disk SQLite may say no more than that there was an error.
            full = shutil.disk_usage(path.parent).free < ROOM
            why = "No space left on device" if full else str(error)
            raise StorageError(f"{str(path)!r} cannot be used: {why}.", errno.EIO) from error

    def put(self, job: Job) -> None:
        """Insert the job, or replace its record. Raises StorageError for a new job if the disk has
        no room for it."""
        is_new = self.get(job.id) is None
        self._unwritten[job.id] = job
        try:
            self._write()
        except sqlite3.OperationalError as error:
            if is_new:
                del self._unwritten[job.id]
                raise StorageError(f"The job cannot be recorded: {error}.", errno.ENOSPC) from error
            logger.error("the record of %s waits in memory: %s", job.id, error)

    def get(self, id: str) -> Optional[Job]:
        """Return the job of that id, None without one."""
        if id in self._unwritten:
            return self._unwritten[id]
        row = self._db.execute("SELECT record FROM jobs WHERE id = ?", (id,)).fetchone()
        return _load(row[0]) if row else None

    def select(self, filter: JobFilter, *, newest_first: bool = False) -> Iterator[Job]:
        """Yield the matching jobs, each read when its turn comes.

        The name and the statuses are looked up by index; a tag is looked for in the records as
        text, so that few need to be parsed that do not have it. Nothing of the database is held
        between two jobs: who reads slowly is in nobody's way.
        """
        conditions, values = ["1"], []
        if filter.name is not None:
            conditions.append("name = ?")
            values.append(filter.name)
        if filter.statuses and not self._unwritten:  # those have other ones than the file says
            conditions.append(f"status IN ({','.join('?' * len(filter.statuses))})")
            values.extend(status.value for status in filter.statuses)
        for tag in filter.tags:
            conditions.append("instr(record, ?)")
            values.append(json.dumps(tag))
        query = (
            f"SELECT number FROM jobs WHERE {' AND '.join(conditions)}"
            f" ORDER BY number {'DESC' if newest_first else 'ASC'}"
        )
        for (number,) in self._db.execute(query, values).fetchall():
            row = self._db.execute("SELECT record FROM jobs WHERE number = ?", (number,)).fetchone()
            job = _load(row[0])
            job = self._unwritten.get(job.id, job)
            if filter.matches(job):
                yield job

    def close(self) -> None:
        """Close the file. Records that wait for room are written first, or lost, which the log
        says."""
        try:
            self._write()
        except sqlite3.OperationalError as error:
            logger.error("records of jobs are lost: %s", error)
        self._db.close()

    def _write(self) -> None:
        for job in list(self._unwritten.values()):
            self._db.execute(
                "INSERT INTO jobs (id, name, status, record) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
                " record = excluded.record",
                (job.id, job.spec.name, job.status.value, _dump(job)),
            )
            del self._unwritten[job.id]


def _dump(job: Job) -> str:
    def default(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        raise TypeError(f"{value!r} does not belong in a job record")

    return json.dumps(dataclasses.asdict(job), default=default)


def _load(text: str) -> Job:
    record = json.loads(text)
    record.pop("key", None)  # records made before pages had tickets
    spec = record.pop("spec")
    http = spec.pop("http")
    # Records made before there were secrets have neither.
    secret_env, secret_files = spec.pop("secret_env", {}), spec.pop("secret_files", ())
    return Job(
        spec=JobSpec(
            preset=Preset(**spec.pop("preset")),
            tags=tuple(spec.pop("tags")),
            volumes=tuple(Volume(**volume) for volume in spec.pop("volumes")),
            http=Http(**http) if http else None,
            secret_env={name: Secret(**secret) for name, secret in secret_env.items()},
            secret_files=tuple(
                SecretFile(Secret(**file["secret"]), file["target"]) for file in secret_files
            ),
            **spec,
        ),
        transitions=tuple(_transition(item) for item in record.pop("transitions")),
        **record,
    )


def _transition(item: dict[str, Any]) -> Transition:
    return Transition(
        status=JobStatus(item.pop("status")), at=datetime.fromisoformat(item.pop("at")), **item
    )
