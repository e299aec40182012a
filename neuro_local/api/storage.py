"""Storage over HTTP: one URL per file or folder, the operation in the query."""

from __future__ import annotations

import json
import logging
import re
from contextlib import aclosing
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    List,
    Optional,
    Tuple,
    TypeVar,
)
from urllib.parse import parse_qsl

from aiohttp import web

from ..errors import InvalidRequest, NeuroLocalError, NotFound, StorageError
from ..services.paths import decode_path
from ..services.removal import Removed
from ..services.storage import FileStatus, StorageService
from .keys import STORAGE
from .streams import streamed

T = TypeVar("T")
Operation = Callable[[web.Request, StorageService, str], Awaitable[web.StreamResponse]]

NDJSON = "application/x-ndjson"

logger = logging.getLogger(__name__)


def routes(prefix: str) -> List[web.RouteDef]:
    """`prefix` is the path of storage_url, without a slash at its end."""

    async def handle(request: web.Request) -> web.StreamResponse:
        operation = _operation(request)
        # The router's own decoding would make %2F a separator.
        path = decode_path(_below(request.rel_url.raw_path, prefix.count("/")))
        try:
            return await operation(request, request.app[STORAGE], path)
        except NotFound:
            # Clients show this text, and it is all that the real server says.
            return web.Response(status=404, text="404: Not Found")

    methods = sorted({method for method, _ in _OPERATIONS})
    # A name may contain a line break, which a plain dot would not match.
    paths = (prefix, prefix + r"/{path:[\s\S]*}")
    return [web.route(method, path, handle) for path in paths for method in methods]


def _below(raw_path: str, levels: int) -> str:
    """Return the path without its first levels, however they were encoded."""
    return "/" + "/".join(raw_path.split("/")[1 + levels :])


def _operation(request: web.Request) -> Operation:
    name = request.query.get("op", "")
    operation = _OPERATIONS.get((request.method, name.upper()))
    if operation is None:
        known = ", ".join(op for method, op in _OPERATIONS if method == request.method)
        raise InvalidRequest(
            f"op={name!r} is not a storage operation of {request.method}; it has {known}."
        )
    return operation


