"""Storage, operation by operation: what is done, what is answered, and what is refused."""

from __future__ import annotations

import os
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

from .conftest import NDJSON, ORG, Folder, has_error, lines
from .wire import Answer, Server

# Method, operation and the rest of the query.
Operation = Tuple[str, str, Dict[str, Any]]
OPERATIONS: Dict[str, Operation] = {
    "stat": ("GET", "GETFILESTATUS", {}),
    "list": ("GET", "LISTSTATUS", {}),
    "read": ("GET", "OPEN", {}),
    "usage": ("GET", "GETDISKUSAGE", {}),
    "mkdir": ("PUT", "MKDIRS", {}),
    "create": ("PUT", "CREATE", {}),
    "write": ("PATCH", "WRITE", {}),
    "remove": ("DELETE", "DELETE", {"recursive": "true"}),
    "unlink": ("DELETE", "DELETE", {"recursive": "false"}),
    "rename": ("POST", "RENAME", {}),
}
# What the operation finds under the name, and how it is answered: a status, or an errno's name.
TARGETS = ("missing", "file", "folder", "file/below", "link/below", "n" * 256)
ANSWERS: Dict[str, Tuple[object, ...]] = {
    "stat": (404, 200, 200, "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "list": (404, "ENOTDIR", 200, "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "read": (404, 200, "EISDIR", "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "usage": (404, 200, 200, "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "mkdir": (201, "EEXIST", 201, "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "create": (201, 201, "EISDIR", "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "write": (404, 200, "EISDIR", "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "remove": (404, 204, 204, "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "unlink": (404, 204, "EISDIR", "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
    "rename": (404, 204, 204, "ENOTDIR", "ENOTDIR", "ENAMETOOLONG"),
}
# The rest of the table follows from the same rule, and nobody has looked.
SEEN = {(operation, target) for operation in ANSWERS for target in TARGETS[:3]}
SEEN.add(("mkdir", "file/below"))
CASES = [
    pytest.param(
        operation,
        target,
        answer,
        id=f"{operation}-{target[:10]}",
        marks=[pytest.mark.real_server] if (operation, target) in SEEN else [],
    )
    for operation, answers in ANSWERS.items()
    for target, answer in zip(TARGETS, answers)
]
NOT_FOUND = b"404: Not Found"


async def do(folder: Folder, operation: str, name: str) -> Answer:
    method, op, query = OPERATIONS[operation]
    if operation == "write":
        return await folder.write(name, 0, b"new")
    if operation == "rename":
        query = {"destination": f"{folder.path}/renamed"}
    return await folder.ask(method, name, op, b"new" if operation == "create" else b"", **query)


def filled(folder: Folder) -> Folder:
    """Put one of each kind into the folder."""
    (folder.disk / "file").write_bytes(b"old")
    (folder.disk / "folder").mkdir()
    (folder.disk / "link").symlink_to("/")
    return folder


def snapshot(folder: Folder) -> List[Tuple[str, Optional[bytes]]]:
    return sorted(
        (str(path.relative_to(folder.disk)), path.read_bytes() if path.is_file() else None)
        for path in folder.disk.rglob("*")
    )


@pytest.mark.parametrize("operation, target, expected", CASES)
async def test_answer_follows_from_operation_and_what_is_there(
    folder: Folder, operation: str, target: str, expected: object
) -> None:
    before = snapshot(filled(folder))

    answer = await do(folder, operation, target)

    if isinstance(expected, str):
        assert has_error(answer, 400, f"'{folder.path}/{target}", errno=expected)
    else:
        assert answer.status == expected, answer
    if expected == 404:
        assert (answer.kind, answer.body) == ("text/plain", NOT_FOUND)
    if answer.status >= 400:
        assert snapshot(folder) == before


# GETFILESTATUS


@pytest.mark.real_server
async def test_status_of_a_file_has_the_whole_path(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(b"data")
    os.utime(folder.disk / "a", (0, 1234567890.9))

    answer = await folder.server.ask("GET", f"/storage/{ORG}{folder.path}/a?op=GETFILESTATUS")

    assert answer.json() == {
        "FileStatus": {
            "path": f"/{ORG}{folder.path}/a",
            "type": "FILE",
            "length": 4,
            "modificationTime": 1234567890,
            "permission": "manage",
        }
    }


@pytest.mark.real_server
@pytest.mark.parametrize("path, shown", [(f"/{ORG}/user", f"/{ORG}/user"), ("/user", "/user")])
async def test_home_is_a_folder_from_the_start(server: Server, path: str, shown: str) -> None:
    answer = await server.ask("GET", f"/storage{path}?op=GETFILESTATUS")

    status = answer.json()["FileStatus"]
    assert (status["path"], status["type"]) == (shown, "DIRECTORY")


@pytest.mark.parametrize("path", ["", "/", f"/{ORG}", f"/{ORG}/"])
async def test_root_is_a_folder_however_it_is_spelled(server: Server, path: str) -> None:
    answer = await server.ask("GET", f"/storage{path}?op=GETFILESTATUS")

    assert answer.json()["FileStatus"]["type"] == "DIRECTORY"


@pytest.mark.real_server
async def test_answers_carry_the_date_that_clients_compare_with(folder: Folder) -> None:
    answer = await folder.ask("GET", "", "GETFILESTATUS")

    date = parsedate_to_datetime(answer.headers["date"])
    assert abs(date.timestamp() - time.time()) < 10


# LISTSTATUS


@pytest.mark.real_server
async def test_listing_has_bare_names(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(b"data")
    os.utime(folder.disk / "a", (0, 1234567890))
    item = {
        "path": "a",
        "type": "FILE",
        "length": 4,
        "modificationTime": 1234567890,
        "permission": "manage",
    }

    plain = await folder.ask("GET", "", "LISTSTATUS")
    streamed = await folder.ask("GET", "", "LISTSTATUS", headers=NDJSON)

    assert plain.json() == {"FileStatuses": {"FileStatus": [item]}}
    assert lines(streamed) == [{"FileStatus": item}]


async def test_link_is_listed_as_a_file_since_the_older_client_knows_no_links(
    folder: Folder,
) -> None:
    (folder.disk / "link").symlink_to("/etc")

    (line,) = lines(await folder.ask("GET", "", "LISTSTATUS", headers=NDJSON))

    assert (line["FileStatus"]["path"], line["FileStatus"]["type"]) == ("link", "FILE")


@pytest.mark.real_server
async def test_empty_listing_is_an_empty_body(folder: Folder) -> None:
    assert lines(await folder.ask("GET", "", "LISTSTATUS", headers=NDJSON)) == []


@pytest.mark.real_server
async def test_missing_folder_is_json_in_a_streamed_listing_only(folder: Folder) -> None:
    streamed = await folder.ask("GET", "none", "LISTSTATUS", headers=NDJSON)
    removal = await folder.ask("DELETE", "none", "DELETE", headers=NDJSON)

    assert streamed.status == 404
    assert streamed.json() == {"error": "Not found", "errno": "ENOENT"}
    assert (removal.status, removal.body) == (404, NOT_FOUND)


@pytest.mark.real_server
async def test_listing_of_a_file_is_refused_in_a_stream_too(folder: Folder) -> None:
    (folder.disk / "a").touch()

    answer = await folder.ask("GET", "a", "LISTSTATUS", headers=NDJSON)

    assert has_error(answer, 400, "Not a directory", errno="ENOTDIR")


async def test_ten_thousand_entries_are_listed_and_removed(folder: Folder) -> None:
    (folder.disk / "many").mkdir()
    for number in range(10_000):
        (folder.disk / "many" / str(number)).touch()

    streamed = lines(await folder.ask("GET", "many", "LISTSTATUS", headers=NDJSON))
    plain = (await folder.ask("GET", "many", "LISTSTATUS")).json()
    removed = lines(await folder.ask("DELETE", "many", "DELETE", headers=NDJSON))

    assert sorted(int(line["FileStatus"]["path"]) for line in streamed) == list(range(10_000))
    assert len(plain["FileStatuses"]["FileStatus"]) == 10_000
    assert len({line["path"] for line in removed}) == 10_001
    assert list(folder.disk.iterdir()) == []


# MKDIRS


@pytest.mark.real_server
async def test_mkdirs_makes_parents_and_is_repeatable(folder: Folder) -> None:
    for _ in range(2):
        answer = await folder.ask("PUT", "a/b/c", "MKDIRS")
        assert (answer.status, answer.body) == (201, b"")

    assert (folder.disk / "a/b/c").is_dir()


@pytest.mark.real_server
async def test_request_without_a_body_may_have_any_content_type(folder: Folder) -> None:
    kind = {"Content-Type": "application/octet-stream"}

    assert (await folder.ask("PUT", "a", "MKDIRS", headers=kind)).status == 201


# DELETE


@pytest.mark.real_server
async def test_removal_streams_what_is_gone(folder: Folder) -> None:
    (folder.disk / "a").mkdir()
    (folder.disk / "a/f").touch()

    answer = await folder.ask("DELETE", "a", "DELETE", headers=NDJSON, recursive="true")

    assert lines(answer) == [
        {"path": f"{folder.path}/a/f", "is_dir": False},
        {"path": f"{folder.path}/a", "is_dir": True},
    ]
    assert list(folder.disk.iterdir()) == []


@pytest.mark.real_server
@pytest.mark.parametrize("query", [{}, {"recursive": "true"}, {"recursive": "1"}])
async def test_removal_is_recursive_unless_told_otherwise(
    folder: Folder, query: Dict[str, Any]
) -> None:
    (folder.disk / "a/b").mkdir(parents=True)

    answer = await folder.ask("DELETE", "a", "DELETE", **query)

    assert (answer.status, answer.body) == (204, b"")
    assert list(folder.disk.iterdir()) == []


async def test_removal_refuses_an_unclear_flag(folder: Folder) -> None:
    (folder.disk / "a").mkdir()

    answer = await folder.ask("DELETE", "a", "DELETE", recursive="maybe")

    assert has_error(answer, 400, "recursive='maybe' must be true or false")
    assert (folder.disk / "a").is_dir()


async def test_removal_takes_a_link_and_leaves_what_it_leads_to(
    folder: Folder, tmp_path: Path
) -> None:
    (tmp_path / "kept").touch()
    (folder.disk / "a").mkdir()
    (folder.disk / "a/link").symlink_to(tmp_path)

    assert (await folder.ask("DELETE", "a", "DELETE")).status == 204

    assert (tmp_path / "kept").exists()


# RENAME

RENAMES = [
    ("file", "new", 204),
    ("file", "other", 204),
    ("file", "file", 204),
    ("file", "empty", "EISDIR"),
    ("file", "other/below", "ENOTDIR"),
    ("file", "none/below", 404),
    ("full", "new", 204),
    ("full", "empty", 204),
    ("full", "other", "ENOTDIR"),
]
UNSEEN_RENAMES = [("full", "crowded", "ENOTEMPTY"), ("full", "full/below", "EINVAL")]


@pytest.mark.parametrize(
    "source, destination, expected",
    [*(pytest.param(*case, marks=pytest.mark.real_server) for case in RENAMES), *UNSEEN_RENAMES],
)
async def test_rename_puts_one_in_the_others_place_or_leaves_both(
    folder: Folder, source: str, destination: str, expected: object
) -> None:
    for name in ("file", "other"):
        (folder.disk / name).write_bytes(name.encode())
    for name in ("empty", "full", "crowded"):
        (folder.disk / name).mkdir()
    for name in ("full/inner", "crowded/inner"):
        (folder.disk / name).write_bytes(name.encode())
    before = dict(snapshot(folder))

    answer = await folder.ask("POST", source, "RENAME", destination=f"{folder.path}/{destination}")

    after = dict(snapshot(folder))
    if expected == 204:
        assert (answer.status, answer.body) == (204, b"")
        assert after[destination] == before[source]
        assert source == destination or source not in after
        return
    assert after == before
    if isinstance(expected, str):
        assert has_error(answer, 400, folder.path, errno=expected)
    else:
        assert (answer.status, answer.body) == (404, NOT_FOUND)


@pytest.mark.real_server
async def test_rename_takes_either_clients_spelling_of_the_destination(folder: Folder) -> None:
    (folder.disk / "a").write_bytes(b"data")

    answer = await folder.ask("POST", "a", "RENAME", destination=f"/{ORG}{folder.path}/b c")

    assert answer.status == 204
    assert snapshot(folder) == [("b c", b"data")]


@pytest.mark.parametrize("query", ["", "&destination=", "&destination=b"])
async def test_rename_needs_an_absolute_destination(folder: Folder, query: str) -> None:
    (folder.disk / "a").touch()

    answer = await folder.server.ask("POST", folder.url("a", "RENAME") + query)

    assert has_error(answer, 400, "must be an absolute path")
    assert (folder.disk / "a").exists()


# GETDISKUSAGE


@pytest.mark.real_server
async def test_disk_usage_is_in_bytes(folder: Folder) -> None:
    usage = (await folder.ask("GET", "", "GETDISKUSAGE")).json()

    assert set(usage) == {"total", "used", "free"}
    assert usage["total"] >= usage["used"] + usage["free"] > 2**20


# Unknown operations


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
@pytest.mark.parametrize(
    "op", [pytest.param("NONE", marks=pytest.mark.real_server), "", "open/..", "MKDIRS\0"]
)
async def test_unknown_operation_is_refused(folder: Folder, method: str, op: str) -> None:
    answer = await folder.ask(method, "", op)

    assert has_error(answer, 400, f"is not a storage operation of {method}")
    assert folder.disk.is_dir()


async def test_operation_of_another_method_is_refused(folder: Folder) -> None:
    assert has_error(await folder.ask("GET", "a", "CREATE"), 400, "of GET; it has ")


@pytest.mark.parametrize("op", ["open", "Open"])
async def test_operations_are_known_in_either_case(folder: Folder, op: str) -> None:
    (folder.disk / "a").write_bytes(b"data")

    assert (await folder.ask("GET", "a", op)).body == b"data"
