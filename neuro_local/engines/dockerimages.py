"""Images of a Docker engine: those that jobs were saved as, those in our registry, all others.

Saved images are commits, under tags that hold the instance's name. An instance with a registry
keeps them there instead, so that `neuro image` finds what a job was saved as, and a job what was
pushed; what the engine has of them is a copy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import suppress
from typing import Any, Dict, Mapping, Optional, Sequence

from ..errors import SaveFailed, StartFailed
from .base import Tell
from .dockerclient import FAILURES, Client, said, status

LABEL_INSTANCE = "neuro-local.instance"
LABEL_JOB = "neuro-local.job"

# Loosely, https://pkg.go.dev/github.com/distribution/reference: the engine says what else it wants,
# but nothing gets past this that would make another path of its API.
_WORD = "[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_REFERENCE = re.compile(
    rf"{_WORD}(?::[0-9]+)?(?:/{_WORD})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?(?:@[a-z0-9]+:[a-f0-9]+)?"
)

# What Podman, which knows more registries than one, puts before a name that has none.
_HOST = re.compile("^(docker\\.io|localhost)/")

logger = logging.getLogger(__name__)


class Images:
    """`instance` is the name of this instance in the engine; `registry` its own, host:port, if it
    has one that the engine reaches, and `password` opens it."""

    def __init__(
        self, client: Client, *, instance: str, registry: Optional[str], password: str
    ) -> None:
        self._api = client.api
        self._is_podman = client.is_podman
        self._instance = instance
        self._saved = f"neuro-local/{instance}/"
        self._registry = registry
        self._auth = {"username": "neuro-local", "password": password}
        self._pulls: Dict[str, asyncio.Task[None]] = {}

    async def find(self, reference: str, own: bool, tell: Tell) -> Mapping[str, Any]:
        """Return an image as the engine describes it (`/images/NAME/json`), after pulling it where
        that is needed. Raises StartFailed with the reason ErrImagePull."""
        if not _REFERENCE.fullmatch(reference):
            raise _missing(f"{reference!r} is not the name of an image")
        try:
            if own and self._registry:
                await self._refresh(f"{self._registry}/{reference}", tell)
                found = await self._inspect(f"{self._registry}/{reference}")
            else:
                found = await self._inspect(self._saved + reference)
            if found is None and not own:
                found = await self._inspect(reference) or await self._pulled(reference, tell)
        except FAILURES as error:
            raise _missing(f"Image {reference} cannot be had: {said(error)}") from None
        if found is None:
            raise _missing(f"Image {reference} is not on this platform")
        return found

    async def keep(self, container: str, image: Mapping[str, Any], name: str) -> None:
        """Commit a container that was started from that image, as an image of that name.

        It is whole or absent, and replaces an older one. Raises SaveFailed.
        """
        prefix = f"{self._registry}/" if self._registry else self._saved
        repository, tag = _split(prefix + name)
        try:
            before = await self._inspect(f"{repository}:{tag}")
            made = (await self._commit(container, image, repository, tag))["Id"]
        except FAILURES as error:
            raise SaveFailed(f"Image {name} cannot be saved: {said(error)}.") from None
        old = before["Id"] if before else None
        try:
            if self._registry:
                await self._api.images.push(repository, tag=tag, auth=self._auth)
        except FAILURES as error:
            with suppress(*FAILURES):
                if old:
                    await self._api.images.tag(old, repository, tag=tag)
                await self._api.images.delete(made if old else f"{repository}:{tag}")
            raise SaveFailed(f"Image {name} cannot be kept: {said(error)}.") from None
        if old and old != made:
            # Nobody can name it any more; the engine refuses as long as a job or an image uses it.
            with suppress(*FAILURES):
                await self._api.images.delete(old)

    async def saved(self) -> Sequence[str]:
        """Names of the images that this instance saved as commits, sorted."""
        names = []
        for image in await self._api.images.list():
            for tag in image.get("RepoTags") or ():
                plain = _HOST.sub("", tag)
                if plain.startswith(self._saved):
                    names.append(plain.removeprefix(self._saved))
        return sorted(names)

    async def close(self) -> None:
        """Leave pulls to the engine, which keeps what it has of them."""
        for pull in self._pulls.values():
            pull.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    async def _commit(
        self, container: str, image: Mapping[str, Any], repository: str, tag: str
    ) -> Mapping[str, Any]:
        """Commit it with what the image runs by itself, rather than with what this job ran. The
        job's own labels would make whatever starts from it look like ours."""
        config = image.get("Config") or {}
        wanted = {
            "Entrypoint": config.get("Entrypoint") or [],
            "Cmd": config.get("Cmd") or [],
            "WorkingDir": config.get("WorkingDir") or "/",
            "Labels": {**(config.get("Labels") or {}), LABEL_INSTANCE: "", LABEL_JOB: ""},
        }
        return await self._api.containers.container(container).commit(
            repository=repository,
            tag=tag,
            config=wanted,
            # Podman reads these alone. For Docker, an entrypoint of no words would be the job's.
            changes=_instructions(wanted) if self._is_podman else None,
        )

    async def _refresh(self, reference: str, tell: Tell) -> None:
        """Bring the engine's copy of an own image up to date. Raises StartFailed."""
        tell(f"{reference} is pulled from this platform's registry")
        try:
            await self._pull(reference, self._auth)
        except FAILURES as error:
            raise _missing(f"Image {reference} cannot be pulled: {said(error)}") from None

    async def _pulled(self, reference: str, tell: Tell) -> Optional[Mapping[str, Any]]:
        tell(f"{reference} is pulled, which can take minutes")
        await self._pull(reference, None)
        return await self._inspect(reference)

    async def _pull(self, reference: str, auth: Optional[Mapping[str, Any]]) -> None:
        """Pull an image, once for all who wait for it, and to its end though they may leave."""
        pull = self._pulls.get(reference)
        if pull is None:
            pull = asyncio.create_task(self._pull_to_end(reference, auth))
            self._pulls[reference] = pull
            pull.add_done_callback(lambda ended: self._forget(reference, ended))
        await asyncio.shield(pull)

    async def _pull_to_end(self, reference: str, auth: Optional[Mapping[str, Any]]) -> None:
        await self._api.images.pull(reference, auth=auth)

    def _forget(self, reference: str, ended: "asyncio.Task[None]") -> None:
        del self._pulls[reference]
        if not ended.cancelled() and ended.exception() is not None:
            logger.info("pull of %s: %s", reference, ended.exception())

    async def _inspect(self, reference: str) -> Optional[Mapping[str, Any]]:
        try:
            return await self._api.images.inspect(reference)
        except FAILURES as error:
            if status(error) == 404:
                return None
            raise


def _split(name: str) -> Sequence[str]:
    """Return repository and tag."""
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


def _instructions(config: Mapping[str, Any]) -> Sequence[str]:
    """Return the lines of a Dockerfile that say the same."""
    return [
        f"ENTRYPOINT {json.dumps(config['Entrypoint'])}",
        f"CMD {json.dumps(config['Cmd'])}",
        f"WORKDIR {config['WorkingDir']}",
        *(f"LABEL {name}=" for name in (LABEL_INSTANCE, LABEL_JOB)),
    ]


def _missing(text: str) -> StartFailed:
    return StartFailed(f"{text}.", reason="ErrImagePull")
