from __future__ import annotations

import asyncio
import io
import json
import os
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List, Optional, Tuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from neuro_local.api.keys import STORAGE
from neuro_local.api.middleware import errors
from neuro_local.api.storage import routes
from neuro_local.services.storage import StorageService

MIB = 1024 * 1024
NDJSON = {"Accept": "application/x-ndjson"}

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "storage" / "user"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    app = web.Application(middlewares=[errors])
    app[STORAGE] = StorageService(tmp_path / "storage", cluster="local", org="ORG", home="user")
    app.add_routes(routes("/storage"))
    async with TestClient(TestServer(app)) as client:
        yield client


async def ask(client: Client, method: str, path: str, **options: Any) -> Tuple[int, str, bytes]:
    async with client.request(method, "/storage" + path, **options) as response:
        return response.status, response.content_type, await response.read()


async def ask_json(client: Client, method: str, path: str, **options: Any) -> Tuple[int, Any]:
    status, content_type, body = await ask(client, method, path, **options)
    assert content_type == "application/json"
    return status, json.loads(body)


async def ask_lines(
    client: Client, method: str, path: str
) -> Tuple[int, str, List[Dict[str, Any]]]:
    status, content_type, body = await ask(client, method, path, headers=NDJSON)
    return status, content_type, [json.loads(line) for line in body.splitlines()]


async def ask_raw(client: Client, method: str, target: str) -> int:
    """Sends the target as it is; clients would tidy it up before."""
    assert client.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    return int(reply.split()[1])


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come true in 10 s"
        await asyncio.sleep(0.01)


# GETFILESTATUS


async def test_status_of_a_file(client: Client, home: Path) -> None:
    (home / "a").write_bytes(b"data")
    os.utime(home / "a", (0, 1234567890.9))

    status, payload = await ask_json(client, "GET", "/ORG/user/a?op=GETFILESTATUS")

    assert status == 200
    assert payload == {
        "FileStatus": {
            "path": "/ORG/user/a",
            "type": "FILE",
            "length": 4,
            "modificationTime": 1234567890,
            "permission": "manage",
        }
    }


@pytest.mark.parametrize("path, shown", [("/ORG/user", "/ORG/user"), ("/user", "/user"), ("", "/")])
async def test_status_of_the_home_of_a_fresh_server(client: Client, path: str, shown: str) -> None:
    status, payload = await ask_json(client, "GET", f"{path}?op=GETFILESTATUS")

    assert status == 200
    assert payload["FileStatus"]["path"] == shown
    assert payload["FileStatus"]["type"] == "DIRECTORY"


async def test_replies_carry_the_date_that_clients_compare_with(client: Client) -> None:
    async with client.get("/storage/user?op=GETFILESTATUS") as response:
        date = parsedate_to_datetime(response.headers["Date"])

    assert abs(date.timestamp() - time.time()) < 10


@pytest.mark.parametrize("name", ["sp ace#1.txt", "100%", "a+b&c=d", "line\nbreak", "ñ", "%2F"])
async def test_names_are_decoded_exactly_once(client: Client, home: Path, name: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())

    assert await ask_raw(client, "PUT", f"/storage/user/{quoted}?op=MKDIRS") == 201

    assert [entry.name for entry in home.iterdir()] == [name]


