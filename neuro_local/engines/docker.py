"""Jobs as containers of a Docker engine."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Optional, Sequence

from ..errors import EngineUnavailable
from .base import Engine, Task, TaskSpec, Tell, ignore


class DockerEngine(Engine):
    """`state` holds what must outlive a job, `instance` marks what is ours in the Docker engine;
    `registry` (host:port) is neuro-local's own, if it keeps images, and `password` opens it."""

    name = "docker"

    def __init__(
        self,
        state: Path,
        *,
        instance: str,
        registry: Optional[str],
        password: str,
        environ: Mapping[str, str],
    ) -> None:
        self._state = state
        self._instance = instance
        self._registry = registry
        self._password = password
        self._environ = environ

    async def start(self) -> None:
        raise EngineUnavailable("The Docker engine is not there yet.")

    async def run(self, spec: TaskSpec, tell: Tell = ignore) -> Task:
        raise NotImplementedError

    async def images(self) -> Sequence[str]:
        return []

    async def close(self) -> None:
        pass
