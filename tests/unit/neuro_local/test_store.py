"""Job records survive the server, and are found by what clients filter on."""

import dataclasses
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Iterator, List

import pytest

from neuro_local import store as store_module
from neuro_local.errors import StorageError
from neuro_local.models import (
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
    now,
)
from neuro_local.store import JobStore

# Not the moment of a test: the first may run an hour before the last.
START = now()
SPEC = JobSpec(
    image="ubuntu:latest",
    preset=Preset("cpu-small", 1, 1024),
    name="one",
    tags=("a", "b"),
    http=Http(80, True),
    env={"NAME": "value"},
    secret_env={"TOKEN": Secret("secret://local/user/a", "a")},
    volumes=(Volume("storage://local/user/x", "/user/x", "/x", True),),
    secret_files=(SecretFile(Secret("secret://local/user/b", "b"), "/b"),),
    life_span_minutes=1,
)


def job(number: int, **spec: object) -> Job:
    created = Transition(JobStatus.PENDING, START + timedelta(seconds=number), "Creating")
    changed = dataclasses.replace(SPEC, **spec)  # type: ignore[arg-type]
    return Job(f"job-{number}", "user", changed, (created,))


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs.db")


def ids(store: JobStore, filter: JobFilter, newest_first: bool = False) -> List[str]:
    return [found.id for found in store.select(filter, newest_first=newest_first)]


def test_job_comes_back_equal_from_a_new_store(store: JobStore, tmp_path: Path) -> None:
    ended = Transition(JobStatus.FAILED, now(), "Error", "text", exit_code=7)
    first = job(1).moved(ended)
    store.put(first)
    store.close()

    assert JobStore(tmp_path / "jobs.db").get("job-1") == first


def test_record_of_an_earlier_version_is_read(store: JobStore, tmp_path: Path) -> None:
    store.put(job(1))
    with sqlite3.connect(tmp_path / "jobs.db") as db:
        db.execute("UPDATE jobs SET record = json_set(record, '$.key', 'old')")

    assert store.get("job-1") is not None


def test_unknown_job_is_none(store: JobStore) -> None:
    assert store.get("job-1") is None


def test_newer_record_replaces_the_older(store: JobStore) -> None:
    store.put(job(1))
    store.put(job(1).moved(Transition(JobStatus.RUNNING, now())))

    assert ids(store, JobFilter(statuses=frozenset({JobStatus.PENDING}))) == []
    assert ids(store, JobFilter(statuses=frozenset({JobStatus.RUNNING}))) == ["job-1"]


def test_order_is_that_of_creation(store: JobStore) -> None:
    for number in (2, 1, 3):
        store.put(job(number))

    assert ids(store, JobFilter()) == ["job-2", "job-1", "job-3"]
    assert ids(store, JobFilter(), newest_first=True) == ["job-3", "job-1", "job-2"]


@pytest.mark.parametrize(
    "filter, found",
    [
        (JobFilter(name="two"), ["job-2"]),
        (JobFilter(tags=frozenset({"a"})), ["job-1"]),
        (JobFilter(tags=frozenset({"a", "c"})), []),
        (JobFilter(owners=frozenset({"user", "other"})), ["job-1", "job-2"]),
        (JobFilter(owners=frozenset({"other"})), []),
        (JobFilter(since=START + timedelta(minutes=30)), ["job-2"]),
        (JobFilter(until=START + timedelta(minutes=30)), ["job-1"]),
        (JobFilter(name="two", tags=frozenset({"a"})), []),
    ],
)
def test_every_condition_counts(store: JobStore, filter: JobFilter, found: List[str]) -> None:
    store.put(job(0, name="one"))
    store.put(job(3600, name="two", tags=("c",)))

    names = {"job-0": "job-1", "job-3600": "job-2"}
    assert [names[id] for id in ids(store, filter)] == found


@pytest.fixture
def full(store: JobStore) -> Iterator[JobStore]:
    """A store with one job, whose disk has no room for more."""
    store.put(job(1))
    allow(store, 0)
    yield store


def allow(store: JobStore, pages: int) -> None:
    """Limit the file to its present size, or lift the limit again."""
    store._db.execute(f"PRAGMA max_page_count = {pages or 1}")


def test_full_disk_refuses_a_new_job_and_keeps_no_trace_of_it(full: JobStore) -> None:
    with pytest.raises(StorageError, match="full") as refusal:
        full.put(job(2, env={"LONG": "x" * 100_000}))

    assert refusal.value.symbol == "ENOSPC"
    assert ids(full, JobFilter()) == ["job-1"]


def test_what_becomes_of_a_job_is_known_on_a_full_disk_and_kept_with_room(
    full: JobStore, tmp_path: Path
) -> None:
    ended = job(1, env={"LONG": "x" * 100_000}).moved(Transition(JobStatus.FAILED, now()))

    full.put(ended)

    assert full.get("job-1") == ended
    assert ids(full, JobFilter(statuses=frozenset({JobStatus.FAILED}))) == ["job-1"]
    assert ids(full, JobFilter(statuses=frozenset({JobStatus.PENDING}))) == []
    assert JobStore(tmp_path / "jobs.db").get("job-1") != ended
    allow(full, 10_000)
    full.put(job(3))
    assert JobStore(tmp_path / "jobs.db").get("job-1") == ended


def test_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("something else " * 100)

    with pytest.raises(StorageError, match="jobs.db' cannot be used"):
        JobStore(tmp_path / "jobs.db")


def test_records_are_read_only_as_far_as_they_are_asked_for(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        store.put(job(number, tags=("rare",) if number == 40 else ("usual",)))
    parsed: List[str] = []
    load = store_module._load

    def counted(text: str) -> Job:
        parsed.append(text)
        return load(text)

    monkeypatch.setattr(store_module, "_load", counted)

    assert next(store.select(JobFilter(), newest_first=True)).id == "job-49"
    assert len(parsed) == 1
    assert ids(store, JobFilter(tags=frozenset({"rare"}))) == ["job-40"]
    assert len(parsed) == 2


def test_job_that_changes_while_others_are_read_is_as_it_is_when_its_turn_comes(
    store: JobStore,
) -> None:
    for number in range(3):
        store.put(job(number))
    found = store.select(JobFilter(statuses=frozenset({JobStatus.PENDING})))
    assert next(found).id == "job-0"

    store.put(job(1).moved(Transition(JobStatus.RUNNING, now())))
    store.put(job(3))

    assert [later.id for later in found] == ["job-2"]
