"""Jobs: what is accepted, what is shown of them, how they are found and ended."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List
from urllib.parse import urlencode

import pytest
from e2e.platform import Job, Platform

import neuro_local
from neuro_local.models import Identity

from .conftest import NDJSON, has_error, lines, server_of, unchunked
from .wire import Answer, Server

JOBS = "/api/v1/jobs"
IDENTITY = Identity()
# What either client stops without.
JOB = """id owner cluster_name uri status history container pass_config project_name org_name
    scheduler_enabled total_price_credits price_credits_per_hour is_preemptible"""
HISTORY = "status reason description restarts created_at run_time_seconds"
UUID4 = r"job-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture
def ended(platform: Platform) -> Iterator[List[str]]:
    """Names of jobs that end with the test."""
    names: List[str] = []
    yield names
    for name in names:
        platform.end_job(name)


async def submit(server: Server, **fields: Any) -> Answer:
    body = {"image": "python", "preset_name": "cpu-small", "pass_config": False, **fields}
    return await server.ask("POST", f"{JOBS}?from_preset", json.dumps(body).encode())


async def found(server: Server, **query: Any) -> List[Dict[str, Any]]:
    """List jobs both ways; both must give the same."""
    target = f"{JOBS}?{urlencode(query, doseq=True)}"
    plain = await server.ask("GET", target)
    streamed = await server.ask("GET", target, headers=NDJSON)
    assert (plain.status, streamed.status) == (200, 200)
    jobs = json_of(plain)["jobs"]
    assert [job["id"] for job in jobs] == [job["id"] for job in lines(streamed)]
    return jobs


def json_of(answer: Answer) -> Any:
    """Return the object of an answer of either length."""
    if answer.headers.get("transfer-encoding") == "chunked":
        answer = Answer(answer.status, answer.headers, unchunked(answer.body))
    return answer.json()


def has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_null(item) for item in value.values())
    return any(has_null(item) for item in value) if isinstance(value, list) else value is None


# The job as clients see it


@pytest.mark.real_server
async def test_accepted_job_is_shown_with_all_that_either_client_needs(
    server: Server, ended: List[str]
) -> None:
    ended.append("conformance-whole")
    volume = {
        "src_storage_uri": f"storage://local/{IDENTITY.org}/user/conformance-whole",
        "dst_path": "/data",
        "read_only": True,
    }
    asked = {
        "name": "conformance-whole",
        "tags": ["b", "a", "b"],
        "description": "for a test",
        "entrypoint": "sleep 600",
        "working_dir": "/tmp",
        "http": {"port": 80, "requires_auth": True},
        "env": {"A": "b"},
        "volumes": [volume],
        "resources": {"shm": True},
        "max_run_time_minutes": 1440,
        "cluster_name": IDENTITY.cluster,
        "org_name": IDENTITY.org,
        "project_name": IDENTITY.project,
    }

    answer = await submit(server, **asked)

    job = answer.json()
    assert answer.status == 202
    assert set(JOB.split()) <= set(job) and set(HISTORY.split()) <= set(job["history"])
    assert not has_null(job)
    assert re.fullmatch(UUID4, job["id"])
    place = f"{IDENTITY.cluster}/{IDENTITY.org}/{IDENTITY.project}"
    assert job["uri"] == f"job://{place}/{job['id']}"
    assert job["tags"] == ["a", "b"]
    for key in ("name", "description", "max_run_time_minutes"):
        assert job[key] == asked[key]
    container = job["container"]
    for key in ("entrypoint", "working_dir", "http", "env", "volumes"):
        assert container[key] == asked[key]
    assert {"cpu", "memory", "memory_mb"} <= set(container["resources"])


@pytest.mark.real_server
async def test_job_that_asked_for_little_has_no_empty_fields(
    server: Server, ended: List[str]
) -> None:
    job = (await submit(server, entrypoint="sleep 600")).json()
    ended.append(job["id"])

    assert not has_null(job)
    assert not {"name", "tags", "description", "http_url", "max_run_time_minutes"} & set(job)
    assert "http" not in job["container"]


@pytest.mark.real_server
async def test_image_is_shown_as_it_was_asked_for(server: Server, ended: List[str]) -> None:
    image = f"127.0.0.1:{server.port}/{IDENTITY.org}/user/none:v1"

    job = (await submit(server, image=image)).json()

    ended.append(job["id"])
    assert job["container"]["image"] == image


@pytest.mark.real_server
async def test_ended_job_has_both_moments_and_its_code(server: Server, finished: Job) -> None:
    job = (await server.ask("GET", f"{JOBS}/{finished.id}")).json()

    history = job["history"]
    assert (job["status"], history["status"]) == ("failed", "failed")
    assert (history["reason"], history["exit_code"]) == ("Error", 3)
    moments = [history[key] for key in ("created_at", "started_at", "finished_at")]
    parsed = [datetime.fromisoformat(moment) for moment in moments]
    assert parsed == sorted(parsed)
    assert all(moment.utcoffset() is not None for moment in parsed)
    assert [step["status"] for step in job["statuses"]] == ["pending", "running", "failed"]


@pytest.mark.real_server
async def test_job_that_never_ran_has_both_moments_too(server: Server, platform: Platform) -> None:
    job = (await submit(server, image=f"127.0.0.1:{server.port}/user/none:v1")).json()

    platform.wait_for(job["id"], "failed")

    history = (await server.ask("GET", f"{JOBS}/{job['id']}")).json()["history"]
    assert history["reason"] == "ErrImagePull"
    assert history["started_at"] == history["finished_at"]
    assert "exit_code" not in history


# Finding jobs


@pytest.mark.real_server
@pytest.mark.parametrize("key", ["id", "name"])
async def test_job_is_found_by_id_and_by_name(server: Server, sleeper: Job, key: str) -> None:
    answer = await server.ask("GET", f"{JOBS}/{getattr(sleeper, key)}")

    assert (answer.status, answer.json()["id"]) == (200, sleeper.id)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("unknown", marks=pytest.mark.real_server),
        pytest.param("job-00000000-0000-4000-8000-000000000000", marks=pytest.mark.real_server),
        "%20",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_unknown_job_is_400(server: Server, method: str, name: str) -> None:
    assert has_error(await server.ask(method, f"{JOBS}/{name}"), 400, "no such job")


MATCHING: List[Dict[str, Any]] = [
    {"name": "conformance-sleeper"},
    {"name": "conformance-sleeper", "status": "running"},
    {"name": "conformance-sleeper", "status": ["pending", "running"]},
    {"name": "conformance-sleeper", "owner": ["nobody", "user"]},
    {"name": "conformance-sleeper", "being_dropped": "False", "logs_removed": "False"},
    {"name": "conformance-sleeper", "cluster_name": "local"},
    {
        "name": "conformance-sleeper",
        "project_name": IDENTITY.project,
        "org_name": IDENTITY.org,
        "cluster_name": IDENTITY.cluster,
        "reverse": "1",
        "limit": "1",
    },
    {"name": "conformance-sleeper", "project_name": ["other", IDENTITY.project]},
    {"name": "conformance-sleeper", "since": "2020-01-01T00:00:00+00:00"},
    {"name": "conformance-sleeper", "until": "2120-01-01T00:00:00+05:30"},
]


@pytest.mark.real_server
@pytest.mark.parametrize("query", MATCHING, ids=urlencode)
async def test_listing_finds(server: Server, sleeper: Job, query: Dict[str, Any]) -> None:
    assert [job["id"] for job in await found(server, **query)] == [sleeper.id]


ELSEWHERE: List[Dict[str, Any]] = [
    {"name": "conformance"},
    {"name": "conformance-sleeper", "status": ["failed", "suspended"]},
    {"name": "conformance-sleeper", "owner": "nobody"},
    {"name": "conformance-sleeper", "tag": "none"},
    {"name": "conformance-sleeper", "project_name": "other"},
    {"name": "conformance-sleeper", "org_name": "other"},
    {"name": "conformance-sleeper", "cluster_name": "other"},
    {"name": "conformance-sleeper", "since": "2120-01-01T00:00:00+00:00"},
    {"name": "conformance-sleeper", "until": "2020-01-01T00:00:00+00:00"},
]


@pytest.mark.real_server
@pytest.mark.parametrize("query", ELSEWHERE, ids=urlencode)
async def test_listing_of_what_is_not_there_is_empty_and_no_failure(
    server: Server, sleeper: Job, query: Dict[str, Any]
) -> None:
    assert await found(server, **query) == []


@pytest.mark.real_server
async def test_bounds_of_a_listing_are_part_of_it(server: Server, sleeper: Job) -> None:
    created = (await server.ask("GET", f"{JOBS}/{sleeper.id}")).json()["history"]["created_at"]

    jobs = await found(server, since=created, until=created, name=sleeper.name)

    assert [job["id"] for job in jobs] == [sleeper.id]


@pytest.mark.real_server
async def test_tags_of_a_listing_are_all_needed(
    server: Server, start_job: Callable[..., Job]
) -> None:
    both = start_job("sleep 600", tags=["conformance:1", "conformance:2"])
    one = start_job("sleep 600", tags=["conformance:1"])

    assert len(await found(server, tag="conformance:1")) == 2
    jobs = await found(server, tag=["conformance:1", "conformance:2"])
    assert [job["id"] for job in jobs] == [both.id]
    tags = (await server.ask("GET", "/api/v1/tags")).json()["tags"]
    assert {"conformance:1", "conformance:2"} <= set(tags)
    assert one.id != both.id


@pytest.mark.real_server
async def test_oldest_job_is_first_unless_told_otherwise(
    server: Server, start_job: Callable[..., Job]
) -> None:
    ids = [start_job("sleep 600", tags=["conformance:order"]).id for _ in range(3)]

    async def listed(**query: Any) -> List[str]:
        return [job["id"] for job in await found(server, tag="conformance:order", **query)]

    assert await listed() == ids
    assert await listed(reverse="1") == ids[::-1]
    assert await listed(limit="2") == ids[:2]
    assert await listed(reverse="1", limit="1") == ids[-1:]
    assert await listed(limit="9" * 18) == ids


@pytest.mark.parametrize(
    "query, words",
    [
        ("status=unknown", "unknown status 'unknown'"),
        ("since=yesterday", "is not an ISO 8601 date"),
        ("until=1", "is not an ISO 8601 date"),
        ("limit=0", "is not a number above 0"),
        ("limit=-1", "is not a number above 0"),
        ("limit=x", "is not a number above 0"),
        ("limit=%D9%A3", "is not a number above 0"),
        ("limit=" + "9" * 5000, "is not a number above 0"),
    ],
    ids=lambda text: text[:20],
)
async def test_listing_that_makes_no_sense_is_refused(
    server: Server, query: str, words: str
) -> None:
    assert has_error(await server.ask("GET", f"{JOBS}?{query}"), 400, words)


# Ending jobs, and names


@pytest.mark.real_server
async def test_killed_job_is_cancelled_at_once_and_killing_is_repeatable(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job("sleep 600")

    for _ in range(2):
        answer = await server.ask("DELETE", f"{JOBS}/{job.name}")
        assert (answer.status, answer.body) == (204, b"")
        shown = (await server.ask("GET", f"{JOBS}/{job.id}")).json()
        assert (shown["status"], shown["history"]["reason"]) == ("cancelled", "UserRequested")


@pytest.mark.real_server
async def test_ended_job_can_be_killed_and_stays_as_it_ended(server: Server, finished: Job) -> None:
    assert (await server.ask("DELETE", f"{JOBS}/{finished.id}")).status == 204

    assert (await server.ask("GET", f"{JOBS}/{finished.id}")).json()["status"] == "failed"


@pytest.mark.real_server
async def test_name_of_an_unfinished_job_is_taken(server: Server, sleeper: Job) -> None:
    answer = await submit(server, name=sleeper.name)

    taken = f"with name '{sleeper.name}' and project '{IDENTITY.project}' already exists"
    assert has_error(answer, 400, f"Failed to create job: job {taken}: '{sleeper.id}'")


@pytest.mark.real_server
async def test_name_is_free_after_the_kill_and_means_the_newest_job(
    server: Server, start_job: Callable[..., Job]
) -> None:
    first = start_job("sleep 600", name="conformance-again")
    await server.ask("DELETE", f"{JOBS}/{first.id}")

    second = start_job("sleep 600", name="conformance-again")

    assert (await server.ask("GET", f"{JOBS}/conformance-again")).json()["id"] == second.id
    newest = await found(server, name="conformance-again", reverse="1", limit="1")
    assert [job["id"] for job in newest] == [second.id]


async def test_one_of_many_jobs_gets_the_name(
    server: Server, platform: Platform, ended: List[str]
) -> None:
    ended.append("conformance-race")
    answers = await asyncio.gather(
        *(submit(server, name="conformance-race", entrypoint="sleep 600") for _ in range(8))
    )

    assert sorted(answer.status for answer in answers) == [202] + 7 * [400]
    assert len(platform.jobs(name="conformance-race")) == 1


# What it runs


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"command": "echo 'a  b' $HOME"}, b"a  b $HOME\n"),
        ({"entrypoint": "echo x", "command": "y 'z  z'"}, b"x y z  z\n"),
        ({"entrypoint": "echo x"}, b"x\n"),
    ],
    ids=str,
)
async def test_command_is_split_without_a_shell_and_follows_the_entrypoint(
    server: Server, platform: Platform, asked: Dict[str, str], said: bytes
) -> None:
    job = (await submit(server, **asked)).json()

    platform.wait_for(job["id"], "succeeded")

    assert asked.items() <= job["container"].items()
    log = await server.ask("GET", f"/monitoring/jobs/{job['id']}/log")
    assert unchunked(log.body) == said


async def test_job_learns_who_it_is(server: Server, platform: Platform) -> None:
    asked = {"name": "conformance-env", "http": {"port": 8080, "requires_auth": False}}
    job = (await submit(server, **asked, command="env")).json()

    platform.wait_for(job["id"], "succeeded")

    log = await server.ask("GET", f"/monitoring/jobs/{job['id']}/log")
    pairs = [line.partition("=") for line in unchunked(log.body).decode().splitlines()]
    prefix = "NEURO_JOB_"
    # No host name: jobs do not reach each other here, which the table of differences says.
    assert {name.removeprefix(prefix): v for name, _, v in pairs if name.startswith(prefix)} == {
        "ID": job["id"],
        "NAME": "conformance-env",
        "OWNER": IDENTITY.user,
        "CLUSTER": IDENTITY.cluster,
        "PRESET": "cpu-small",
        "HTTP_PORT": "8080",
        "HTTP_AUTH": "False",
    }
    assert not [key for key in job if key.startswith("internal_hostname")]
    readme = Path(neuro_local.__file__).with_name("README.md").read_text()
    assert "NEURO_JOB_INTERNAL_HOSTNAME" in readme


# What is refused, by rules of the platform's API that nobody has seen at work, and by our own.

VOLUME = {"src_storage_uri": "storage://local/user/a", "dst_path": "/a", "read_only": True}
SECRET = {"src_secret_uri": "secret://local/user/key", "dst_path": "/a"}
NAME_RULE = "3 to 40 lower-case letters, digits and single inner hyphens"
NO_NAMES = ["", "ab", "a" * 41, "Abc", "1abc", "a--b", "ab-", "-ab", "a_b", "a b", "job-abc", "äöü"]
NO_TAGS: List[Any] = ["", " ", "a b", "a\n", "x" * 257, 1, None, ["a"]]
NO_PATHS = ["a", "", "a/b", "../a", "/a/../b", "/.."]
NO_TIMES: List[Any] = [0, 0.9, -1, 30 * 24 * 3600 + 1, 1e400, float("nan"), "60", True, [1]]


@pytest.mark.parametrize(
    "fields, words",
    [
        *(({"name": name}, f"invalid job name {name!r}: {NAME_RULE}") for name in NO_NAMES),
        ({"name": 1}, "'name' is not of type str: 1"),
        *(({"tags": ["ok", tag]}, f"invalid tag {tag!r}: 1 to 256") for tag in NO_TAGS),
        ({"tags": [str(n) for n in range(17)]}, "17 tags are too many; a job has at most 16"),
        ({"tags": "text"}, "'tags' is not of type list"),
        ({"preset_name": "gpu"}, "unknown preset 'gpu'; this platform has cpu-small, cpu-large"),
        ({"preset_name": None}, "'preset_name' is not of type str: None"),
        ({"image": None}, "'image' is not of type str: None"),
        *(({"working_dir": path}, "is not an absolute path without") for path in NO_PATHS),
        *(
            ({"volumes": [{**VOLUME, "dst_path": path}]}, "is not an absolute path without")
            for path in NO_PATHS
        ),
        ({"volumes": [VOLUME, VOLUME]}, "volume path '/a' is used twice or is the root"),
        ({"volumes": [VOLUME], "secret_volumes": [SECRET]}, "volume path '/a' is used twice"),
        ({"volumes": [{**VOLUME, "dst_path": "/"}]}, "volume path '/' is used twice or is the"),
        ({"volumes": [{**VOLUME, "src_storage_uri": "storage://x/user"}]}, "storage://x/user"),
        ({"volumes": [{"dst_path": "/a"}]}, "'src_storage_uri' is not of type str: None"),
        ({"volumes": ["/a"]}, "invalid volume '/a'"),
        ({"secret_volumes": [{**SECRET, "src_secret_uri": "secret://x/user/k"}]}, "secret://x/"),
        ({"command": "echo 'a"}, "does not split into shell words"),
        ({"entrypoint": 'a "b'}, "does not split into shell words"),
        *(({"schedule_timeout": time}, "invalid schedule_timeout") for time in NO_TIMES),
        ({"cluster_name": "other"}, "cluster_name 'other' is not on this platform"),
        ({"org_name": "other"}, "org_name 'other' is not on this platform"),
        ({"project_name": "other"}, "project_name 'other' is not on this platform"),
        ({"entrypoint": "echo a\0b"}, "holds a NUL character"),
        ({"image": "a\0b"}, "holds a NUL character"),
        ({"working_dir": "/a\0b"}, "holds a NUL character"),
        ({"env": {"A": "\0"}}, "invalid environment variable"),
        ({"max_run_time_minutes": 0}, "the shortest is 1m"),
        ({"max_run_time_minutes": 10**400}, "the longest is"),
        ({"max_run_time_minutes": 1e300}, "is not of type int"),
        ({"surprise": 1}, "unknown keys in the job: surprise"),
        ({"http": {"port": 10**30}}, "is not a port number"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_job_that_cannot_be_is_refused(
    server: Server, platform: Platform, fields: Dict[str, Any], words: str
) -> None:
    before = len(platform.jobs())

    assert has_error(await submit(server, **fields), 400, words)

    assert len(platform.jobs()) == before


@pytest.mark.parametrize("seconds", [1, 60.5, 30 * 24 * 3600])
async def test_time_to_wait_for_a_place_is_accepted(
    server: Server, platform: Platform, seconds: float
) -> None:
    job = (await submit(server, schedule_timeout=seconds, entrypoint="true")).json()

    platform.wait_for(job["id"], "succeeded")


@pytest.mark.parametrize("fields", [{"pass_config": True}, {"restart_policy": "always"}])
async def test_job_that_only_the_platform_can_run_is_refused_by_name(
    server: Server, fields: Dict[str, Any]
) -> None:
    assert has_error(await submit(server, **fields), 501, "neuro-local does not support --")


async def test_environment_may_hold_what_is_no_unicode(
    server: Server, platform: Platform, ended: List[str]
) -> None:
    """A client sends a byte of its own environment that is no UTF-8 as half a surrogate pair."""
    job = (await submit(server, env={"A": "\udcff"}, entrypoint="printenv A")).json()

    platform.wait_for(job["id"], "succeeded")

    log = await server.ask("GET", f"/monitoring/jobs/{job['id']}/log")
    assert unchunked(log.body) == b"\xff\n"


# A longer life


async def set_minutes(server: Server, job: Job, **minutes: Any) -> Answer:
    target = f"{JOBS}/{job.id}/max_run_time_minutes"
    return await server.ask("PUT", target, json.dumps(minutes).encode())


@pytest.mark.parametrize(
    "before, change, after",
    [
        (5, {"additional_max_run_time_minutes": 10}, 15),
        (5, {"max_run_time_minutes": 10}, 10),
        (None, {"additional_max_run_time_minutes": 10}, 10),
    ],
)
async def test_life_span_can_be_changed(
    server: Server,
    start_job: Callable[..., Job],
    before: Any,
    change: Dict[str, int],
    after: int,
) -> None:
    job = start_job("sleep 600", max_run_time_minutes=before)

    answer = await set_minutes(server, job, **change)

    assert (answer.status, answer.body) == (204, b"")
    shown = (await server.ask("GET", f"{JOBS}/{job.id}")).json()
    assert (shown["max_run_time_minutes"], shown["status"]) == (after, "running")


async def test_two_who_make_a_life_longer_at_once_both_do(
    server: Server, start_job: Callable[..., Job]
) -> None:
    job = start_job("sleep 600", max_run_time_minutes=5)
    target = f"{JOBS}/{job.id}/max_run_time_minutes"
    body = json.dumps({"additional_max_run_time_minutes": 10}).encode()

    async with server.connected() as slow:
        await slow.send(server.head("PUT", target, {"Content-Length": str(len(body))}) + body[:5])
        assert (await set_minutes(server, job, additional_max_run_time_minutes=10)).status == 204
        await slow.send(body[5:])
        assert (await slow.answer()).status == 204

    shown = (await server.ask("GET", f"{JOBS}/{job.id}")).json()
    assert shown["max_run_time_minutes"] == 25


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_run_time_minutes": 1, "additional_max_run_time_minutes": 1},
        {"max_run_time_minutes": 0},
        {"additional_max_run_time_minutes": -1},
        {"additional_max_run_time_minutes": "1"},
        {"additional_max_run_time_minutes": 2**31 - 1},
        {"minutes": 1},
    ],
    ids=str,
)
async def test_life_span_that_cannot_be_is_refused(
    server: Server, start_job: Callable[..., Job], change: Dict[str, Any]
) -> None:
    job = start_job("sleep 600", max_run_time_minutes=5)

    assert (await set_minutes(server, job, **change)).status == 400

    shown = (await server.ask("GET", f"{JOBS}/{job.id}")).json()
    assert shown["max_run_time_minutes"] == 5


async def test_life_span_of_an_ended_job_changes_its_record_alone(
    server: Server, finished: Job
) -> None:
    assert (await set_minutes(server, finished, max_run_time_minutes=10)).status == 204

    shown = (await server.ask("GET", f"{JOBS}/{finished.id}")).json()
    assert (shown["max_run_time_minutes"], shown["status"]) == (10, "failed")


async def test_job_that_runs_out_of_its_life_span_is_cancelled(
    start_instance: Callable[..., Platform],
) -> None:
    own = start_instance(settings={"NEURO_LOCAL_MINUTE": "0.5"})
    job = own.start_job("sleep 600", max_run_time_minutes=1)

    own.wait_for(job.id, "cancelled")

    shown = (await server_of(own).ask("GET", f"{JOBS}/{job.id}")).json()
    assert shown["history"]["reason"] == "LifeSpanEnded"
    assert shown["history"]["run_time_seconds"] >= 0.5


async def test_life_span_of_an_unknown_job_is_400(server: Server) -> None:
    answer = await server.ask("PUT", f"{JOBS}/unknown/max_run_time_minutes", b"{}")

    assert has_error(answer, 400, "no such job")
