from __future__ import annotations

import asyncio
import os
from io import FileIO
from pathlib import Path
from typing import AsyncIterator, List, Tuple

import pytest
from processes import open_files

from neuro_local.errors import InvalidRequest, NotFound, StorageError
from neuro_local.services import storage
from neuro_local.services.paths import decode_path
from neuro_local.services.removal import Removed
from neuro_local.services.storage import FileStatus, StorageService
from neuro_local.services.threads import ENTRIES_AT_ONCE

ESCAPING_OPERATIONS = [
    "stat",
    "list",
    "read",
    "create",
    "write",
    "mkdir",
    "rm",
    "mv",
    "mv-to",
    "df",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "storage"


@pytest.fixture
def service(root: Path) -> StorageService:
    return StorageService(root, cluster="local", org="ORG", home="user")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def listing(service: StorageService, path: str) -> List[FileStatus]:
    return [entry async for batch in service.list(path) for entry in batch]


async def removal(service: StorageService, path: str, recursive: bool = True) -> List[Removed]:
    batches = service.remove(path, recursive=recursive)
    return [entry async for batch in batches for entry in batch]


async def content(service: StorageService, path: str) -> bytes:
    async with service.open(path) as file:
        return b"".join([piece async for piece in file.read(range(file.size))])


def snapshot(folder: Path) -> List[Tuple[str, bytes]]:
    return sorted(
        (str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )


# Names


@pytest.mark.parametrize("path", ["/ORG/user/foo", "/user/foo", "//ORG//user/foo/", "user/foo"])
async def test_spellings_of_a_path_lead_to_one_file(
    service: StorageService, root: Path, path: str
) -> None:
    await service.create(path, pieces(b"data"))

    assert (root / "user" / "foo").read_bytes() == b"data"


async def test_both_clients_mean_the_same_by_a_leading_slash_and_the_org(
    service: StorageService, root: Path
) -> None:
    await service.create("/ORG/ORG/foo", pieces(b"new client"))
    await service.create("/ORG/foo", pieces(b"old client"))

    assert snapshot(root) == [("foo", b"old client"), ("user", b"")]


async def test_the_org_is_an_ordinary_name_further_down(
    service: StorageService, root: Path
) -> None:
    await service.create("/user/ORG/foo", pieces(b"data"))

    assert (root / "user" / "ORG" / "foo").read_bytes() == b"data"


async def test_status_shows_the_path_as_it_was_asked_for(service: StorageService) -> None:
    await service.make_folders("/user/foo")

    assert (await service.stat("/ORG/user/foo")).path == "/ORG/user/foo"
    assert (await service.stat("/user/foo/")).path == "/user/foo"
    assert (await service.stat("/ORG")).path == "/ORG"


@pytest.mark.parametrize("path", ["/user/..", "/../user", "/ORG/../..", "/user/./foo", "/a\0b"])
async def test_a_path_that_could_climb_is_refused(service: StorageService, path: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a storage path"):
        await service.stat(path)


def test_decoding_keeps_component_borders() -> None:
    assert decode_path("/user/sp%20ace%231.txt") == "/user/sp ace#1.txt"
    assert decode_path("/user/100%2525") == "/user/100%25"
    assert os.fsencode(decode_path("/%FF")) == b"/\xff"
    with pytest.raises(InvalidRequest, match="'a/b' cannot be a name in storage"):
        decode_path("/user/a%2Fb")


@pytest.mark.parametrize(
    "uri, path",
    [
        ("storage://local/ORG/user/foo", "/user/foo"),
        ("storage://local/user/sp%20ace", "/user/sp ace"),
        ("storage://local/x/y/", "/x/y"),
        ("storage://local", "/"),
    ],
)
def test_uri_becomes_a_server_path(service: StorageService, uri: str, path: str) -> None:
    assert service.uri_to_path(uri) == path


@pytest.mark.parametrize(
    "uri, reason",
    [
        ("storage://other/ORG/user/foo", "'other'; only 'local' is here"),
        ("disk://local/ORG/user/foo", "'disk://local/ORG/user/foo' is not a storage URI"),
        ("storage:foo", "'storage:foo' is not a storage URI"),
        ("/user/foo", "'/user/foo' is not a storage URI"),
        ("storage://local/user/%2e%2e/x", r"because of '\.\.'"),
        ("storage://local/user%2F..%2Fx", "contains a slash"),
    ],
)
def test_uri_of_something_else_is_refused(service: StorageService, uri: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        service.uri_to_path(uri)


# The home folder


async def test_home_exists_from_the_start(service: StorageService, root: Path) -> None:
    assert (root / "user").is_dir()
    assert (await service.stat("/ORG/user")).is_dir


async def test_home_comes_back_when_someone_deletes_it_on_disk(
    service: StorageService, root: Path
) -> None:
    (root / "user").rmdir()
    root.rmdir()

    assert (await service.stat("/user")).is_dir


async def test_removing_home_empties_it_and_keeps_the_folder_itself(
    service: StorageService, root: Path
) -> None:
    await service.create("/user/a/b", pieces(b"data"))
    inode = (root / "user").stat().st_ino

    removed = await removal(service, "/ORG/user")

    assert removed == [Removed("/ORG/user/a/b", False), Removed("/ORG/user/a", True)]
    assert snapshot(root) == [("user", b"")]
    assert (root / "user").stat().st_ino == inode


async def test_removing_the_root_leaves_an_empty_home(service: StorageService, root: Path) -> None:
    await service.create("/other/a", pieces(b"data"))
    await service.create("/user/b", pieces(b"data"))

    removed = await removal(service, "/")

    assert {entry.path for entry in removed} == {"/other/a", "/other", "/user/b"}
    assert snapshot(root) == [("user", b"")]


async def test_renaming_home_makes_a_new_one(service: StorageService, root: Path) -> None:
    await service.create("/user/a", pieces(b"data"))

    await service.rename("/user", "/old")

    assert snapshot(root) == [("old", b""), ("old/a", b"data"), ("user", b"")]


# Symbolic links


@pytest.mark.parametrize("operation", ESCAPING_OPERATIONS)
async def test_no_operation_passes_through_a_linked_folder(
    service: StorageService, root: Path, outside: Path, operation: str
) -> None:
    (root / "user" / "link").symlink_to(outside)
    await service.create("/user/mine", pieces(b"mine"))
    before = snapshot(outside)

    with pytest.raises(StorageError, match="Symbolic links are not followed") as error:
        await attempt(service, operation, "/user/link/secret")

    assert error.value.symbol == "ENOTDIR"
    assert snapshot(outside) == before


@pytest.mark.parametrize(
    "operation, symbol",
    [("read", "ELOOP"), ("create", "ELOOP"), ("write", "ELOOP"), ("list", "ENOTDIR")]
    + [("mkdir", "EEXIST")],
)
async def test_a_link_itself_is_not_followed(
    service: StorageService, root: Path, outside: Path, operation: str, symbol: str
) -> None:
    (root / "user" / "link").symlink_to(outside / "secret")

    with pytest.raises(StorageError) as error:
        await attempt(service, operation, "/user/link")

    assert error.value.symbol == symbol
    assert snapshot(outside) == [("secret", b"secret")]


async def test_a_dangling_link_does_not_let_a_file_be_created_outside(
    service: StorageService, root: Path, outside: Path
) -> None:
    (root / "user" / "link").symlink_to(outside / "new")

    with pytest.raises(StorageError) as error:
        await service.create("/user/link", pieces(b"data"))

    assert error.value.symbol == "ELOOP"
    assert snapshot(outside) == [("secret", b"secret")]


async def test_a_link_is_listed_as_a_file(
    service: StorageService, root: Path, outside: Path
) -> None:
    (root / "user" / "link").symlink_to(outside)

    (entry,) = await listing(service, "/user")

    assert (entry.path, entry.is_dir) == ("link", False)
    assert entry.size == len(str(outside))
    assert not (await service.stat("/user/link")).is_dir


async def test_removing_takes_the_link_and_leaves_its_target(
    service: StorageService, root: Path, outside: Path
) -> None:
    (root / "user" / "a").mkdir()
    (root / "user" / "a" / "link").symlink_to(outside)

    removed = await removal(service, "/user/a")

    assert removed == [Removed("/user/a/link", False), Removed("/user/a", True)]
    assert snapshot(outside) == [("secret", b"secret")]


async def test_renaming_moves_the_link_or_replaces_it(
    service: StorageService, root: Path, outside: Path
) -> None:
    (root / "user" / "link").symlink_to(outside / "secret")
    await service.rename("/user/link", "/user/moved")
    assert (root / "user" / "moved").is_symlink()

    await service.create("/user/mine", pieces(b"mine"))
    await service.rename("/user/mine", "/user/moved")

    assert snapshot(root / "user") == [("moved", b"mine")]
    assert snapshot(outside) == [("secret", b"secret")]


async def attempt(service: StorageService, operation: str, path: str) -> None:
    if operation == "stat":
        await service.stat(path)
    elif operation == "list":
        await listing(service, path)
    elif operation == "read":
        await content(service, path)
    elif operation == "create":
        await service.create(path, pieces(b"broken"))
    elif operation == "write":
        await service.write(path, 0, pieces(b"broken"))
    elif operation == "mkdir":
        await service.make_folders(path)
    elif operation == "rm":
        await removal(service, path)
    elif operation == "mv":
        await service.rename(path, "/user/stolen")
    elif operation == "mv-to":
        await service.rename("/user/mine", path)
    else:
        await service.disk_usage(path)


# Reading and writing


async def test_create_makes_parents_and_truncates(service: StorageService, root: Path) -> None:
    await service.create("/user/a/b/c", pieces(b"long ", b"content"))
    assert (root / "user/a/b/c").read_bytes() == b"long content"

    await service.create("/user/a/b/c", pieces(b"short"))

    assert (root / "user/a/b/c").read_bytes() == b"short"


async def test_write_replaces_a_range_and_keeps_the_rest(
    service: StorageService, root: Path
) -> None:
    await service.create("/user/a", pieces(b"0123456789"))

    await service.write("/user/a", 2, pieces(b"ab", b"c"))

    assert (root / "user/a").read_bytes() == b"01abc56789"


async def test_write_past_the_end_leaves_a_gap(service: StorageService, root: Path) -> None:
    await service.create("/user/a", pieces(b"01"))

    await service.write("/user/a", 4, pieces(b"ab"))

    assert (root / "user/a").read_bytes() == b"01\0\0ab"


async def test_write_needs_an_existing_file(service: StorageService, root: Path) -> None:
    with pytest.raises(NotFound, match="'/ORG/user/a' does not exist in storage"):
        await service.write("/ORG/user/a", 0, pieces(b"data"))

    assert snapshot(root) == [("user", b"")]


async def test_concurrent_writers_fill_different_ranges(
    service: StorageService, root: Path
) -> None:
    size = 100_000
    await service.create("/user/a", pieces(b""))

    async def write(number: int) -> None:
        data = bytes([number]) * (size // 2)
        await service.write("/user/a", number * size, pieces(data, data))

    await asyncio.gather(*(write(number) for number in range(16)))

    expected = b"".join(bytes([number]) * size for number in range(16))
    assert (root / "user/a").read_bytes() == expected


async def arriving(data: bytes) -> AsyncIterator[bytes]:
    """Give the bytes and then break off."""
    yield data
    raise ConnectionResetError


@pytest.mark.parametrize("data", [b"", b"arrived"])
async def test_upload_interrupted_in_its_first_block_changes_nothing(
    service: StorageService, root: Path, data: bytes
) -> None:
    await service.create("/user/a", pieces(b"kept"))
    before = snapshot(root)

    for name in ("a", "b"):
        with pytest.raises(ConnectionResetError):
            await service.create(f"/user/{name}", arriving(data))

    assert snapshot(root) == before


async def test_a_later_interruption_leaves_what_had_arrived(
    service: StorageService, root: Path
) -> None:
    first = b"arrived" * 200_000
    await service.create("/user/a", pieces(b"old" * 600_000))

    with pytest.raises(ConnectionResetError):
        await service.create("/user/a", arriving(first))

    assert (root / "user/a").read_bytes() == first


@pytest.mark.parametrize("before", [b"", b"old" * 100_000])
async def test_crash_while_a_file_is_created_leaves_a_beginning_of_it(
    service: StorageService, root: Path, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    new = os.urandom(200_000)
    if before:
        await service.create("/user/file", pieces(before))

    def crash(file: FileIO, data: bytes) -> None:
        file.write(data[:1000])
        raise RuntimeError("as if the process were gone")

    monkeypatch.setattr(storage, "_write_all", crash)
    with pytest.raises(RuntimeError):
        await service.create("/user/file", pieces(new))

    # Clients go on behind what is there, by its size alone.
    assert (root / "user" / "file").read_bytes() == new[:1000]


async def test_shorter_file_replaces_a_longer_one(service: StorageService, root: Path) -> None:
    await service.create("/user/a", pieces(b"0123456789"))

    await service.create("/user/a", pieces(b"new"))

    assert (root / "user/a").read_bytes() == b"new"


async def test_cancelling_an_upload_closes_the_file(service: StorageService, root: Path) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"arrived" * 200_000
        waiting.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(service.create("/user/a", endless()))
    await asyncio.wait_for(waiting.wait(), 10)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert (root / "user/a").read_bytes() == b"arrived" * 200_000
    assert not open_files_under(root)


async def test_reading_gives_the_span(service: StorageService) -> None:
    data = bytes(range(256)) * 10_000
    await service.create("/user/a", pieces(data))

    async with service.open("/user/a") as file:
        assert file.size == len(data)
        span = [piece async for piece in file.read(range(5, 2_000_005))]

    assert b"".join(span) == data[5:2_000_005]
    assert max(len(piece) for piece in span) <= 1024 * 1024


async def test_reading_a_file_that_shrinks_fails(service: StorageService, root: Path) -> None:
    await service.create("/user/a", pieces(b"0123456789"))

    async with service.open("/user/a") as file:
        os.truncate(root / "user/a", 4)
        with pytest.raises(StorageError, match="became shorter") as error:
            [piece async for piece in file.read(range(file.size))]

    assert error.value.symbol == "EIO"


@pytest.mark.parametrize("operation", ["read", "create", "write"])
async def test_a_named_pipe_is_refused_without_waiting(
    service: StorageService, root: Path, operation: str
) -> None:
    os.mkfifo(root / "user" / "pipe")

    with pytest.raises(StorageError):
        await asyncio.wait_for(attempt(service, operation, "/user/pipe"), 10)

    assert not open_files_under(root)


@pytest.mark.parametrize("operation", ["read", "create", "write"])
@pytest.mark.parametrize("path", ["/", "/user", "/ORG"])
async def test_a_folder_is_not_a_file(service: StorageService, operation: str, path: str) -> None:
    with pytest.raises(StorageError) as error:
        await attempt(service, operation, path)

    assert error.value.symbol == "EISDIR"


# Listing, folders, removing, renaming


async def test_listing_gives_bare_names(service: StorageService, root: Path) -> None:
    await service.create("/user/a/file", pieces(b"data"))
    await service.make_folders("/user/a/folder")
    os.utime(root / "user/a/file", (0, 1234567890.9))
    os.utime(root / "user/a/folder", (0, 1234567000))

    entries = await listing(service, "/user/a")

    assert sorted(entries, key=lambda entry: entry.path) == [
        FileStatus("file", is_dir=False, size=4, modified=1234567890),
        FileStatus("folder", is_dir=True, size=0, modified=1234567000),
    ]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
async def test_listing_is_complete_over_batches(
    service: StorageService, root: Path, count: int
) -> None:
    (root / "user" / "many").mkdir()
    for number in range(count):
        (root / "user" / "many" / str(number)).touch()

    batches = [batch async for batch in service.list("/user/many")]

    assert {entry.path for batch in batches for entry in batch} == {str(n) for n in range(count)}
    assert all(1 <= len(batch) <= ENTRIES_AT_ONCE for batch in batches)


async def test_a_listing_given_up_closes_the_folder(service: StorageService, root: Path) -> None:
    for number in range(1000):
        (root / "user" / str(number)).touch()

    batches = service.list("/user")
    await batches.__anext__()
    await batches.aclose()

    assert not open_files_under(root)


async def test_make_folders_is_repeatable(service: StorageService, root: Path) -> None:
    await service.make_folders("/ORG/user/a/b")
    await service.make_folders("/user/a/b")
    await service.make_folders("/")

    assert snapshot(root) == [("user", b""), ("user/a", b""), ("user/a/b", b"")]


@pytest.mark.parametrize("path, symbol", [("/user/file", "EEXIST"), ("/user/file/x", "ENOTDIR")])
async def test_make_folders_stops_at_a_file(
    service: StorageService, path: str, symbol: str
) -> None:
    await service.create("/user/file", pieces(b"data"))

    with pytest.raises(StorageError) as error:
        await service.make_folders(path)

    assert error.value.symbol == symbol


async def test_removing_a_folder_needs_recursive(service: StorageService, root: Path) -> None:
    await service.make_folders("/user/a")

    with pytest.raises(StorageError) as error:
        await removal(service, "/user/a", recursive=False)

    assert error.value.symbol == "EISDIR"
    assert (root / "user/a").is_dir()


async def test_removing_a_large_tree_reports_every_entry_once(
    service: StorageService, root: Path
) -> None:
    expected = {"/user/a"}
    for folder in range(3):
        (root / "user/a" / str(folder)).mkdir(parents=True)
        expected.add(f"/user/a/{folder}")
        for number in range(200):
            (root / "user/a" / str(folder) / str(number)).touch()
            expected.add(f"/user/a/{folder}/{number}")

    removed = await removal(service, "/user/a")

    assert len(removed) == len(expected)
    assert {entry.path for entry in removed} == expected
    assert snapshot(root) == [("user", b"")]


async def test_what_was_removed_before_an_error_is_still_reported(
    service: StorageService, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.create("/user/a/file", pieces(b"data"))

    def busy(name: str, *, dir_fd: int) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "rmdir", busy)
    batches = service.remove("/user/a", recursive=True)

    assert await batches.__anext__() == [Removed("/user/a/file", False)]
    with pytest.raises(StorageError, match="'/user/a': Device or resource busy") as error:
        await batches.__anext__()
    assert error.value.symbol == "EBUSY"


async def test_rename_treats_both_names_alike(service: StorageService, root: Path) -> None:
    await service.create("/user/a", pieces(b"data"))

    await service.rename("/user/a", "/ORG/user/b")

    assert snapshot(root) == [("user", b""), ("user/b", b"data")]


@pytest.mark.parametrize(
    "source, destination, symbol",
    [
        ("/user/file", "/user/folder", "EISDIR"),
        ("/user/folder", "/user/file", "ENOTDIR"),
        ("/user/folder", "/user/full", "ENOTEMPTY"),
        ("/user/full", "/user/full/inside", "EINVAL"),
        ("/user/file", "/user/file/x", "ENOTDIR"),
        ("/user/file", "/user/" + "x" * 300, "ENAMETOOLONG"),
        ("/", "/user/x", "EBUSY"),
        ("/user/file", "/ORG", "EBUSY"),
    ],
)
async def test_rename_that_the_file_system_refuses(
    service: StorageService, root: Path, source: str, destination: str, symbol: str
) -> None:
    await service.create("/user/file", pieces(b"data"))
    await service.create("/user/full/file", pieces(b"data"))
    await service.make_folders("/user/folder")
    before = snapshot(root)

    with pytest.raises(StorageError) as error:
        await service.rename(source, destination)

    assert error.value.symbol == symbol
    assert snapshot(root) == before


@pytest.mark.parametrize("operation", ["stat", "list", "read", "write", "rm", "mv", "df"])
async def test_a_missing_path_is_not_found(service: StorageService, operation: str) -> None:
    with pytest.raises(NotFound, match="'/user/none' does not exist"):
        await attempt(service, operation, "/user/none")


async def test_disk_usage_adds_up(service: StorageService) -> None:
    usage = await service.disk_usage("/user")

    assert usage.total > 0
    assert usage.used + usage.free <= usage.total


# Mounts


def test_mount_of_a_missing_folder_makes_it(service: StorageService, root: Path) -> None:
    path = service.resolve_for_mount("/ORG/user/a/b")

    assert path == root.resolve() / "user" / "a" / "b"
    assert path.is_dir()


async def test_mount_of_what_exists(service: StorageService, root: Path) -> None:
    await service.create("/user/file", pieces(b"data"))

    assert service.resolve_for_mount("/user/file").read_bytes() == b"data"
    assert service.resolve_for_mount("/user") == root.resolve() / "user"
    assert service.resolve_for_mount("/") == root.resolve()


@pytest.mark.parametrize(
    "path, symbol",
    [
        ("/user/link", "ELOOP"),
        ("/user/link/new", "ENOTDIR"),
        ("/user/link/secret", "ENOTDIR"),
        ("/user/pipe", "EINVAL"),
        ("/user/pipe/x", "ENOTDIR"),
    ],
)
def test_mount_of_a_link_or_a_special_file_is_refused(
    service: StorageService, root: Path, outside: Path, path: str, symbol: str
) -> None:
    (root / "user" / "link").symlink_to(outside)
    os.mkfifo(root / "user" / "pipe")

    with pytest.raises(StorageError) as error:
        service.resolve_for_mount(path)

    assert error.value.symbol == symbol
    assert snapshot(outside) == [("secret", b"secret")]


def open_files_under(root: Path) -> List[str]:
    if not Path("/proc").is_dir():
        pytest.skip("open files can be counted under /proc only")
    return [path for path in open_files() if path.startswith(str(root.resolve()))]