@pytest.mark.parametrize(
    "target",
    [
        "/storage/user/../../secret",
        "/storage/%2e%2e/secret",
        "/storage/ORG/%2E./secret",
        "/storage/user%2F..%2F..%2Fsecret",
        "/storage/user/..%2fsecret",
        "/storage//../secret",
        "/storage/secret%00",
    ],
)
async def test_climbing_paths_are_refused(client: Client, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")

    assert await ask_raw(client, "GET", f"{target}?op=OPEN") == 400
    assert await ask_raw(client, "DELETE", f"{target}?op=DELETE") == 400
    assert (tmp_path / "secret").read_bytes() == b"secret"


# Missing things and unknown operations


@pytest.mark.parametrize(
    "method, query",
    [
        ("GET", "op=GETFILESTATUS"),
        ("GET", "op=LISTSTATUS"),
        ("GET", "op=OPEN"),
        ("GET", "op=GETDISKUSAGE"),
        ("DELETE", "op=DELETE&recursive=true"),
        ("POST", "op=RENAME&destination=/user/b"),
    ],
)
async def test_a_missing_path_is_plain_text(client: Client, method: str, query: str) -> None:
    reply = await ask(client, method, f"/user/none?{query}")

    assert reply == (404, "text/plain", b"404: Not Found")


async def test_a_missing_path_is_json_in_a_streamed_listing(client: Client) -> None:
    reply = await ask_json(client, "GET", "/user/none?op=LISTSTATUS", headers=NDJSON)

    assert reply == (404, {"error": "Not found", "errno": "ENOENT"})


async def test_a_missing_path_is_plain_text_in_a_streamed_removal(client: Client) -> None:
    reply = await ask(client, "DELETE", "/user/none?op=DELETE", headers=NDJSON)

    assert reply == (404, "text/plain", b"404: Not Found")


@pytest.mark.parametrize(
    "method, query", [("GET", ""), ("GET", "?op=CREATE"), ("PUT", "?op=NONE"), ("POST", "?op=")]
)
async def test_an_unknown_operation_is_refused(client: Client, method: str, query: str) -> None:
    status, payload = await ask_json(client, method, f"/user{query}")

    assert status == 400
    assert f"is not a storage operation of {method}; it has " in payload["error"]


# LISTSTATUS


async def test_listing_as_json(client: Client, home: Path) -> None:
    (home / "a").write_bytes(b"data")
    os.utime(home / "a", (0, 1234567890))

    status, payload = await ask_json(client, "GET", "/ORG/user?op=LISTSTATUS")

    item = {
        "path": "a",
        "type": "FILE",
        "length": 4,
        "modificationTime": 1234567890,
        "permission": "manage",
    }
    assert (status, payload) == (200, {"FileStatuses": {"FileStatus": [item]}})


async def test_listing_streams_ten_thousand_entries(client: Client, home: Path) -> None:
    for number in range(10_000):
        (home / str(number)).touch()

    status, content_type, lines = await ask_lines(client, "GET", "/user?op=LISTSTATUS")

    assert (status, content_type) == (200, "application/x-ndjson")
    assert sorted(int(line["FileStatus"]["path"]) for line in lines) == list(range(10_000))


async def test_an_empty_listing_is_an_empty_body(client: Client) -> None:
    reply = await ask(client, "GET", "/user?op=LISTSTATUS", headers=NDJSON)

    assert reply == (200, "application/x-ndjson", b"")


@pytest.mark.parametrize("headers", [{}, NDJSON])
async def test_listing_a_file_is_refused(
    client: Client, home: Path, headers: Dict[str, str]
) -> None:
    (home / "a").touch()

    status, payload = await ask_json(client, "GET", "/user/a?op=LISTSTATUS", headers=headers)

    assert status == 400
    assert payload == {"error": "'/user/a': Not a directory.", "errno": "ENOTDIR"}


# OPEN


@pytest.mark.parametrize("size", [0, 4, MIB, 3 * MIB + 1])
async def test_download(client: Client, home: Path, size: int) -> None:
    data = os.urandom(size)
    (home / "a").write_bytes(data)

    async with client.get("/storage/user/a?op=OPEN") as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(size)
        assert await response.read() == data


@pytest.mark.parametrize(
    "header, span, data",
    [
        ("bytes=4-", "bytes 4-9/10", b"456789"),
        ("bytes=0-", "bytes 0-9/10", b"0123456789"),
        ("bytes=2-5", "bytes 2-5/10", b"2345"),
        ("bytes=8-99", "bytes 8-9/10", b"89"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
    ],
)
async def test_download_of_a_range(
    client: Client, home: Path, header: str, span: str, data: bytes
) -> None:
    (home / "a").write_bytes(b"0123456789")

    async with client.get("/storage/user/a?op=OPEN", headers={"Range": header}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == span
        assert await response.read() == data


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-", "bytes=5-2", "bytes=x", "lines=1-2"])
async def test_download_of_an_impossible_range(client: Client, home: Path, header: str) -> None:
    (home / "a").write_bytes(b"0123456789")

    async with client.get("/storage/user/a?op=OPEN", headers={"Range": header}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == "bytes */10"
        assert await response.json() == {"error": f"Range '{header}' is not within 10 bytes."}


async def test_download_of_a_folder_is_refused(client: Client) -> None:
    reply = await ask_json(client, "GET", "/user?op=OPEN")

    assert reply == (400, {"error": "'/user': Is a directory.", "errno": "EISDIR"})


async def test_a_download_that_cannot_be_completed_breaks_the_connection(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a").write_bytes(bytes(4 * MIB))
    pread = os.pread

    def shrinking(fd: int, size: int, offset: int) -> bytes:
        return pread(fd, size, offset) if offset == 0 else b""

    monkeypatch.setattr(os, "pread", shrinking)

    with pytest.raises(Exception, match="payload|reset|disconnected|lost"):
        await ask(client, "GET", "/user/a?op=OPEN")


# CREATE and WRITE


@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB + 1])
async def test_upload_of_one_body(client: Client, home: Path, size: int) -> None:
    data = os.urandom(size)

    status, _, body = await ask(client, "PUT", "/ORG/user/a/b?op=CREATE", data=io.BytesIO(data))

    assert (status, body) == (201, b"")
    assert (home / "a" / "b").read_bytes() == data


async def test_upload_in_pieces_as_clients_do(client: Client, home: Path) -> None:
    data = os.urandom(3 * MIB + 5)

    await ask(client, "PUT", "/user/a?op=CREATE", data=data[:MIB])
    for start in range(MIB, len(data), MIB):
        piece = data[start : start + MIB]
        headers = {"Content-Range": f"bytes {start}-{start + len(piece) - 1}/*"}
        status, _, body = await ask(
            client, "PATCH", "/user/a?op=WRITE", data=piece, headers=headers
        )
        assert (status, body) == (200, b"")

    assert (home / "a").read_bytes() == data


async def test_concurrent_writes_to_one_file(client: Client, home: Path) -> None:
    data = os.urandom(20 * MIB)
    (home / "a").touch()

    async def write(start: int) -> None:
        headers = {"Content-Range": f"bytes {start}-{start + MIB - 1}/*"}
        piece = data[start : start + MIB]
        assert (await ask(client, "PATCH", "/user/a?op=WRITE", data=piece, headers=headers))[
            0
        ] == 200

    await asyncio.gather(*(write(start) for start in range(0, len(data), MIB)))

    assert (home / "a").read_bytes() == data


async def test_write_does_not_truncate(client: Client, home: Path) -> None:
    (home / "a").write_bytes(b"0123456789")

    reply = await ask(
        client, "PATCH", "/user/a?op=WRITE", data=b"ab", headers={"Content-Range": "bytes 3-4/*"}
    )

    assert reply[0] == 200
    assert (home / "a").read_bytes() == b"012ab56789"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "bytes 0-1/*",
        "bytes 0-3/*",
        "bytes 2-0/*",
        "bytes 0-/*",
        "bytes=0-2/*",
        "bytes -1-1/*",
        "bytes 9999999999999999999-10000000000000000001/*",
    ],
)
async def test_write_with_a_range_that_does_not_fit_changes_nothing(
    client: Client, home: Path, header: Optional[str]
) -> None:
    (home / "a").write_bytes(b"0123456789")
    headers = {} if header is None else {"Content-Range": header}

    status, payload = await ask_json(
        client, "PATCH", "/user/a?op=WRITE", data=b"abc", headers=headers
    )

    assert status == 400
    assert "Content-Range" in payload["error"]
    assert (home / "a").read_bytes() == b"0123456789"


@pytest.mark.parametrize("header", ["bytes 0-1/*", "bytes 0-3/*"])
async def test_a_chunked_write_never_leaves_its_range(
    client: Client, home: Path, header: str
) -> None:
    (home / "a").write_bytes(b"0123456789")

    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    status, _ = await ask_json(
        client, "PATCH", "/user/a?op=WRITE", data=body(), headers={"Content-Range": header}
    )

    assert status == 400
    assert (home / "a").read_bytes()[3:] == b"3456789"


async def test_write_to_a_missing_file(client: Client, home: Path) -> None:
    reply = await ask(
        client, "PATCH", "/user/a?op=WRITE", data=b"ab", headers={"Content-Range": "bytes 0-1/*"}
    )

    assert reply == (404, "text/plain", b"404: Not Found")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "method, path, options, error, symbol",
    [
        ("PUT", "/user?op=CREATE", {}, "'/user': Is a directory.", "EISDIR"),
        ("PUT", "/user/f/x?op=CREATE", {}, "'/user/f/x': Not a directory.", "ENOTDIR"),
        (
            "PATCH",
            "/user?op=WRITE",
            {"headers": {"Content-Range": f"bytes 0-{MIB - 1}/*"}},
            "'/user': Is a directory.",
            "EISDIR",
        ),
    ],
)
async def test_upload_that_the_file_system_refuses(
    client: Client,
    home: Path,
    method: str,
    path: str,
    options: Dict[str, Any],
    error: str,
    symbol: str,
) -> None:
    (home / "f").touch()

    reply = await ask_json(client, method, path, data=bytes(MIB), **options)

    assert reply == (400, {"error": error, "errno": symbol})


