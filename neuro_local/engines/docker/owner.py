"""Gives the user what jobs wrote into mounted folders.

Processes in a container are root of this machine. Where neuro-local itself is not, it could neither
change nor delete what they made.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Mapping

from .client import FAILURES, Client, said

# Of each folder all that belongs to root; links themselves, not what they lead to.
_SCRIPT = 'owner=$1; shift; exec find "$@" -xdev -user 0 -exec chown -h "$owner" {} +'

logger = logging.getLogger(__name__)


class Owner:
    """Gives mounted folders back to the user. Does nothing for one who is root, or where a
    container's root is not this machine's."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._needed = client.is_here and os.geteuid() != 0

    async def take_back(self, config: Mapping[str, Any]) -> None:
        """Make all that root owns in a container's writable mounts the user's, by means of its own
        image: `config` is what the container was made of. Failing, it says so in the log."""
        mounts = [mount for mount in config["HostConfig"]["Mounts"] if not mount["ReadOnly"]]
        if not self._needed or not mounts:
            return
        owner = f"{os.geteuid()}:{os.getegid()}"
        folders = [mount["Target"] for mount in mounts]
        helper = {
            "Image": config["Image"],
            "Labels": config["Labels"],
            "User": "0:0",
            "Entrypoint": ["sh", "-c", _SCRIPT, "sh", owner, *folders],
            "NetworkDisabled": True,
            "HostConfig": {"Mounts": mounts, "LogConfig": {"Type": "none"}},
        }
        try:
            container = await self._client.api.containers.create(helper)
            try:
                await container.start()
                code = (await container.wait())["StatusCode"]
            finally:
                await container.delete(force=True, v=True)
            if code:
                logger.warning("what root owns in %s stays its own: exit code %s", folders, code)
        except FAILURES as error:
            logger.warning("what root owns in %s stays its own: %s", folders, said(error))
