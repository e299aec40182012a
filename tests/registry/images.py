"""Images made of bytes, pushed over HTTP as docker does it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Dict, Mapping, Optional

from conformance.conftest import unchunked
from conformance.wire import Answer, Server

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def login(server: Server, user: str = "token") -> Dict[str, str]:
    """Return the header that docker and the clients send."""
    pair = base64.b64encode(f"{user}:{server.token}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


async def ask(
    server: Server,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Optional[Mapping[str, str]] = None,
) -> Answer:
    """Ask as docker does; the answer's body is whole."""
    answer = await server.ask(method, target, body, {**login(server), **(headers or {})})
    if answer.headers.get("transfer-encoding") == "chunked" and method != "HEAD":
        return Answer(answer.status, answer.headers, unchunked(answer.body))
    return answer


def path_of(answer: Answer) -> str:
    """Return where an upload goes on: a path, for the registry server knows no address."""
    location = answer.headers["location"]
    assert location.startswith("/v2/"), location
    return location


def joined(location: str, query: str) -> str:
    return location + ("&" if "?" in location else "?") + query


async def push_blob(server: Server, name: str, data: bytes) -> str:
    """Upload a blob in one piece, and return its digest."""
    started = await ask(server, "POST", f"/v2/{name}/blobs/uploads/")
    assert started.status == 202, started
    target = joined(path_of(started), f"digest={digest_of(data)}")
    kind = {"Content-Type": "application/octet-stream"}
    done = await ask(server, "PUT", target, data, kind)
    assert done.status == 201, done
    return digest_of(data)


async def push_image(server: Server, image: str, layer: bytes = b"a layer") -> str:
    """Push `NAME:TAG`, made of one layer, and return the digest of its manifest."""
    name, _, tag = image.rpartition(":")
    config = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _part("application/vnd.docker.container.image.v1+json", config),
        "layers": [_part("application/vnd.docker.image.rootfs.diff.tar.gzip", layer)],
    }
    for data in config, layer:
        await push_blob(server, name, data)
    body = json.dumps(manifest).encode()
    target = f"/v2/{name}/manifests/{tag}"
    answer = await ask(server, "PUT", target, body, {"Content-Type": MANIFEST})
    assert answer.status == 201, answer
    assert answer.headers["docker-content-digest"] == digest_of(body)
    return digest_of(body)


def _part(kind: str, data: bytes) -> Dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": digest_of(data)}
