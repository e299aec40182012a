"""The registry's API as docker and the two clients use it, byte by byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import List

import pytest
from conformance.wire import Answer, Server

from neuro_local.config import Settings
from neuro_local.models import Identity
from neuro_local.registry import SOCKET

from .conftest import Serving, registry_server, serving
from .images import (
    MANIFEST,
    ask,
    digest_of,
    joined,
    login,
    path_of,
    push_blob,
    push_image,
)

ORG = Identity().org
MISSING = "sha256:" + 64 * "0"
ACCEPT = {"Accept": MANIFEST}


def code_of(answer: Answer) -> str:
    """Return the code of an error, in the form that docker reads."""
    (error,) = answer.json()["errors"]
    assert error["message"]
    return str(error["code"])


# Who may come in

DOORS = [
    ("GET", "/v2"),
    ("GET", "/v2/"),
    ("GET", "/v2/_catalog"),
    ("GET", "/v2/user/x/tags/list"),
    ("HEAD", "/v2/user/x/manifests/latest"),
    ("GET", "/v2/user/x/manifests/latest"),
    ("PUT", "/v2/user/x/manifests/latest"),
    ("DELETE", f"/v2/user/x/manifests/{MISSING}"),
    ("GET", f"/v2/user/x/blobs/{MISSING}"),
    ("DELETE", f"/v2/user/x/blobs/{MISSING}"),
    ("POST", "/v2/user/x/blobs/uploads/"),
    ("PATCH", "/v2/user/x/blobs/uploads/1"),
    ("PUT", "/v2/user/x/blobs/uploads/1"),
    ("OPTIONS", "/v2/user/x/blobs/uploads/1"),
]


async def test_stranger_is_asked_to_log_in_whatever_he_wants(served: Serving) -> None:
    for method, target in DOORS:
        for credential in "", "Basic !!!", "Basic " + base64.b64encode(b"token:x").decode():
            field = f"Authorization: {credential}\r\n" if credential else ""
            said = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{field}Connection: close\r\n\r\n"

            answer = await served.server.say(said.encode())

            assert answer.status == 401, (method, target)
            # What docker's handshake looks for.
            assert answer.headers["www-authenticate"] == 'Basic realm="neuro-local"'
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
            if method != "HEAD":
                assert code_of(answer) == "UNAUTHORIZED"


@pytest.mark.parametrize("user", ["token", "user", ""])
async def test_token_as_the_password_of_any_user_opens(served: Serving, user: str) -> None:
    answer = await served.server.ask("GET", "/v2/", headers=login(served.server, user))

    assert answer.status == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


async def test_registry_server_never_sees_the_token(served: Serving) -> None:
    await push_image(served.server, "user/base:v1")
    await ask(served.server, "GET", "/v2/user/none/manifests/v1")

    log = (served.settings.state / "registry.log").read_text()

    assert "manifest unknown" in log
    assert served.server.token not in log
    assert base64.b64encode(f"token:{served.server.token}".encode()).decode() not in log


# Names

BOTH = [f"{ORG}/user/base", "user/base"]


@pytest.mark.parametrize("pushed", BOTH)
@pytest.mark.parametrize("asked", BOTH)
async def test_both_spellings_name_one_image(served: Serving, pushed: str, asked: str) -> None:
    digest = await push_image(served.server, f"{pushed}:v1")

    head = await ask(served.server, "HEAD", f"/v2/{asked}/manifests/v1", headers=ACCEPT)
    tags = await ask(served.server, "GET", f"/v2/{asked}/tags/list?n=30")
    blob = await ask(served.server, "GET", f"/v2/{asked}/blobs/{digest_of(b'a layer')}")
    names = await ask(served.server, "GET", "/v2/_catalog?n=30")

    assert (head.status, head.headers["docker-content-digest"]) == (200, digest)
    assert tags.json() == {"name": asked, "tags": ["v1"]}
    assert (blob.status, blob.body) == (200, b"a layer")
    assert names.json() == {"repositories": ["user/base"]}


@pytest.mark.parametrize("separator", ["/", "%2F"])
@pytest.mark.parametrize("order", ["mount={0}&from={1}", "from={1}&mount={0}"])
async def test_blob_is_mounted_from_a_repository_in_either_spelling(
    served: Serving, separator: str, order: str
) -> None:
    digest = await push_blob(served.server, "user/base", b"shared")
    source = f"{ORG}/user/base".replace("/", separator)

    target = f"/v2/{ORG}/user/other/blobs/uploads/?" + order.format(digest, source)
    answer = await ask(served.server, "POST", target)

    assert answer.status == 201, answer  # 202 would ask for an upload
    copy = await ask(served.server, "GET", f"/v2/user/other/blobs/{digest}")
    assert copy.body == b"shared"


# Listing


async def follow(server: Server, target: str, key: str) -> List[List[str]]:
    """Return all pages of a list, as a client goes from one to the next."""
    pages = []
    while target:
        answer = await ask(server, "GET", target)
        pages.append(answer.json()[key])
        link = answer.headers.get("link", "")
        target = link.partition("<")[2].partition(">")[0]
        assert not link or link.endswith('; rel="next"')
    return pages


async def test_catalogue_comes_in_pages(served: Serving) -> None:
    for number in range(5):
        await push_image(served.server, f"user/image-{number}:v1")

    pages = await follow(served.server, "/v2/_catalog?n=2", "repositories")

    names = [f"user/image-{number}" for number in range(5)]
    assert pages == [names[:2], names[2:4], names[4:]]
    assert await follow(served.server, "/v2/_catalog", "repositories") == [names]


async def test_more_repositories_than_the_registry_server_lists_at_once_are_all_there(
    served: Serving,
) -> None:
    for number in range(101):
        await push_image(served.server, f"user/image-{number}:v1")

    pages = await follow(served.server, "/v2/_catalog?n=30", "repositories")

    assert [len(page) for page in pages] == [30, 30, 30, 11]
    assert len({name for page in pages for name in page}) == 101


async def test_tags_come_in_pages(served: Serving) -> None:
    for tag in "c", "a", "b":
        await push_image(served.server, f"user/base:{tag}")

    pages = await follow(served.server, f"/v2/{ORG}/user/base/tags/list?n=2", "tags")

    assert pages == [["a", "b"], ["c"]]


@pytest.mark.parametrize("size", ["0", "-1", "x", "9" * 5000, ""], ids="{:.9}".format)
async def test_page_size_that_is_none_is_refused(served: Serving, size: str) -> None:
    answer = await ask(served.server, "GET", f"/v2/_catalog?n={size}")

    assert (answer.status, code_of(answer)) == (400, "PAGINATION_NUMBER_INVALID")


async def test_image_that_lost_its_last_tag_is_not_listed(served: Serving) -> None:
    kept = await push_image(served.server, "user/kept:v1", b"kept")
    digest = await push_image(served.server, "user/base:v1", b"removed")

    answer = await ask(served.server, "DELETE", f"/v2/{ORG}/user/base/manifests/{digest}")

    assert answer.status == 202
    names = await ask(served.server, "GET", "/v2/_catalog")
    assert names.json() == {"repositories": ["user/kept"]}
    tags = await ask(served.server, "GET", "/v2/user/base/tags/list")
    assert (tags.status, code_of(tags)) == (404, "NAME_UNKNOWN")
    head = await ask(served.server, "HEAD", "/v2/user/kept/manifests/v1", headers=ACCEPT)
    assert head.headers["docker-content-digest"] == kept


# Uploads


async def test_blob_goes_up_in_pieces(served: Serving) -> None:
    pieces = [os.urandom(3 * 2**20), os.urandom(2**20), b"end"]
    data = b"".join(pieces)
    answer = await ask(served.server, "POST", f"/v2/{ORG}/user/base/blobs/uploads/")
    start = 0

    for piece in pieces:
        span = {"Content-Range": f"{start}-{start + len(piece) - 1}"}
        answer = await ask(served.server, "PATCH", path_of(answer), piece, span)
        start += len(piece)
        assert (answer.status, answer.headers["range"]) == (202, f"0-{start - 1}")

    target = joined(path_of(answer), f"digest={digest_of(data)}")
    assert (await ask(served.server, "PUT", target)).status == 201
    blob = await ask(served.server, "GET", f"/v2/user/base/blobs/{digest_of(data)}")
    assert blob.body == data


async def test_blob_of_unknown_length_passes_in_chunks_without_being_held(served: Serving) -> None:
    """As docker sends its layers: the more, the less may they gather in neuro-local."""
    piece, count = os.urandom(2**20), 300
    digest = hashlib.sha256()
    started = await ask(served.server, "POST", "/v2/user/base/blobs/uploads/")
    head = served.server.head(
        "PATCH", path_of(started), {**login(served.server), "Transfer-Encoding": "chunked"}
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak is of what follows
    before = peak_memory()

    async with served.server.connected() as wire:
        await wire.send(head)
        for _ in range(count):
            digest.update(piece)
            await wire.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await wire.send(b"0\r\n\r\n")
        answer = await wire.answer()

    assert (answer.status, answer.headers["range"]) == (202, f"0-{count * len(piece) - 1}")
    target = joined(path_of(answer), f"digest=sha256:{digest.hexdigest()}")
    assert (await ask(served.server, "PUT", target)).status == 201
    assert peak_memory() - before < 64 * 2**20


def peak_memory() -> int:
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


async def test_part_of_a_blob_can_be_asked_for(served: Serving) -> None:
    digest = await push_blob(served.server, "user/base", b"0123456789")

    target = f"/v2/user/base/blobs/{digest}"
    answer = await ask(served.server, "GET", target, headers={"Range": "bytes=3-5"})

    assert (answer.status, answer.body) == (206, b"345")
    assert answer.headers["content-range"] == "bytes 3-5/10"


async def test_blob_is_looked_up_without_its_content(served: Serving) -> None:
    digest = await push_blob(served.server, "user/base", b"0123456789")

    there = await ask(served.server, "HEAD", f"/v2/user/base/blobs/{digest}")
    absent = await ask(served.server, "HEAD", f"/v2/user/base/blobs/{MISSING}")

    assert (there.status, there.headers["content-length"], there.body) == (200, "10", b"")
    assert (absent.status, absent.body) == (404, b"")


async def test_content_that_is_not_its_digests_is_refused(served: Serving) -> None:
    started = await ask(served.server, "POST", "/v2/user/base/blobs/uploads/")
    target = joined(path_of(started), f"digest={digest_of(b'promised')}")

    answer = await ask(served.server, "PUT", target, b"delivered")

    assert (answer.status, code_of(answer)) == (400, "DIGEST_INVALID")


async def test_manifest_of_blobs_that_are_not_there_is_refused(served: Serving) -> None:
    part = {"mediaType": "application/octet-stream", "size": 1, "digest": MISSING}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": [part]}

    answer = await ask(
        served.server,
        "PUT",
        "/v2/user/base/manifests/v1",
        json.dumps(manifest).encode(),
        {"Content-Type": MANIFEST},
    )

    assert answer.status == 400
    assert {error["code"] for error in answer.json()["errors"]} == {"MANIFEST_BLOB_UNKNOWN"}


async def test_upload_that_breaks_off_leaves_no_blob(served: Serving) -> None:
    started = await ask(served.server, "POST", "/v2/user/base/blobs/uploads/")
    target = joined(path_of(started), f"digest={digest_of(b'0123456789')}")

    async with served.server.connected() as wire:
        fields = {**login(served.server), "Content-Length": "10"}
        await wire.send(served.server.head("PUT", target, fields) + b"01234")
        wire.cut()

    absent = await ask(served.server, "HEAD", f"/v2/user/base/blobs/{digest_of(b'0123456789')}")
    assert absent.status == 404
    await push_image(served.server, "user/base:v1", b"0123456789")


async def test_nothing_outside_the_registry_is_reached_through_it(served: Serving) -> None:
    for path in "/v2/../v2/_catalog", "/v2/%2e%2e/debug/vars", "/v2//debug/vars", "/v2/http://x/":
        answer = await ask(served.server, "GET", path)
        assert answer.status in (200, 301, 404), answer
        assert b"cmdline" not in answer.body


# Without a registry server


async def test_another_port_after_a_restart_loses_no_image(
    settings: Settings, program: str
) -> None:
    async with serving(settings, registry_server(settings)) as first:
        digest = await push_image(first.server, f"{ORG}/user/base:v1")
    settings.port_file.unlink()

    async with serving(settings, registry_server(settings)) as second:
        assert second.server.port != first.server.port
        head = await ask(second.server, "HEAD", f"/v2/{ORG}/user/base/manifests/v1", b"", ACCEPT)
        names = await ask(second.server, "GET", "/v2/_catalog")

    assert (head.status, head.headers["docker-content-digest"]) == (200, digest)
    assert names.json() == {"repositories": ["user/base"]}


async def test_room_of_a_removed_image_is_free_after_a_restart(
    settings: Settings, program: str
) -> None:
    layer = os.urandom(2**20)
    async with serving(settings, registry_server(settings)) as first:
        kept = await push_image(first.server, "user/kept:v1", b"kept")
        digest = await push_image(first.server, "user/base:v1", layer)
        await ask(first.server, "DELETE", f"/v2/user/base/manifests/{digest}")
        held = bytes_in(settings.state / "registry")

    async with serving(settings, registry_server(settings)) as second:
        assert bytes_in(settings.state / "registry") < held - 2**20
        head = await ask(second.server, "HEAD", f"/v2/user/base/blobs/{digest_of(layer)}")
        assert head.status == 404
        # What is left of it does not hinder the same image.
        assert await push_image(second.server, "user/base:v1", layer) == digest
        blob = await ask(second.server, "GET", f"/v2/user/base/blobs/{digest_of(layer)}")
        other = await ask(second.server, "HEAD", "/v2/user/kept/manifests/v1", headers=ACCEPT)

    assert blob.body == layer
    assert other.headers["docker-content-digest"] == kept


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_registry_server_that_has_ended_is_reported(served: Serving) -> None:
    assert served.registry is not None
    await served.registry.close()

    answer = await ask(served.server, "POST", "/v2/user/base/blobs/uploads/")
    names = await ask(served.server, "GET", "/v2/_catalog")

    assert (answer.status, code_of(answer)) == (405, "UNSUPPORTED")
    assert names.json() == {"repositories": []}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/user/base/tags/list"),
        ("HEAD", "/v2/user/base/manifests/v1"),
        ("GET", "/v2/user/base/manifests/v1"),
        ("POST", "/v2/user/base/blobs/uploads/"),
    ],
)
async def test_registry_server_that_does_not_answer_is_told(
    served: Serving, method: str, path: str
) -> None:
    (served.settings.state / "registry" / SOCKET).unlink()

    answer = await ask(served.server, method, path)

    assert answer.status == 503
    if method != "HEAD":
        assert code_of(answer) == "UNAVAILABLE"


async def test_machine_without_a_registry_server_says_what_to_install(settings: Settings) -> None:
    async with serving(settings, registry_server(settings, path="/nowhere")) as running:
        push = await ask(running.server, "POST", "/v2/user/base/blobs/uploads/")
        pull = await ask(running.server, "GET", "/v2/user/base/manifests/v1")
        hello = await ask(running.server, "GET", "/v2/")

    for answer in push, pull:
        assert "apt-get install docker-registry" in answer.json()["errors"][0]["message"]
    assert (push.status, code_of(push)) == (405, "UNSUPPORTED")
    assert (pull.status, code_of(pull)) == (404, "MANIFEST_UNKNOWN")
    assert hello.status == 200


async def test_sandbox_engine_says_that_it_keeps_no_docker_images(sandboxes: Serving) -> None:
    push = await ask(sandboxes.server, "POST", "/v2/user/base/blobs/uploads/")
    pull = await ask(sandboxes.server, "GET", "/v2/user/base/manifests/v1")
    names = await ask(sandboxes.server, "GET", "/v2/_catalog?n=30")

    for answer in push, pull:
        assert "--engine docker" in answer.json()["errors"][0]["message"]
    assert names.json() == {"repositories": []}
    assert not (sandboxes.settings.state / "registry").exists()