async def test_a_full_disk_is_named(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuro_local.services.storage._write_all", full)

    reply = await ask_json(client, "PUT", "/user/a?op=CREATE", data=b"data")

    assert reply == (400, {"error": "'/user/a': No space left on device.", "errno": "ENOSPC"})


async def test_an_interrupted_upload_leaves_what_had_arrived(client: Client, home: Path) -> None:
    assert client.server.port is not None
    _, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    writer.write(b"PUT /storage/user/a?op=CREATE HTTP/1.1\r\nHost: x\r\n")
    writer.write(b"Content-Length: 1000\r\n\r\n" + b"x" * 300)

    await until(lambda: (home / "a").exists() and (home / "a").stat().st_size == 300, "the upload")
    writer.close()

    assert (await ask(client, "GET", "/user/a?op=OPEN"))[2] == b"x" * 300


async def test_the_loop_stays_free_while_the_disk_is_slow(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*args: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)

    monkeypatch.setattr("neuro_local.services.storage._write_all", slow)
    upload = asyncio.create_task(ask(client, "PUT", "/user/a?op=CREATE", data=b"data"))

    await until(lambda: (home / "a").exists(), "the upload")
    assert (await ask(client, "GET", "/user/a?op=GETFILESTATUS"))[0] == 200
    release.set()

    assert (await upload)[0] == 201


# MKDIRS


async def test_mkdirs_is_repeatable(client: Client, home: Path) -> None:
    for _ in range(2):
        status, _, body = await ask(client, "PUT", "/ORG/user/a/b?op=MKDIRS")
        assert (status, body) == (201, b"")

    assert (home / "a" / "b").is_dir()


@pytest.mark.parametrize(
    "path, payload",
    [
        ("/user/f", {"error": "'/user/f': File exists.", "errno": "EEXIST"}),
        ("/user/f/x", {"error": "'/user/f/x': Not a directory.", "errno": "ENOTDIR"}),
        (
            "/user/" + "x" * 300,
            {"error": f"'/user/{'x' * 300}': File name too long.", "errno": "ENAMETOOLONG"},
        ),
    ],
)
async def test_mkdirs_that_the_file_system_refuses(
    client: Client, home: Path, path: str, payload: Dict[str, str]
) -> None:
    (home / "f").touch()

    assert await ask_json(client, "PUT", f"{path}?op=MKDIRS") == (400, payload)


# DELETE


async def test_delete_streams_what_it_removed(client: Client, home: Path) -> None:
    (home / "a").mkdir()
    (home / "a" / "f").touch()

    reply = await ask_lines(client, "DELETE", "/ORG/user/a?op=DELETE&recursive=true")

    assert reply == (
        200,
        "application/x-ndjson",
        [{"path": "/ORG/user/a/f", "is_dir": False}, {"path": "/ORG/user/a", "is_dir": True}],
    )
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("query", ["op=DELETE", "op=DELETE&recursive=true"])
async def test_delete_without_a_stream(client: Client, home: Path, query: str) -> None:
    (home / "a" / "b").mkdir(parents=True)

    status, _, body = await ask(client, "DELETE", f"/user/a?{query}")

    assert (status, body) == (204, b"")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("headers", [{}, NDJSON])
async def test_delete_of_a_folder_needs_recursive(
    client: Client, home: Path, headers: Dict[str, str]
) -> None:
    (home / "a").mkdir()

    reply = await ask_json(client, "DELETE", "/user/a?op=DELETE&recursive=false", headers=headers)

    assert reply == (400, {"error": "'/user/a': Is a directory.", "errno": "EISDIR"})
    assert (home / "a").is_dir()


async def test_delete_refuses_an_unclear_flag(client: Client, home: Path) -> None:
    (home / "a").mkdir()

    reply = await ask_json(client, "DELETE", "/user/a?op=DELETE&recursive=maybe")

    assert reply == (400, {"error": "recursive='maybe' must be true or false."})
    assert (home / "a").is_dir()


async def test_a_late_error_is_a_line_of_the_stream(
    client: Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a").mkdir()
    (home / "a" / "f").touch()

    def busy(*args: Any, **options: Any) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "rmdir", busy)

    reply = await ask_lines(client, "DELETE", "/user/a?op=DELETE")

    assert reply == (
        200,
        "application/x-ndjson",
        [
            {"path": "/user/a/f", "is_dir": False},
            {"error": "'/user/a': Device or resource busy.", "errno": "EBUSY"},
        ],
    )


async def test_home_survives_its_removal(client: Client, home: Path) -> None:
    (home / "a").touch()

    assert (await ask(client, "DELETE", "/ORG/user?op=DELETE"))[0] == 204

    assert list(home.iterdir()) == []
    assert (await ask(client, "GET", "/ORG/user?op=GETFILESTATUS"))[0] == 200


# RENAME


@pytest.mark.parametrize("destination", ["/ORG/user/b c", "/user/b c"])
async def test_rename(client: Client, home: Path, destination: str) -> None:
    (home / "a").write_bytes(b"data")

    status, _, body = await ask(
        client, "POST", "/ORG/user/a", params={"op": "RENAME", "destination": destination}
    )

    assert (status, body) == (204, b"")
    assert [entry.name for entry in home.iterdir()] == ["b c"]
    assert (home / "b c").read_bytes() == b"data"


@pytest.mark.parametrize("query", ["", "&destination=", "&destination=b"])
async def test_rename_needs_an_absolute_destination(client: Client, home: Path, query: str) -> None:
    (home / "a").touch()

    status, payload = await ask_json(client, "POST", f"/user/a?op=RENAME{query}")

    assert status == 400
    assert "must be an absolute path" in payload["error"]
    assert (home / "a").exists()


async def test_rename_does_not_leave_storage(client: Client, home: Path, tmp_path: Path) -> None:
    (home / "a").touch()

    status, _ = await ask_json(client, "POST", "/user/a?op=RENAME&destination=/user/../../b")

    assert status == 400
    assert (home / "a").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["storage"]


async def test_rename_onto_a_folder(client: Client, home: Path) -> None:
    (home / "a").touch()
    (home / "b").mkdir()

    reply = await ask_json(client, "POST", "/user/a?op=RENAME&destination=/user/b")

    assert reply == (400, {"error": "'/user/a': Is a directory.", "errno": "EISDIR"})


async def test_rename_into_a_missing_folder(client: Client, home: Path) -> None:
    (home / "a").touch()

    reply = await ask(client, "POST", "/user/a?op=RENAME&destination=/user/none/b")

    assert reply == (404, "text/plain", b"404: Not Found")


# GETDISKUSAGE


async def test_disk_usage(client: Client) -> None:
    status, payload = await ask_json(client, "GET", "/ORG/user?op=GETDISKUSAGE")

    assert status == 200
    assert set(payload) == {"total", "used", "free"}
    assert all(isinstance(value, int) for value in payload.values())