async def _stat(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    return web.json_response({"FileStatus": _item(await storage.stat(path))})


async def _list(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    batches = storage.list(path)
    if _wants_ndjson(request):
        try:
            return await _stream(request, batches, lambda entry: {"FileStatus": _item(entry)})
        except NotFound:
            return web.json_response({"error": "Not found", "errno": "ENOENT"}, status=404)
    async with aclosing(batches):
        items = [_item(entry) async for batch in batches for entry in batch]
    return web.json_response({"FileStatuses": {"FileStatus": items}})


async def _open(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    async with storage.open(path) as file:
        span = _span(request, file.size)
        if span is None:
            return web.json_response(
                {"error": f"Range {request.headers['Range']!r} is not within {file.size} bytes."},
                status=416,
                headers={"Content-Range": f"bytes */{file.size}"},
            )
        response = web.StreamResponse(
            headers={"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        )
        if "Range" in request.headers:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.size}"
        response.content_length = len(span)
        await response.prepare(request)
        try:
            async for piece in file.read(span):
                await response.write(piece)
        except StorageError as error:
            # The status is out: only a broken connection tells the client that bytes are missing.
            logger.warning("Download broken off: %s", error)
            if request.transport is not None:
                request.transport.abort()
    return response


async def _disk_usage(
    request: web.Request, storage: StorageService, path: str
) -> web.StreamResponse:
    usage = await storage.disk_usage(path)
    return web.json_response({"total": usage.total, "used": usage.used, "free": usage.free})


async def _make_folders(
    request: web.Request, storage: StorageService, path: str
) -> web.StreamResponse:
    await storage.make_folders(path)
    return web.Response(status=201)


async def _create(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    await storage.create(path, request.content.iter_any())
    return web.Response(status=201)


async def _write(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    span = _content_range(request)
    await storage.write(path, span.start, _exactly(request, len(span)))
    return web.Response()


async def _delete(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    batches = storage.remove(path, recursive=_flag(request, "recursive", default=True))
    if _wants_ndjson(request):
        return await _stream(request, batches, _removed)
    async with aclosing(batches):
        async for _ in batches:
            pass
    return web.Response(status=204)


async def _rename(request: web.Request, storage: StorageService, path: str) -> web.StreamResponse:
    # The name may be no Unicode; aiohttp's own reading of the query would leave it encoded.
    query = dict(parse_qsl(request.rel_url.raw_query_string, errors="surrogateescape"))
    destination = query.get("destination", "")
    if not destination.startswith("/"):
        raise InvalidRequest(f"destination={destination!r} must be an absolute path: /user/name.")
    await storage.rename(path, destination)
    return web.Response(status=204)


_OPERATIONS: Dict[Tuple[str, str], Operation] = {
    ("GET", "GETFILESTATUS"): _stat,
    ("GET", "LISTSTATUS"): _list,
    ("GET", "OPEN"): _open,
    ("GET", "GETDISKUSAGE"): _disk_usage,
    ("PUT", "MKDIRS"): _make_folders,
    ("PUT", "CREATE"): _create,
    ("PATCH", "WRITE"): _write,
    ("DELETE", "DELETE"): _delete,
    ("POST", "RENAME"): _rename,
}


def _item(status: FileStatus) -> Dict[str, Any]:
    return {
        "path": status.path,
        "type": "DIRECTORY" if status.is_dir else "FILE",
        "length": status.size,
        "modificationTime": status.modified,
        "permission": "manage",
    }


def _removed(entry: Removed) -> Dict[str, Any]:
    return {"path": entry.path, "is_dir": entry.is_dir}


def _wants_ndjson(request: web.Request) -> bool:
    return NDJSON in request.headers.get("Accept", "")


async def _stream(
    request: web.Request,
    batches: AsyncGenerator[List[T], None],
    payload: Callable[[T], Dict[str, Any]],
) -> web.StreamResponse:
    """An error before the first entry keeps its own status; a later one becomes a line."""
    async with aclosing(batches):
        batch: Optional[List[T]] = await anext(batches, None)
        async with streamed(request, {"Content-Type": NDJSON}) as response:
            try:
                while batch is not None:
                    await response.write(b"".join(_line(payload(entry)) for entry in batch))
                    batch = await anext(batches, None)
            except NeuroLocalError as error:
                symbol = error.symbol if isinstance(error, StorageError) else "ENOENT"
                await response.write(_line({"error": str(error), "errno": symbol}))
    return response


def _line(payload: Dict[str, Any]) -> bytes:
    return json.dumps(payload).encode() + b"\n"


def _span(request: web.Request, size: int) -> Optional[range]:
    """The bytes that the Range header asks for, None if the file has none of them."""
    try:
        wanted = request.http_range
    except ValueError:
        return None
    start, stop, _ = wanted.indices(size)
    if start >= stop and "Range" in request.headers:
        return None
    return range(start, stop)


def _content_range(request: web.Request) -> range:
    header = request.headers.get("Content-Range", "")
    # More digits would not fit into a file offset.
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(?:\d+|\*)", header, re.ASCII)
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidRequest(f"Content-Range is {header!r}; WRITE needs 'bytes FIRST-LAST/*'.")
    return range(int(match[1]), int(match[2]) + 1)


async def _exactly(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body, refused before its first excess byte; a chunked one only shows late."""
    mismatch = InvalidRequest(f"The body does not have the {size} bytes of its Content-Range.")
    if request.content_length not in (None, size):
        raise mismatch
    received = 0
    async for piece in request.content.iter_any():
        received += len(piece)
        if received > size:
            raise mismatch
        yield piece
    if received < size:
        raise mismatch


def _flag(request: web.Request, name: str, *, default: bool) -> bool:
    value = request.query.get(name, str(default)).lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidRequest(f"{name}={value!r} must be true or false.")
    return value in ("true", "1")
