"""What clients send becomes models here, or a refusal that names the value and the rule.

The rules are the platform's (its API, section 5.1), so that what runs here runs there.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from ..config import PRESETS
from ..errors import InvalidRequest, Unsupported
from ..models import (
    Http,
    Identity,
    Job,
    JobFilter,
    JobSpec,
    JobStatus,
    Preset,
    Secret,
    SecretFile,
    Volume,
)

# The platform's rule for job names, with its limits; `job-` is kept for ids.
JOB_NAME = re.compile(r"[a-z](-?[a-z0-9])*")
NAME_LENGTH = range(3, 41)
MAX_TAGS = 16
MAX_TAG_LENGTH = 256
# Of a secret's value in base64, in characters.
LONGEST_SECRET = 2**20
# The platform counts minutes in 32 bits.
MAX_LIFE_SPAN = 2**31 - 1
# How long a job may wait for a place to run. Seconds, 30 days at most.
MAX_SCHEDULE_TIMEOUT = 30 * 24 * 3600

# Accepted from the clients, for they always or often send them, and of no effect on one machine.
_IGNORED = frozenset("cluster_name org_name project_name wait_for_jobs_quota priority".split())
# What the platform does with these, neuro-local does not; said rather than ignored.
_UNSUPPORTED = {
    "pass_config": "--pass-config",
    "disk_volumes": "disk volumes (--volume disk:ID:PATH)",
    "restart_policy": "--restart",
    "privileged": "--privileged",
    "energy_schedule_name": "--energy-schedule",
}
_KNOWN = frozenset(
    "image preset_name name tags description command entrypoint working_dir http env secret_env"
    " volumes secret_volumes resources tty max_run_time_minutes schedule_timeout".split()
)


def parse_job(body: Any, to_path: Callable[[str], str], to_key: Callable[[str], str]) -> JobSpec:
    """Return what a client asks for in POST /jobs; `to_path` gives a storage URI's path, `to_key`
    a secret URI's key.

    Raises InvalidRequest, or Unsupported for what only the real platform does.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the job must be a JSON object")
    for key, what in _UNSUPPORTED.items():
        if body.get(key):
            raise Unsupported(f"neuro-local does not support {what}")
    unknown = set(body) - _KNOWN - _IGNORED - set(_UNSUPPORTED)
    if unknown:
        raise InvalidRequest(f"unknown keys in the job: {', '.join(sorted(unknown))}")
    _require_timeout(body.get("schedule_timeout"))
    volumes = _volumes(_typed(body, "volumes", list) or [], to_path)
    secret_files = _secret_files(_typed(body, "secret_volumes", list) or [], to_key)
    _require_apart([*(v.target for v in volumes), *(file.target for file in secret_files)])
    return JobSpec(
        image=_typed(body, "image", str, required=True),
        preset=_preset(_typed(body, "preset_name", str, required=True)),
        name=_name(_typed(body, "name", str)),
        tags=_tags(_typed(body, "tags", list) or []),
        description=_typed(body, "description", str),
        command=_typed(body, "command", str),
        entrypoint=_typed(body, "entrypoint", str),
        working_dir=_absolute(_typed(body, "working_dir", str), "working_dir"),
        http=_http(_typed(body, "http", dict)),
        env=_env(_typed(body, "env", dict) or {}),
        secret_env={
            name: Secret(uri, to_key(uri))
            for name, uri in _env(_typed(body, "secret_env", dict) or {}).items()
        },
        volumes=volumes,
        secret_files=secret_files,
        tty=bool(_typed(body, "tty", bool)),
        shm=bool((_typed(body, "resources", dict) or {}).get("shm")),
        life_span_minutes=_life_span(_typed(body, "max_run_time_minutes", int)),
    )


def parse_filter(query: Mapping[str, Any]) -> JobFilter:
    """Return the filter of GET /jobs. Raises InvalidRequest."""
    get_all: Callable[[str, Sequence[str]], Sequence[str]] = query.getall  # type: ignore
    return JobFilter(
        statuses=frozenset(_status(text) for text in get_all("status", ())),
        owners=frozenset(get_all("owner", ())),
        tags=frozenset(get_all("tag", ())),
        name=query.get("name"),
        since=parse_moment(query.get("since")),
        until=parse_moment(query.get("until")),
    )


