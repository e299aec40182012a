"""The images that the sandbox has without a registry: what they are, and that they work."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
from pathlib import Path
from typing import Any, AsyncIterator, List, Mapping, Optional, Set, Tuple

import pytest
from enginekit import executed, ran, ready, start

from neuro_local import config
from neuro_local.engines.base import Mount, Task
from neuro_local.engines.sandbox import catalogue
from neuro_local.engines.sandbox.catalogue import CATALOGUE, FILES, Entry
from neuro_local.engines.sandbox.engine import SandboxEngine

README = Path(config.__file__).with_name("README.md")
# How the projects' Makefile starts it: the command line of the real program.
FILEBROWSER = (
    "/filebrowser --noauth --address 0.0.0.0 --port 80 --root /srv --database /tmp/filebrowser.db"
)
SHOWN = "filebrowser/filebrowser:v2.32.0"


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("catalogue")


@pytest.fixture
async def engine(state: Path) -> AsyncIterator[SandboxEngine]:
    # The user's own cache, as in the end-to-end tests: what is made here serves both.
    cache = config.load(None, os.environ).cache
    made = SandboxEngine(state, cache=cache, environ=os.environ)
    await ready(made)
    yield made
    await made.close()


class Page:
    """What the stand-in shows to a browser, over a connection into its job."""

    def __init__(self, task: Task) -> None:
        self.task = task

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Optional[Mapping[str, str]] = None
    ) -> Tuple[int, bytes]:
        connection = await self.task.connect(80)
        connection.setblocking(True)

        def ask() -> Tuple[int, bytes]:
            client = http.client.HTTPConnection("127.0.0.1:8080", timeout=10)
            client.sock = connection
            try:
                client.request(method, path, body, dict(headers or {}))
                answer = client.getresponse()
                return answer.status, answer.read()
            finally:
                client.close()

        return await asyncio.to_thread(ask)

    async def upload(self, name: str, content: bytes) -> int:
        lines = (
            b"--limit",
            b'Content-Disposition: form-data; name="act"',
            b"",
            b"bput",
            b"--limit",
            b'Content-Disposition: form-data; name="f"; filename="%s"' % name.encode(),
            b"",
            content,
            b"--limit--",
            b"",
        )
        form = {"Content-Type": "multipart/form-data; boundary=limit"}
        status, _ = await self.request("POST", "/", b"\r\n".join(lines), form)
        return status

    async def listed(self) -> Set[str]:
        _, body = await self.request("GET", "/?ls&dots")
        return {file["href"] for file in json.loads(body)["files"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The storage folder that the file browser shows."""
    (tmp_path / "srv").mkdir()
    return tmp_path / "srv"


@pytest.fixture
async def page(engine: SandboxEngine, folder: Path) -> Page:
    page = Page(await browser(engine, folder))
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            await page.request("GET", "/")
            return page
        except ConnectionRefusedError:
            assert asyncio.get_running_loop().time() < deadline, "the stand-in does not answer"
            await asyncio.sleep(0.02)


async def browser(engine: SandboxEngine, folder: Path, **spec: Any) -> Task:
    spec["mounts"] = [Mount(folder, "/srv", read_only=False)]
    return await start(engine, image=SHOWN, entrypoint=FILEBROWSER.split(), **spec)


@pytest.mark.parametrize(
    "reference",
    [
        "tensorflow/tensorflow",
        "tensorflow/tensorflow:2.16.1-gpu",
        "docker.io/tensorflow/tensorflow:latest",
        "tensorflow/tensorflow:2.16.1@sha256:0123",
    ],
)
def test_image_is_known_under_any_tag(reference: str) -> None:
    entry = catalogue.find(reference)

    assert entry is not None and entry.repository == "tensorflow/tensorflow"


@pytest.mark.parametrize(
    "reference",
    [
        "tensorflow",
        "tensorflow/tensorflow-dev",
        "me/tensorflow/tensorflow",
        "localhost:5000/python",
    ],
)
def test_other_images_are_not_of_the_catalogue(reference: str) -> None:
    assert catalogue.find(reference) is None


