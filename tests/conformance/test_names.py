"""Names that are hard to spell: each is one entry, exactly as it was sent, and nothing else."""

from __future__ import annotations

import os
import unicodedata
from typing import List

import pytest

from .conftest import NDJSON, Folder, has_error, lines
from .wire import Server

# Seen on the wire; the others follow from the same rule.
SEEN = "sp ace#1.txt"
NAMES = [
    pytest.param(SEEN, marks=pytest.mark.real_server),
    "sp ace",
    " leading and trailing ",
    "100%",
    "%41",
    "%2e%2e",
    "%2F",
    "%00",
    "a#b",
    "a?b=c",
    "a+b&c=d;e",
    ":@,=$!'()*",
    "-rf",
    "--",
    ".hidden",
    "..hidden",
    "...",
    "trailing.",
    "back\\slash",
    "..\\..\\up",
    "\"quotes'",
    "$(touch canary)`id`",
    "line\nbreak",
    "\r\nX-Error: mine",
    "\x01\x7f",
    unicodedata.normalize("NFC", "ñandú"),
    unicodedata.normalize("NFD", "ñandú"),
    "日本語 データ",
    "🐘",
    "\u202etxt.exe",
    "n" * 255,
    "é" * 127,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_name_lives_through_every_operation(folder: Folder, name: str) -> None:
    path = f"{folder.path}/{name}"

    assert (await folder.ask("PUT", f"{name}/{name}", "CREATE", b"data")).status == 201
    assert [os.fsencode(entry.name) for entry in folder.disk.iterdir()] == [name.encode()]
    assert await folder.names() == [name]
    status = (await folder.ask("GET", name, "GETFILESTATUS")).json()
    assert status["FileStatus"]["path"] == path
    assert (await folder.write(f"{name}/{name}", 4, b"!")).status == 200
    assert (await folder.ask("GET", f"{name}/{name}", "OPEN")).body == b"data!"
    assert (await folder.ask("POST", name, "RENAME", destination=f"{folder.path}/a")).status == 204
    assert (await folder.ask("POST", "a", "RENAME", destination=path)).status == 204
    assert await folder.names() == [name]
    removed = lines(await folder.ask("DELETE", name, "DELETE", headers=NDJSON))
    assert removed == [
        {"path": f"{path}/{name}", "is_dir": False},
        {"path": path, "is_dir": True},
    ]


async def test_both_normal_forms_of_a_name_are_two_entries(folder: Folder) -> None:
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]

    for form in forms:
        await folder.ask("PUT", form, "CREATE", form.encode())

    assert await folder.names() == sorted(forms)
    for form in forms:
        assert (await folder.ask("GET", form, "OPEN")).body == form.encode()


async def test_name_that_is_no_unicode_can_be_read_moved_and_removed(folder: Folder) -> None:
    (folder.disk / os.fsdecode(b"\xff")).write_bytes(b"data")
    url = f"/storage{folder.path}/%FF"
    moved = f"/storage{folder.path}/%FE"

    assert [name.encode(errors="surrogateescape") for name in await folder.names()] == [b"\xff"]
    assert (await folder.server.ask("GET", f"{url}?op=OPEN")).body == b"data"
    rename = f"{url}?op=RENAME&destination={folder.path}/%FE"
    assert (await folder.server.ask("POST", rename)).status == 204
    assert os.listdir(os.fsencode(folder.disk)) == [b"\xfe"]
    assert (await folder.server.ask("DELETE", f"{moved}?op=DELETE")).status == 204


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128])
async def test_name_beyond_255_bytes_is_refused(folder: Folder, name: str) -> None:
    (folder.disk / "a").touch()
    destination = f"{folder.path}/{name}"

    assert has_error(await folder.ask("PUT", name, "MKDIRS"), 400, name, "ENAMETOOLONG")
    assert has_error(await folder.ask("PUT", name, "CREATE"), 400, name, "ENAMETOOLONG")
    answer = await folder.ask("POST", "a", "RENAME", destination=destination)
    assert has_error(answer, 400, folder.path, "ENAMETOOLONG")
    assert await folder.names() == ["a"]


@pytest.mark.parametrize("levels, name", [(300, "d"), (60, "deep" * 15), (25, "n" * 255)])
async def test_deep_tree_is_made_listed_and_removed(folder: Folder, levels: int, name: str) -> None:
    deepest = "/".join([name] * levels)

    assert (await folder.ask("PUT", f"{deepest}/file", "CREATE", b"data")).status == 201
    assert (await folder.ask("GET", f"{deepest}/file", "OPEN")).body == b"data"
    listed = lines(await folder.ask("GET", deepest, "LISTSTATUS", headers=NDJSON))
    assert [line["FileStatus"]["path"] for line in listed] == ["file"]
    removed = lines(await folder.ask("DELETE", name, "DELETE", headers=NDJSON))
    assert len(removed) == levels + 1
    assert await folder.names() == []


async def test_tree_deeper_than_a_call_stack_is_removed(folder: Folder) -> None:
    levels = 900
    await folder.ask("PUT", "/".join(["d"] * levels), "MKDIRS")

    removed = lines(await folder.ask("DELETE", "d", "DELETE", headers=NDJSON))

    assert len(removed) == levels
    assert {line["is_dir"] for line in removed} == {True}
    assert await folder.names() == []


@pytest.mark.parametrize(
    "spelling",
    ["{0}//a///b", "/{0}/a/b", "{0}/a/b/", "{0}/%61/b", "{0}/a/%62"],
)
async def test_spellings_of_one_path_are_one_file(folder: Folder, spelling: str) -> None:
    target = "/storage" + spelling.format(folder.path)
    await folder.ask("PUT", "a/b", "CREATE", b"data")

    assert (await folder.server.ask("GET", f"{target}?op=OPEN")).body == b"data"


@pytest.mark.parametrize("prefix", ["/%73torage", "http://127.0.0.1/storage"])
async def test_path_is_the_same_however_the_address_is_written(
    server: Server, folder: Folder, prefix: str
) -> None:
    await folder.ask("PUT", "a", "CREATE", b"data")

    assert (await server.ask("GET", f"{prefix}{folder.path}/a?op=OPEN")).body == b"data"


async def test_folder_and_file_take_turns_under_one_name(folder: Folder) -> None:
    kinds: List[bool] = []
    for method, op in [("PUT", "MKDIRS"), ("PUT", "CREATE"), ("PUT", "MKDIRS")]:
        assert (await folder.ask(method, "a", op)).status == 201
        kinds.append((folder.disk / "a").is_dir())
        assert (await folder.ask("DELETE", "a", "DELETE")).status == 204

    assert kinds == [True, False, True]