def parse_count(query: Mapping[str, str], name: str) -> Optional[int]:
    """Return the number of items that a list is asked for at most, None for all. Raises
    InvalidRequest."""
    text = query.get(name)
    if text is None:
        return None
    # More digits than a listing could ever have; Python refuses to convert thousands of them.
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise InvalidRequest(f"{name} {text!r} is not a number above 0")
    return int(text)


def parse_flag(query: Mapping[str, str], name: str) -> bool:
    """Return whether a query has that option on; whatever is no yes is a no."""
    return query.get(name, "").lower() in ("1", "true")


def parse_port(text: str) -> int:
    """Return a port's number. Raises InvalidRequest."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise InvalidRequest(f"{text!r} is not a port number")
    return int(text)


def parse_secret(body: Any) -> Tuple[str, bytes]:
    """Return key and value of a secret that is to be kept. Raises InvalidRequest."""
    if not isinstance(body, dict):
        raise InvalidRequest("the secret must be a JSON object")
    key, value = (_typed(body, name, str, required=True) for name in ("key", "value"))
    if len(value) > LONGEST_SECRET:
        raise InvalidRequest(f"the value of secret {key!r} is longer than {LONGEST_SECRET} bytes")
    try:
        return key, base64.b64decode(value, validate=True)
    except ValueError:
        raise InvalidRequest(f"the value of secret {key!r} is not in base64") from None


def parse_minutes(body: Any, job: Job) -> int:
    """Return the life span that a job is to have, from PUT /jobs/ID/max_run_time_minutes: so long
    in all, or so much longer. Raises InvalidRequest."""
    wanted = {"max_run_time_minutes": 0, "additional_max_run_time_minutes": 1}
    if not isinstance(body, dict) or len(body) != 1 or not set(body) <= set(wanted):
        raise InvalidRequest(f"send exactly one of {' and '.join(wanted)}")
    ((key, minutes),) = body.items()
    _life_span(_typed(body, key, int, required=True))
    so_far = (job.spec.life_span_minutes or 0) * wanted[key]
    return int(_life_span(so_far + minutes) or 0)


def parse_command(text: Any) -> str:
    """Return the command line of an exec, not yet split. Raises InvalidRequest."""
    if not isinstance(text, str) or "\0" in text:
        raise InvalidRequest(f"the command to execute is not text without NUL characters: {text!r}")
    return text


def asks_for(query: Mapping[str, Any], identity: Identity) -> bool:
    """Whether a listing's query names this cluster, organisation and project, or none."""
    get_all: Callable[[str, Sequence[str]], Sequence[str]] = query.getall  # type: ignore
    return all(ours in get_all(key, (ours,)) for key, ours in _places(identity).items())


def require_here(body: Mapping[str, Any], identity: Identity) -> None:
    """Refuse a job for another cluster, organisation or project. Raises InvalidRequest."""
    for key, ours in _places(identity).items():
        if body.get(key) not in (None, ours):
            raise InvalidRequest(f"{key} {body[key]!r} is not on this platform; it has {ours!r}")


def _places(identity: Identity) -> Dict[str, str]:
    return {
        "cluster_name": identity.cluster,
        "org_name": identity.org,
        "project_name": identity.project,
    }


def parse_moment(text: Optional[str]) -> Optional[datetime]:
    """Return an ISO 8601 moment; without an offset it is taken as UTC. Raises InvalidRequest."""
    if not text:
        return None
    try:
        # An offset's plus sign arrives as a space where a client did not quote it.
        moment = datetime.fromisoformat(text.replace(" ", "+").replace("Z", "+00:00"))
    except ValueError:
        raise InvalidRequest(f"{text!r} is not an ISO 8601 date") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _typed(body: Dict[str, Any], key: str, kind: type, *, required: bool = False) -> Any:
    value = body.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequest(f"{key!r} is not of type {kind.__name__}: {value!r}")
    if isinstance(value, str) and "\0" in value:
        raise InvalidRequest(f"{key!r} holds a NUL character: {value!r}")
    return value