def test_layers_name_changes_with_what_it_is_made_of() -> None:
    entry = CATALOGUE[1]

    names = {
        entry.layer("base-1"),
        entry.layer("base-2"),
        Entry("x", "", entry.requirements).layer("base-1"),
    }

    assert len(names) == 3


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.repository)
def test_readme_lists_the_image_with_its_version(entry: Entry) -> None:
    program = Path(entry.requirements).stem.replace("filebrowser", "copyparty")
    version = dict(pins(entry))[program]

    rows = [row for row in README.read_text().splitlines() if f"| `{entry.repository}` |" in row]

    assert len(rows) == 1 and version in rows[0]


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.repository)
async def test_image_holds_nothing_that_is_not_pinned(engine: SandboxEngine, entry: Entry) -> None:
    done = await ran(engine, entrypoint=["pip", "freeze", "--all"], image=entry.repository)

    assert done.code == 0, done
    unpinned = set(done.out.splitlines()) - {"==".join(pin) for pin in pins(entry)}
    # Of the Python that made the base.
    assert {name.partition("==")[0] for name in unpinned} <= {"pip", "setuptools", "wheel"}


async def test_tensorboard_runs(engine: SandboxEngine) -> None:
    command = ["python", "-m", "tensorboard.main", "--version"]

    done = await ran(engine, *command, image="docker.io/tensorflow/tensorflow:2.16.1")

    assert (done.code, done.out) == (0, "2.21.0\n")


async def test_stand_in_says_what_it_is(page: Page) -> None:
    _, body = await page.request("GET", "/")

    assert b"stand-in" in body


async def test_stand_in_uploads_renames_and_deletes(page: Page, folder: Path) -> None:
    large = os.urandom(5_000_000)

    assert await page.upload("a b.bin", large) == 201
    assert await page.upload("gone.txt", b"x") == 201
    assert await page.listed() == {"a%20b.bin", "gone.txt"}
    assert (await page.request("GET", "/a%20b.bin"))[1] == large
    assert (await page.request("POST", "/a%20b.bin?move=/.c"))[0] == 201
    assert (await page.request("POST", "/gone.txt?delete"))[0] == 200
    assert await page.listed() == {".c"}

    # Exactly the user's files: neither an index nor thumbnails nor what an upload began with.
    assert [path.name for path in folder.rglob("*")] == [".c"]
    assert (folder / ".c").read_bytes() == large


async def test_stand_in_takes_no_orders_from_other_hosts_pages(page: Page, folder: Path) -> None:
    (folder / "kept").write_text("x")

    status, _ = await page.request("POST", "/kept?delete", headers={"Origin": "http://example.org"})

    assert (status, (folder / "kept").exists()) == (403, True)


async def test_stand_in_follows_no_link_out_of_the_folder(page: Page, folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")

    answers = [await page.request("GET", path) for path in ("/passwd", "/etc/passwd", "/etc/")]

    assert {status for status, _ in answers} <= {401, 403}
    assert await page.listed() == set()


async def test_stand_in_imports_nothing_from_the_folder(
    engine: SandboxEngine, folder: Path
) -> None:
    for name in ("copyparty", "json", "jinja2"):
        (folder / f"{name}.py").write_text("raise SystemExit('taken in')")

    task = await browser(engine, folder, working_dir="/srv")

    script = "until grep -q ':0050 .* 0A ' /proc/net/tcp; do sleep 0.02; done"
    assert (await executed(task, "sh", "-c", script)).code == 0


async def test_stand_in_listens_on_its_port_alone(page: Page) -> None:
    script = "cd /proc/net; tail -qn +2 tcp tcp6 udp udp6"
    done = await executed(page.task, "sh", "-c", script)

    sockets = [(row.split()[1], row.split()[3]) for row in done.out.splitlines()]
    listening = {address for address, status in sockets if status in ("0A", "07")}
    # The other one is the job's way out, which every job has.
    assert {address for address in listening if not address.startswith("0100007F:")} == {
        "00000000:0050"
    }
    assert len(listening) == 2


async def test_stand_in_is_on_the_path_too_as_in_newer_images(engine: SandboxEngine) -> None:
    done = await ran(engine, entrypoint=["filebrowser", "--help"], image=SHOWN)

    assert (done.code, "--noauth" in done.out) == (0, True)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "--noauth"),
        (["--noauth", "--root", "/no/folder"], "/no/folder"),
        (["--noauth", "--unknown"], "--unknown"),
    ],
)
async def test_stand_in_explains_what_it_cannot_do(
    engine: SandboxEngine, arguments: List[str], said: str
) -> None:
    # Without an entrypoint an image's own comes first.
    done = await ran(engine, *arguments, image=SHOWN)

    assert done.code != 0 and said in done.err


def pins(entry: Entry) -> List[Tuple[str, str]]:
    return re.findall(r"^([\w.-]+)==([\w.]+)", (FILES / entry.requirements).read_text(), re.M)
