"""Jobs as containers of a Docker engine.

A job's command is process 1 of its container, as it is on the platform. Containers carry labels
with the instance and the job, publish no port, and end with neuro-local; what a killed server left
behind goes when the next one starts, on whichever engine, or with `down`.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import Any, Dict, Mapping, Optional, Sequence, Set

from ...errors import EngineUnavailable
from ..base import Engine, Task, TaskSpec, Tell, ignore, start_whole
from .client import FAILURES, connect, said
from .images import LABEL_INSTANCE, LABEL_JOB, Images
from .leftovers import Traces, clear
from .owner import Owner
from .task import DEFAULT_SIZE, DockerTask, terminal


class DockerEngine(Engine):
    """`instance` marks what is ours in the Docker engine, and `traces` remember that there is
    something; `registry` (host:port) is neuro-local's own, if it keeps images, and `password` opens
    it."""

    name = "docker"

    def __init__(
        self,
        *,
        instance: str,
        traces: Traces,
        registry: Optional[str],
        password: str,
        environ: Mapping[str, str],
    ) -> None:
        self.instance = instance
        self._traces = traces
        self._registry = registry
        self._password = password
        self._environ = environ
        self._tasks: Set[DockerTask] = set()

    async def start(self) -> None:
        self._client = await connect(self._environ)
        try:
            await clear(self._client, self.instance, self._traces)
        except FAILURES as error:
            await self._client.close()
            raise EngineUnavailable(f"The Docker engine does not work: {said(error)}.") from None
        self._traces.add(self._client.socket)
        self._images = Images(
            self._client,
            instance=self.instance,
            # In a virtual machine, this address would be another one's.
            registry=self._registry if self._client.is_here else None,
            password=self._password,
        )
        self._owner = Owner(self._client)

    async def run(self, spec: TaskSpec, tell: Tell = ignore) -> Task:
        image = await self._images.find(spec.image, spec.own, tell)
        task = DockerTask(
            self._client,
            self._images,
            self._owner,
            image=image,
            config=self._config(spec, image),
            forget=self._tasks.discard,
        )
        self._tasks.add(task)
        # Of a job that is started but once; a name helps who looks at `docker ps`.
        await start_whole(task, self._start(task, f"{spec.job_id}-{secrets.token_hex(2)}"))
        return task

    async def images(self) -> Sequence[str]:
        """References of the images that were saved as commits, sorted; those in the registry are
        its own. Raises EngineUnavailable."""
        return await self._images.saved()

    async def discard(self, image: str) -> None:
        await self._images.discard(image)

    async def close(self) -> None:
        await asyncio.gather(*(task.remove() for task in list(self._tasks)))
        with suppress(*FAILURES):
            await clear(self._client, self.instance, self._traces)
        await self._images.close()
        await self._client.close()

    async def _start(self, task: DockerTask, name: str) -> None:
        try:
            await task.start(name)
        except BaseException:
            await task.remove()
            raise

    def _config(self, spec: TaskSpec, image: Mapping[str, Any]) -> Dict[str, Any]:
        """Describe a job's container, as `/containers/create` wants it."""
        host: Dict[str, Any] = {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(mount.source),
                    "Target": mount.target,
                    "ReadOnly": mount.read_only,
                }
                for mount in spec.mounts
            ],
            # The log is ours.
            "LogConfig": {"Type": "none"},
            "ConsoleSize": [DEFAULT_SIZE.height, DEFAULT_SIZE.width],
            **self._limits(spec),
        }
        config: Dict[str, Any] = {
            "Image": image["Id"],
            "Cmd": list(spec.command) or None,
            "Hostname": spec.job_id[:12],
            "Env": [
                f"{name}={value}" for name, value in {**terminal(spec.tty), **spec.env}.items()
            ],
            "Labels": {LABEL_INSTANCE: self.instance, LABEL_JOB: spec.job_id},
            "Tty": spec.tty,
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": host,
        }
        if spec.entrypoint is not None:
            config["Entrypoint"] = list(spec.entrypoint)
        if spec.working_dir is not None:
            config["WorkingDir"] = spec.working_dir
        return config

    def _limits(self, spec: TaskSpec) -> Dict[str, Any]:
        """Return the limits of the preset, as far as the engine has them."""
        info, limits = self._client.info, {}
        memory = (spec.memory_mb or 0) * 2**20
        if memory and info.get("MemoryLimit"):
            limits["Memory"] = memory
            if info.get("SwapLimit"):  # else a job gets as much again of the machine's swap
                limits["MemorySwap"] = memory
        if memory and spec.shm:
            limits["ShmSize"] = memory
        if spec.cpu and info.get("CpuCfsQuota"):
            limits["NanoCpus"] = int(min(spec.cpu, info.get("NCPU") or spec.cpu) * 1e9)
        return limits