def _preset(name: str) -> Preset:
    for preset in PRESETS:
        if preset.name == name:
            return preset
    names = ", ".join(preset.name for preset in PRESETS)
    raise InvalidRequest(f"unknown preset {name!r}; this platform has {names}")


def _name(name: Optional[str]) -> Optional[str]:
    if name is None:
        return None
    if len(name) not in NAME_LENGTH or not JOB_NAME.fullmatch(name) or name.startswith("job-"):
        raise InvalidRequest(
            f"invalid job name {name!r}: 3 to 40 lower-case letters, digits and single inner "
            "hyphens, a letter first, and not starting with job-"
        )
    return name


def _tags(tags: Sequence[Any]) -> Tuple[str, ...]:
    for tag in tags:
        valid = isinstance(tag, str) and 1 <= len(tag) <= MAX_TAG_LENGTH and tag.split() == [tag]
        if not valid:
            raise InvalidRequest(f"invalid tag {tag!r}: 1 to 256 characters, no white space")
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"{len(tags)} tags are too many; a job has at most {MAX_TAGS}")
    return tuple(tags)


def _absolute(path: Optional[str], what: str) -> Optional[str]:
    if path is not None and (not path.startswith("/") or ".." in path.split("/")):
        raise InvalidRequest(f"{what} {path!r} is not an absolute path without '..'")
    return path


def _http(http: Optional[Dict[str, Any]]) -> Optional[Http]:
    if http is None:
        return None
    port = _typed(http, "port", int, required=True)
    if not 0 < port < 65536:
        raise InvalidRequest(f"{port} is not a port number")
    # Without a word on it the safe choice; the clients always send one.
    return Http(port, requires_auth=bool(http.get("requires_auth", True)))


def _env(env: Dict[str, Any]) -> Dict[str, str]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, str) or "\0" in value:
            raise InvalidRequest(f"invalid environment variable {name!r}: {value!r}")
    return env


def _volumes(volumes: Sequence[Any], to_path: Callable[[str], str]) -> Tuple[Volume, ...]:
    parsed = []
    for volume in volumes:
        uri, target = _place(volume, "src_storage_uri")
        read_only = bool(_typed(volume, "read_only", bool))
        parsed.append(Volume(uri, to_path(uri), target, read_only))
    return tuple(parsed)


def _secret_files(volumes: Sequence[Any], to_key: Callable[[str], str]) -> Tuple[SecretFile, ...]:
    places = (_place(volume, "src_secret_uri") for volume in volumes)
    return tuple(SecretFile(Secret(uri, to_key(uri)), target) for uri, target in places)


def _place(volume: Any, source: str) -> Tuple[str, str]:
    """Return the URI of a volume and where it is in the job."""
    if not isinstance(volume, dict):
        raise InvalidRequest(f"invalid volume {volume!r}")
    uri = _typed(volume, source, str, required=True)
    target = _typed(volume, "dst_path", str, required=True)
    _absolute(target, "volume path")
    return uri, target.rstrip("/") or "/"


def _require_apart(targets: Sequence[str]) -> None:
    for target in targets:
        if targets.count(target) > 1 or target == "/":
            raise InvalidRequest(f"volume path {target!r} is used twice or is the root")


def _life_span(minutes: Optional[int]) -> Optional[int]:
    if minutes is not None and minutes < 1:
        raise InvalidRequest("the life span is less than a minute; the shortest is 1m")
    if minutes is not None and minutes > MAX_LIFE_SPAN:
        raise InvalidRequest(f"the life span is too long; the longest is {MAX_LIFE_SPAN}m")
    return minutes


def _require_timeout(seconds: Any) -> None:
    """Refuse what is no time to wait for a place to run: here each job has one at once."""
    if seconds is None:
        return
    valid = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not valid or not 1 <= seconds <= MAX_SCHEDULE_TIMEOUT:
        raise InvalidRequest(
            f"invalid schedule_timeout {seconds!r}: a number of seconds, from 1 to 30 days"
        )


def _status(text: str) -> JobStatus:
    try:
        return JobStatus(text)
    except ValueError:
        raise InvalidRequest(f"unknown status {text!r}") from None
