"""The registry server seen over its socket: what it keeps, and requests passed on to it."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, Dict, List, Mapping, Optional, Sequence

import aiohttp
from aiohttp import web
from yarl import URL

from ..passing import HOP_BY_HOP, pass_answer
from ..registry import RegistryServer

# The token is ours; the host is of no use there, since all its addresses are relative.
OURS = HOP_BY_HOP | {"authorization", "host", "cookie", "expect"}

# The most that the server lists at once.
PAGE = 100

HERE = URL("http://registry")


class Upstream:
    """Speaks HTTP with a registry server."""

    def __init__(self, server: RegistryServer) -> None:
        self._server = server
        self._session: Optional[aiohttp.ClientSession] = None

    @property
    def missing(self) -> Optional[str]:
        """Why there is no registry, and what to do; None if there is one."""
        return self._server.missing

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Run the registry server for as long as the application runs."""
        await self._server.start()
        if self.missing is None:
            self._session = aiohttp.ClientSession(
                # A connection for each request: one that is kept may have ended with the server.
                connector=aiohttp.UnixConnector(self._server.socket, limit=0, force_close=True),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        yield
        if self._session is not None:
            await self._session.close()
        await self._server.close()

    async def repositories(self) -> Sequence[str]:
        """Names of all repositories that hold a tag; the server also lists emptied ones."""
        names: List[str] = []
        page: Optional[URL] = HERE / "v2/_catalog" % {"n": str(PAGE)}
        while page is not None:
            async with self._open().get(page) as answer:
                names.extend((await _content(answer))["repositories"])
                page = URL(answer.links["next"]["url"]) if "next" in answer.links else None
        tags = await asyncio.gather(*(self.tags(name) for name in names))
        return [name for name, found in zip(names, tags) if found]

    async def tags(self, repository: str) -> Sequence[str]:
        """Tags of a repository; none for one that does not exist."""
        async with self._open().get(HERE / "v2" / repository / "tags/list") as answer:
            if answer.status == 404:
                return []
            # Null, after the last one was removed.
            return (await _content(answer))["tags"] or []

    async def has(self, image: str) -> bool:
        """Whether `REPOSITORY:TAG` is here."""
        repository, _, tag = image.rpartition(":")
        return self.missing is None and tag in await self.tags(repository)

    async def remove(self, repository: str, digest: str) -> Optional[Sequence[str]]:
        """Remove the image of that digest, and return the tags that are lost with it; None if the
        server refuses."""
        before = await self.tags(repository)
        manifest = HERE / "v2" / repository / "manifests" / digest
        async with self._open().delete(manifest) as answer:
            if not answer.ok:
                return None
        left = await self.tags(repository)
        return [tag for tag in before if tag not in left]

    async def forward(self, request: web.Request, path: str) -> web.StreamResponse:
        """Pass a request on, to a path with its query, and the answer back; bodies of gigabytes
        pass in pieces. Raises aiohttp.ClientError when the server does not answer."""
        async with self._open().request(
            request.method,
            HERE.join(URL(path, encoded=True)),
            headers=_forwarded(request.headers),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            return await pass_answer(request, answer)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise aiohttp.ClientConnectionError("the registry server does not run")
        return self._session


def _forwarded(headers: Mapping[str, str]) -> Dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in OURS}


async def _content(answer: aiohttp.ClientResponse) -> Dict[str, Any]:
    answer.raise_for_status()
    content: Dict[str, Any] = await answer.json()
    return content
