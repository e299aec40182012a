"""Models become what clients read here, and nowhere else.

Two generations of clients read the same objects, so each carries the union of their fields;
what only one of them reads is named in the platform's API, sections 3 and 5.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..config import PRESETS
from ..engines.base import Usage
from ..models import Identity, Job, JobSpec, Preset, Transition
from .oauth import CALLBACKS, SHOW_CODE

# JSON that holds a token or a ticket. Both clients read any `+json`, and write what they receive
# as plain `application/json` into log files that every user of the machine may read.
PRIVATE_JSON = "application/vnd.neuro-local+json"


def job_payload(job: Job, identity: Identity, url: Optional[str]) -> Dict[str, Any]:
    """Return a job as both clients read it; `url` is its web page's address."""
    spec = job.spec
    payload = {
        "id": job.id,
        "owner": job.owner,
        "cluster_name": identity.cluster,
        "org_name": identity.org,
        "project_name": identity.project,
        "uri": f"job://{identity.cluster}/{identity.org}/{identity.project}/{job.id}",
        "status": job.status.value,
        "statuses": [_transition_payload(transition) for transition in job.transitions],
        "history": _history_payload(job),
        "container": _container_payload(spec),
        "name": spec.name,
        "tags": sorted(set(spec.tags)) or None,
        "description": spec.description,
        "preset_name": spec.preset.name,
        "http_url": url,
        "restart_policy": "never",
        "max_run_time_minutes": spec.life_span_minutes,
        "pass_config": False,
        "scheduler_enabled": False,
        "is_preemptible": False,
        "total_price_credits": "0",
        "price_credits_per_hour": "0",
    }
    return _without_none(payload)


def secret_payload(key: str, identity: Identity) -> Dict[str, Any]:
    """Return a secret as clients list it, without its value."""
    return {
        "key": key,
        "owner": identity.project,  # so says the platform
        "org_name": identity.org,
        "project_name": identity.project,
    }


def usage_payload(usage: Usage, timestamp: float) -> Dict[str, Any]:
    """Return what a job uses, at a moment in seconds since 1970."""
    return {
        "cpu": usage.cpu,
        "memory_bytes": usage.memory,
        "memory": usage.memory / 2**20,
        "timestamp": timestamp,
    }


def config_payload(identity: Identity, base: str, *, authorized: bool) -> Dict[str, Any]:
    """Return what a client learns at login; `base` is the server's address.

    To strangers it tells only where to log in: given clusters, the newer client would make
    itself a token instead.
    """
    payload: Dict[str, Any] = {
        "auth_url": f"{base}/oauth/authorize",
        "token_url": f"{base}/oauth/token",
        "logout_url": f"{base}/oauth/logout",
        "client_id": "neuro-local",
        "audience": base,
        "headless_callback_url": f"{base}{SHOW_CODE}",
        "callback_urls": list(CALLBACKS),
        "success_redirect_url": f"{base}/oauth/success",
    }
    if authorized:
        payload["authorized"] = True
        payload["clusters"] = [_cluster_payload(identity, base)]
        payload["orgs"] = [{"name": identity.org, "role": "owner"}]
        payload["projects"] = [
            {
                "name": identity.project,
                "cluster_name": identity.cluster,
                "org_name": identity.org,
                "role": "owner",
            }
        ]
    return payload


def _cluster_payload(identity: Identity, base: str) -> Dict[str, Any]:
    return {
        "name": identity.cluster,
        "orgs": [identity.org],
        "registry_url": base,
        "storage_url": f"{base}/storage",
        "users_url": f"{base}/api/v1/users",
        "monitoring_url": f"{base}/monitoring/jobs",
        "secrets_url": f"{base}/secrets",
        "disks_url": f"{base}/disk",
        "buckets_url": f"{base}/buckets",
        "resource_pool_types": [],
        "resource_presets": [_preset_payload(preset) for preset in PRESETS],
    }


def _preset_payload(preset: Preset) -> Dict[str, Any]:
    return {
        "name": preset.name,
        **_resources_payload(preset),
        "credits_per_hour": "0",
        "scheduler_enabled": False,
        "preemptible_node": False,
        "is_preemptible": False,
        "is_preemptible_node_required": False,
        "resource_pool_names": [],
        "available_resource_pool_names": [],
    }


def _resources_payload(preset: Preset) -> Dict[str, Any]:
    return {"cpu": preset.cpu, "memory": preset.memory_mb * 2**20, "memory_mb": preset.memory_mb}


def _container_payload(spec: JobSpec) -> Dict[str, Any]:
    http = spec.http
    return _without_none(
        {
            "image": spec.image,
            "entrypoint": spec.entrypoint,
            "command": spec.command,
            "working_dir": spec.working_dir,
            "tty": spec.tty,
            "env": dict(spec.env),
            "http": {"port": http.port, "requires_auth": http.requires_auth} if http else None,
            "resources": {**_resources_payload(spec.preset), "shm": spec.shm},
            "volumes": [
                {"src_storage_uri": v.uri, "dst_path": v.target, "read_only": v.read_only}
                for v in spec.volumes
            ],
            "secret_env": {name: secret.uri for name, secret in spec.secret_env.items()},
            "secret_volumes": [
                {"src_secret_uri": file.secret.uri, "dst_path": file.target}
                for file in spec.secret_files
            ],
        }
    )


def _history_payload(job: Job) -> Dict[str, Any]:
    return _without_none(
        {
            "status": job.status.value,
            "reason": job.last.reason or "",
            "description": job.last.description or "",
            "restarts": 0,
            "created_at": job.created_at.isoformat(),
            "started_at": job.started_at.isoformat() if job.started_at else None,
            "finished_at": job.finished_at.isoformat() if job.finished_at else None,
            "run_time_seconds": job.run_time_seconds(),
            "exit_code": job.last.exit_code,
        }
    )


def _transition_payload(transition: Transition) -> Dict[str, Any]:
    return _without_none(
        {
            "status": transition.status.value,
            "transition_time": transition.at.isoformat(),
            "reason": transition.reason or "",
            "description": transition.description or "",
            "exit_code": transition.exit_code,
        }
    )


def _without_none(payload: Dict[str, Any]) -> Dict[str, Any]:
    # Both clients take an absent key for "not set" and stumble over a null.
    return {key: value for key, value in payload.items() if value is not None}
