"""What clients send becomes a job or a refusal; what they get has every field they need."""

from typing import Any, Dict

import pytest
from multidict import MultiDict

from neuro_local.api.payloads import config_payload, job_payload
from neuro_local.api.requests import parse_filter, parse_job, parse_moment
from neuro_local.errors import InvalidRequest, Unsupported
from neuro_local.models import Http, Identity, Job, JobStatus, Transition, now

MINIMAL = {"image": "ubuntu:latest", "preset_name": "cpu-small"}
SECRET = {"src_secret_uri": "secret://local/user/a"}
VOLUME = {"src_storage_uri": "storage://local/user/x", "dst_path": "/x", "read_only": True}


def parse(**fields: Any) -> Any:
    return parse_job(
        {**MINIMAL, **fields},
        lambda uri: uri.removeprefix("storage://local"),
        lambda uri: uri.removeprefix("secret://local/user/"),
    )


def test_newer_clients_request_is_understood() -> None:
    spec = parse(
        pass_config=False,
        cluster_name="local",
        org_name="neuro-local",
        project_name="user",
        name="training-x",
        tags=["project:x"],
        entrypoint="python train.py",
        http={"port": 80, "requires_auth": True},
        env={"A": "1"},
        volumes=[VOLUME],
        resources={"shm": True},
        max_run_time_minutes=1440,
    )

    assert spec.name == "training-x"
    assert spec.http == Http(80, True)
    assert spec.volumes[0].path == "/user/x" and spec.volumes[0].read_only
    assert spec.shm and spec.life_span_minutes == 1440


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"name": "ab"}, "3 to 40"),
        ({"name": "a" * 41}, "3 to 40"),
        ({"name": "Upper"}, "lower-case"),
        ({"name": "two--hyphens"}, "single inner hyphens"),
        ({"name": "job-x"}, "job-"),
        ({"tags": ["white space"]}, "white space"),
        ({"tags": [f"tag{n}" for n in range(17)]}, "at most 16"),
        ({"preset_name": "huge"}, "cpu-small"),
        ({"image": 5}, "'image'"),
        ({"unknown": 1}, "unknown keys in the job: unknown"),
        ({"working_dir": "relative"}, "absolute"),
        ({"volumes": [{**VOLUME, "dst_path": "x"}]}, "absolute"),
        ({"volumes": [{**VOLUME, "dst_path": "/x/../y"}]}, "'..'"),
        ({"volumes": [VOLUME, VOLUME]}, "used twice"),
        ({"volumes": [{**VOLUME, "dst_path": "/"}]}, "the root"),
        ({"volumes": [VOLUME], "secret_volumes": [{**SECRET, "dst_path": "/x"}]}, "used twice"),
        ({"secret_volumes": [{**SECRET, "dst_path": "x"}]}, "absolute"),
        ({"secret_volumes": [{"dst_path": "/x"}]}, "src_secret_uri"),
        ({"secret_env": {"A": 1}}, "'A'"),
        ({"max_run_time_minutes": 0}, "1m"),
        ({"http": {"port": 70000}}, "70000"),
        ({"env": {"A": 1}}, "'A'"),
    ],
)
def test_what_the_platform_refuses_is_refused(fields: Dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        parse(**fields)


@pytest.mark.parametrize("name", ["abc", "a" * 40, "a-b-c1", "x00"])
def test_names_within_the_rule_are_accepted(name: str) -> None:
    assert parse(name=name).name == name


@pytest.mark.parametrize(
    "fields, option",
    [
        ({"pass_config": True}, "--pass-config"),
        ({"restart_policy": "always"}, "--restart"),
        ({"disk_volumes": [{"src_disk_uri": "disk://local/user/a"}]}, "disk volumes"),
        ({"privileged": True}, "--privileged"),
    ],
)
def test_what_only_the_platform_does_is_named(fields: Dict[str, Any], option: str) -> None:
    with pytest.raises(Unsupported, match=option):
        parse(**fields)


def test_job_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        parse_job([], str, str)


def test_filter_reads_repeated_and_single_conditions() -> None:
    query = MultiDict(
        [("status", "running"), ("status", "suspended"), ("tag", "a"), ("tag", "b")]
        + [("name", "x"), ("being_dropped", "False"), ("since", "2026-01-01T00:00:00+00:00")]
    )

    found = parse_filter(query)

    assert found.statuses == {JobStatus.RUNNING, JobStatus.SUSPENDED}
    assert found.tags == {"a", "b"} and found.name == "x"
    assert found.since is not None and found.since.year == 2026


def test_filter_refuses_an_unknown_status() -> None:
    with pytest.raises(InvalidRequest, match="sleeping"):
        parse_filter(MultiDict([("status", "sleeping")]))


def test_moment_without_an_offset_is_utc() -> None:
    moment = parse_moment("2026-01-02T03:04:05")

    assert moment is not None and moment.isoformat() == "2026-01-02T03:04:05+00:00"


def test_moment_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="yesterday"):
        parse_moment("yesterday")


def test_finished_job_that_never_ran_has_all_times() -> None:
    created = Transition(JobStatus.PENDING, now(), "Creating")
    failed = Transition(JobStatus.FAILED, now(), "ErrImagePull", "no such image")
    job = Job("job-1", "user", parse(), (created, failed))

    history = job_payload(job, Identity(), None)["history"]

    assert history["started_at"] == history["finished_at"]
    assert history["reason"] == "ErrImagePull"
    assert "exit_code" not in history


def test_payload_never_holds_null() -> None:
    job = Job("job-1", "user", parse(), (Transition(JobStatus.PENDING, now()),))

    def nulls(value: Any) -> bool:
        if isinstance(value, dict):
            return any(nulls(item) for item in value.values())
        return value is None

    assert not nulls(job_payload(job, Identity(), None))


def test_strangers_learn_where_to_log_in_and_nothing_else() -> None:
    payload = config_payload(Identity(), "http://127.0.0.1:1", authorized=False)

    assert payload["auth_url"] == "http://127.0.0.1:1/oauth/authorize"
    assert not {"clusters", "projects", "orgs", "authorized"} & set(payload)
