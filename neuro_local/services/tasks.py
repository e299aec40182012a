"""What an engine is told of a job: words for text, folders for URIs, values for secrets."""

from __future__ import annotations

import shlex
from typing import Dict, List, Optional, Sequence

from ..engines.base import Mount, TaskSpec
from ..errors import InvalidRequest
from ..models import Identity, Job, JobSpec
from .images import ImageService
from .secrets import SecretService
from .storage import StorageService


class TaskSpecs:
    """Looks up what a job needs: its image, the folders of its volumes, its secrets."""

    def __init__(
        self,
        identity: Identity,
        storage: StorageService,
        images: ImageService,
        secrets: SecretService,
    ) -> None:
        self._identity = identity
        self._storage = storage
        self._images = images
        self._secrets = secrets

    async def of(self, job: Job) -> TaskSpec:
        """Raises StartFailed for an image or a secret that is not here, StorageError for a volume
        that cannot be."""
        spec = job.spec
        self._secrets.require(job.secrets)
        return TaskSpec(
            job_id=job.id,
            image=await self._images.to_run(spec.image),
            own=self._images.is_own(spec.image),
            entrypoint=words(spec.entrypoint, "entrypoint") if spec.entrypoint else None,
            command=words(spec.command, "command"),
            working_dir=spec.working_dir,
            env={**self._platform_env(job), **spec.env, **self._secret_env(spec)},
            mounts=self._mounts(spec),
            tty=spec.tty,
            cpu=spec.preset.cpu,
            memory_mb=spec.preset.memory_mb,
            shm=spec.shm,
        )

    def _mounts(self, spec: JobSpec) -> List[Mount]:
        volumes = [
            Mount(self._storage.resolve_for_mount(volume.path), volume.target, volume.read_only)
            for volume in spec.volumes
        ]
        files = [
            Mount(self._secrets.file(file.secret.key), file.target, read_only=True)
            for file in spec.secret_files
        ]
        return volumes + files

    def _secret_env(self, spec: JobSpec) -> Dict[str, str]:
        return {name: self._secrets.as_text(secret.key) for name, secret in spec.secret_env.items()}

    def _platform_env(self, job: Job) -> Dict[str, str]:
        env = {
            "NEURO_JOB_ID": job.id,
            "NEURO_JOB_NAME": job.spec.name or "",
            "NEURO_JOB_OWNER": job.owner,
            "NEURO_JOB_CLUSTER": self._identity.cluster,
            "NEURO_JOB_PRESET": job.spec.preset.name,
        }
        if job.spec.http is not None:
            env["NEURO_JOB_HTTP_PORT"] = str(job.spec.http.port)
            env["NEURO_JOB_HTTP_AUTH"] = str(job.spec.http.requires_auth)
        return env


def words(text: Optional[str], what: str) -> Sequence[str]:
    """Split a command line as the platform does. Raises InvalidRequest."""
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise InvalidRequest(f"{what} {text!r} does not split into shell words: {error}") from None
