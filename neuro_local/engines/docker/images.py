"""Images of a Docker engine: those that jobs were saved as, those in our registry, all others.

Saved images are commits, under tags that hold the instance's name. An instance with a registry
keeps them there instead, so that `neuro image` finds what a job was saved as, and a job what was
pushed; what the engine has of them is a copy. Commits from before it had one go on counting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import suppress
from typing import Any, Dict, Mapping, Optional, Sequence, Set

from ...errors import EngineUnavailable, SaveFailed, StartFailed
from ..base import REGISTRY_USER, Tell
from .client import FAILURES, Client, gone, is_gone, said, status

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
        self._auth = {"username": REGISTRY_USER, "password": password}
        self._pulls: Dict[str, asyncio.Task[None]] = {}
        self._discarded: Set[str] = set()

    async def find(self, reference: str, own: bool, tell: Tell) -> Mapping[str, Any]:
        """Return an image as the engine describes it (`/images/NAME/json`), after pulling it where
        that is needed. Raises StartFailed with the reason ErrImagePull, and EngineUnavailable."""
        if not _REFERENCE.fullmatch(reference):
            raise _missing(f"{reference!r} is not the name of an image")
        try:
            if own and self._registry and await self._refreshed(reference, tell):
                found = await self._inspect(f"{self._registry}/{reference}")
            else:
                found = await self._inspect(self._saved + reference)
            if found is None and not own:
                found = await self._inspect(reference) or await self._pulled(reference, tell)
        except FAILURES as error:
            if is_gone(error):
                raise gone(error) from None
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
        self._discarded.discard(prefix + name)
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
            with suppress(*FAILURES):
                await self._delete_unnamed(old)

    async def discard(self, name: str) -> None:
        """Remove what the engine has under a name of our own, be it a commit or a copy; what a job
        still runs from goes in the end. Raises EngineUnavailable."""
        for prefix in self._prefixes:
            await self._delete(prefix + name)

    async def saved(self) -> Sequence[str]:
        """Names of the images that this instance saved as commits, sorted. Raises
        EngineUnavailable."""
        names = []
        try:
            images = await self._api.images.list()
        except FAILURES as error:
            raise gone(error) from None
        for image in images:
            for tag in image.get("RepoTags") or ():
                plain = _HOST.sub("", tag)
                if plain.startswith(self._saved):
                    names.append(plain.removeprefix(self._saved))
        return sorted(names)

    async def close(self) -> None:
        """Remove what was discarded while jobs ran from it. Leave pulls to the engine, which keeps
        what it has of them."""
        with suppress(EngineUnavailable):
            for image in sorted(self._discarded):
                await self._delete(image)
        for pull in self._pulls.values():
            pull.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    @property
    def _prefixes(self) -> Sequence[str]:
        return [self._saved, f"{self._registry}/"] if self._registry else [self._saved]

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

    async def _refreshed(self, reference: str, tell: Tell) -> bool:
        """Bring the engine's copy of an image in our registry up to date, and return whether that
        has it."""
        tell(f"{self._registry}/{reference} is pulled from this platform's registry")
        try:
            await self._pull(f"{self._registry}/{reference}", self._auth)
        except FAILURES as error:
            if status(error) == 404:
                return False
            raise
        self._discarded.discard(f"{self._registry}/{reference}")
        return True

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

    async def _delete(self, image: str) -> None:
        """Delete an image of our own, now or, if a container is of it, in the end."""
        try:
            await self._api.images.delete(image)
        except FAILURES as error:
            if is_gone(error):
                raise gone(error) from None
            if status(error) != 404:
                self._discarded.add(image)
                logger.info("image %s stays for now: %s", image, said(error))

    async def _delete_unnamed(self, image: str) -> None:
        """Delete an image that nobody can name any more: what the user gave a name, or uses in a
        container, stays."""
        if not (await self._api.images.inspect(image)).get("RepoTags"):
            await self._api.images.delete(image)

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
