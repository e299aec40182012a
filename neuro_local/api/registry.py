"""The image registry, `/v2/`: the Docker Registry HTTP API V2 behind the platform's token.

https://distribution.github.io/distribution/spec/api

A registry server does the work. Of ours are who may come in, one name for what the two clients
spell differently, and what can be listed without such a server.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from contextlib import suppress
from typing import Dict, List, Optional, Protocol, Sequence, Tuple
from urllib.parse import urlencode

import aiohttp
from aiohttp import BasicAuth, web
from aiohttp.typedefs import Handler

from ..engines.base import REGISTRY_USER
from ..errors import EngineUnavailable, InvalidRequest, NeuroLocalError, Unauthorized, Unsupported
from ..services.images import ImageService
from .keys import IDENTITY, IMAGES
from .middleware import is_gone, refusal, status_of
from .requests import parse_count
from .upstream import Upstream

ROOT = "/v2/"
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
# Without it neither docker nor the clients send what they know.
CHALLENGE = {"WWW-Authenticate": 'Basic realm="neuro-local"'}

# The path of an image of ours, whose repository may be `PROJECT/NAME`.
MANIFEST = re.compile("([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)/manifests/([^/]+)")

UPSTREAM: web.AppKey[Optional[Upstream]] = web.AppKey("UPSTREAM", Upstream)

# Why the sandbox engine lacks one. Its images are folders, not layers that docker could load.
SANDBOX = "the sandbox engine keeps no Docker images; `neuro-local up --engine docker` does"

logger = logging.getLogger(__name__)


class RegistryRefusal(NeuroLocalError):
    """An answer of the registry that is an error, with the code that the specification gives."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Shelf(Protocol):
    """Where images are listed from."""

    async def repositories(self) -> Sequence[str]:
        """Return the names of all repositories that hold a tag. Raises EngineUnavailable, OSError
        or aiohttp.ClientError when what keeps them does not answer."""

    async def tags(self, repository: str) -> Sequence[str]:
        """Return the tags of a repository, none for an unknown one. Raises as `repositories`
        does."""


class SavedImages:
    """The images that the engine itself keeps: those that jobs were saved as without a registry."""

    def __init__(self, images: ImageService) -> None:
        self._images = images

    async def repositories(self) -> Sequence[str]:
        return sorted({repository for repository, _ in await self._all()})

    async def tags(self, repository: str) -> Sequence[str]:
        return sorted(tag for name, tag in await self._all() if name == repository)

    async def digest(self, repository: str, reference: str) -> Optional[str]:
        """Return what the clients shall take for the digest of a tag, which they ask for in order
        to remove it; None for none of these images. An engine knows no digest of what it never
        pushed."""
        return _handle(repository, reference) if reference in await self.tags(repository) else None

    async def remove(self, repository: str, digest: str) -> bool:
        """Remove the tag of that digest, and return whether there was one. Raises
        EngineUnavailable."""
        for tag in await self.tags(repository):
            if _handle(repository, tag) == digest:
                await self._images.discard(f"{repository}:{tag}")
                return True
        return False

    async def _all(self) -> List[Tuple[str, str]]:
        split = (image.rpartition(":") for image in await self._images.saved())
        return [(repository, tag) for repository, _, tag in split]


class Joined:
    """All that is on some shelves."""

    def __init__(self, *shelves: Shelf) -> None:
        self._shelves = shelves

    async def repositories(self) -> Sequence[str]:
        return sorted({name for shelf in self._shelves for name in await shelf.repositories()})

    async def tags(self, repository: str) -> Sequence[str]:
        return sorted({tag for shelf in self._shelves for tag in await shelf.tags(repository)})


@web.middleware
async def registry_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give errors under `/v2/` the form that docker reads, beside the one of all others."""
    if f"{request.path}/" != ROOT and not request.path.startswith(ROOT):
        return await handler(request)
    try:
        return await _or_broken_off(request, handler)
    except NeuroLocalError as error:
        status, code = status_of(error), "UNKNOWN"
        if isinstance(error, RegistryRefusal):
            status, code = error.status, error.code
        elif isinstance(error, Unauthorized):
            code = "UNAUTHORIZED"
        response = refusal(status, str(error), errors=[{"code": code, "message": str(error)}])
        response.headers.update(VERSION)
        if isinstance(error, Unauthorized):
            response.headers.update(CHALLENGE)
        return response


async def _or_broken_off(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises RegistryRefusal where the registry server does not answer, or not to the end."""
    try:
        return await handler(request)
    except (OSError, aiohttp.ClientError, asyncio.TimeoutError) as error:
        if is_gone(request):
            return web.Response(status=400)  # to nobody
        logger.warning("%s %s: %s", request.method, request.path, error)
        upstream = request.app[UPSTREAM]
        missing = upstream.missing if upstream is not None else None
        text = missing or f"the registry server broke off: {error}"
        raise RegistryRefusal(503, "UNAVAILABLE", text) from None


async def hello(request: web.Request) -> web.Response:
    """Tell docker, which asks this first, that its login is right."""
    return web.json_response({}, headers=VERSION)


