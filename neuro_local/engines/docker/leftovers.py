"""What a server that was killed leaves in a Docker engine: containers, which go on by themselves.

A file remembers which engines may hold some, since the next server may use another one, or none.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from aiodocker.containers import DockerContainer

from ...durable import write_whole
from ...errors import EngineUnavailable
from .client import FAILURES, SCHEME, Client, connect, said
from .images import LABEL_INSTANCE
from .owner import Owner

logger = logging.getLogger(__name__)


class Traces:
    """The engines of an instance that may hold containers of it: a socket's path in each line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def sockets(self) -> Sequence[Path]:
        """The sockets of these engines; none without the file."""
        try:
            return [Path(line) for line in self._file.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def add(self, socket: Path) -> None:
        """Remember an engine, before there is anything in it. Raises OSError."""
        if socket not in self.sockets:
            self._write([*self.sockets, socket])

    def remove(self, socket: Path) -> None:
        """Forget an engine that holds nothing any more. Repeatable. Raises OSError."""
        self._write([other for other in self.sockets if other != socket])

    def _write(self, sockets: Sequence[Path]) -> None:
        if sockets:
            write_whole(self._file, "".join(f"{socket}\n" for socket in sockets))
        else:
            self._file.unlink(missing_ok=True)


async def clear_all(traces: Traces, instance: str) -> None:
    """Remove what killed servers of an instance left in any engine.

    One that does not answer is asked again next time; meanwhile the log says so.
    """
    for socket in traces.sockets:
        try:
            client = await connect({"DOCKER_HOST": f"{SCHEME}{socket}"})
        except EngineUnavailable as error:
            logger.warning("jobs of an earlier server may still run: %s", error)
            continue
        try:
            await clear(client, instance, traces)
        except FAILURES as error:
            logger.warning("jobs of an earlier server may still run: %s", said(error))
        finally:
            await client.close()


async def clear(client: Client, instance: str, traces: Traces) -> None:
    """Remove the containers that an instance has in an engine. Raises one of FAILURES."""
    for container in await _containers(client, instance):
        await _remove(client, container)
    if not await _containers(client, instance):
        traces.remove(client.socket)


async def _containers(client: Client, instance: str) -> List[DockerContainer]:
    filters = json.dumps({"label": [f"{LABEL_INSTANCE}={instance}"]})
    found: List[DockerContainer] = await client.api.containers.list(all="true", filters=filters)
    return found


async def _remove(client: Client, container: DockerContainer) -> None:
    """Remove a container, and give the user what it wrote into mounted folders."""
    with suppress(*FAILURES):  # somebody else was faster
        config = _config(await container.show())
        await container.delete(force=True, v=True)
        await Owner(client).take_back(config)


def _config(details: Mapping[str, Any]) -> Dict[str, Any]:
    """Return of what a container was made as much as `Owner` needs to know."""
    mounts = [
        {
            "Type": "bind",
            "Source": mount["Source"],
            "Target": mount["Destination"],
            "ReadOnly": not mount["RW"],
        }
        for mount in details.get("Mounts") or ()
        if mount.get("Type") == "bind"
    ]
    return {
        "Image": details["Image"],
        "Labels": details["Config"]["Labels"],
        "HostConfig": {"Mounts": mounts},
    }
