"""Job records on disk: an SQLite file, so that a crash leaves every record whole."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator, Optional

from .models import Http, Job, JobFilter, JobSpec, JobStatus, Preset, Transition, Volume

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
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(_SCHEMA)

    def put(self, job: Job) -> None:
        """Insert the job, or replace its record."""
        self._db.execute(
            "INSERT INTO jobs (id, name, status, record) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET status = excluded.status, record = excluded.record",
            (job.id, job.spec.name, job.status.value, _dump(job)),
        )

    def get(self, id: str) -> Optional[Job]:
        row = self._db.execute("SELECT record FROM jobs WHERE id = ?", (id,)).fetchone()
        return _load(row[0]) if row else None

    def select(self, filter: JobFilter, *, newest_first: bool = False) -> Iterator[Job]:
        """Yield the matching jobs; the name and the statuses are looked up by index."""
        conditions, values = ["1"], []
        if filter.name is not None:
            conditions.append("name = ?")
            values.append(filter.name)
        if filter.statuses:
            conditions.append(f"status IN ({','.join('?' * len(filter.statuses))})")
            values.extend(status.value for status in filter.statuses)
        query = (
            f"SELECT record FROM jobs WHERE {' AND '.join(conditions)}"
            f" ORDER BY number {'DESC' if newest_first else 'ASC'}"
        )
        jobs = (_load(row[0]) for row in self._db.execute(query, values))
        return (job for job in jobs if filter.matches(job))

    def close(self) -> None:
        self._db.close()


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
    return Job(
        spec=JobSpec(
            preset=Preset(**spec.pop("preset")),
            tags=tuple(spec.pop("tags")),
            volumes=tuple(Volume(**volume) for volume in spec.pop("volumes")),
            http=Http(**http) if http else None,
            **spec,
        ),
        transitions=tuple(_transition(item) for item in record.pop("transitions")),
        **record,
    )


def _transition(item: dict[str, Any]) -> Transition:
    return Transition(
        status=JobStatus(item.pop("status")), at=datetime.fromisoformat(item.pop("at")), **item
    )