async def get_catalogue(request: web.Request) -> web.Response:
    """List the repositories, as `PROJECT/NAME`, which both clients take for one of their own."""
    names, link = _page(request, await _shelf(request).repositories())
    return web.json_response({"repositories": names}, headers={**VERSION, **link})


async def get_tags(request: web.Request) -> web.Response:
    """`GET /v2/{name:.+}/tags/list`: 200 with a page of the image's tags; 404 (NAME_UNKNOWN) for an
    unknown image, 400 for a page size that is no number above 0."""
    name = request.match_info["name"]
    known = await _shelf(request).tags(name.removeprefix(f"{request.app[IDENTITY].org}/"))
    if not known:
        raise RegistryRefusal(404, "NAME_UNKNOWN", f"there is no image {name} on this platform")
    tags, link = _page(request, known)
    return web.json_response({"name": name, "tags": tags}, headers={**VERSION, **link})


async def pass_on(request: web.Request) -> web.StreamResponse:
    """Leave everything else to the registry server."""
    upstream = request.app[UPSTREAM]
    if upstream is None:
        raise _listed_only(request, SANDBOX)
    answer = await _about_saved(request, upstream)
    if answer is not None:
        return answer
    if upstream.missing is not None:
        raise _listed_only(request, upstream.missing)
    return await upstream.forward(request, _registry_path(request))


async def _about_saved(request: web.Request, upstream: Upstream) -> Optional[web.Response]:
    """Answer what is asked of the images that the engine itself has: which digest one has, and to
    remove it, as well as its copy of one that the registry loses. None for all else."""
    org = f"{request.app[IDENTITY].org}/"
    asked = MANIFEST.fullmatch(request.match_info["path"].removeprefix(org))
    if asked is None or request.method not in ("HEAD", "DELETE") or _is_engine(request):
        return None
    repository, reference = asked.groups()
    images = request.app[IMAGES]
    saved = SavedImages(images)
    if request.method == "HEAD":
        if await upstream.has(f"{repository}:{reference}"):
            return None
        digest = await saved.digest(repository, reference)
        if digest is None:
            return None
        return web.Response(headers={**VERSION, "Docker-Content-Digest": digest})
    lost = None if upstream.missing else await upstream.remove(repository, reference)
    if lost is None and not await saved.remove(repository, reference):
        return None
    for tag in lost or ():
        # The image is gone, whether or not the copy is.
        with suppress(EngineUnavailable, Unsupported):
            await images.discard(f"{repository}:{tag}")
    return web.Response(status=202, headers=VERSION)


def _listed_only(request: web.Request, reason: str) -> RegistryRefusal:
    reading = request.method in ("GET", "HEAD")
    status, code = (404, "MANIFEST_UNKNOWN") if reading else (405, "UNSUPPORTED")
    return RegistryRefusal(status, code, f"images can only be listed here: {reason}")


def _is_engine(request: web.Request) -> bool:
    """Whether it is the engine that asks, which cannot pull what it has itself."""
    with suppress(ValueError):  # a token alone
        return BasicAuth.decode(request.headers.get("Authorization", "")).login == REGISTRY_USER
    return False


def _handle(repository: str, tag: str) -> str:
    return "sha256:" + hashlib.sha256(f"{repository}:{tag}".encode()).hexdigest()


def routes() -> List[web.RouteDef]:
    """Return the routes of the registry; the last one takes what no other of them does."""
    return [
        web.get("/v2", hello),
        web.get(ROOT, hello),
        web.get("/v2/_catalog", get_catalogue),
        web.get("/v2/{name:.+}/tags/list", get_tags),
        # A plain dot would not match a line break.
        web.route("*", r"/v2/{path:[\s\S]*}", pass_on),
    ]


def _shelf(request: web.Request) -> Shelf:
    upstream, saved = request.app[UPSTREAM], SavedImages(request.app[IMAGES])
    if upstream is None or upstream.missing is not None:
        return saved
    return Joined(upstream, saved)


def _page(request: web.Request, items: Sequence[str]) -> Tuple[Sequence[str], Dict[str, str]]:
    """Return the page of a sorted list that is asked for, and the header that leads to the next.

    Raises RegistryRefusal.
    """
    last = request.query.get("last", "")
    rest = [item for item in sorted(items) if item > last]
    try:
        size = parse_count(request.query, "n")
    except InvalidRequest as error:
        raise RegistryRefusal(400, "PAGINATION_NUMBER_INVALID", str(error)) from None
    page = rest[:size]
    if len(page) == len(rest):
        return page, {}
    query = urlencode({"last": page[-1], "n": size})
    return page, {"Link": f'<{request.rel_url.raw_path}?{query}>; rel="next"'}


def _registry_path(request: web.Request) -> str:
    """Return the path and query of a request as the registry server knows them: repositories are
    kept without the organisation, which only the newer client names."""
    org = re.escape(request.app[IDENTITY].org)
    path, mark, query = request.raw_path.partition("?")
    path = re.sub(f"^/v2/{org}/(.+/(manifests|blobs)/)", r"/v2/\1", path)
    query = re.sub(f"(^|&)from={org}(/|%2F)", r"\1from=", query, flags=re.IGNORECASE)
    return path + mark + query
