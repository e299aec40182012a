"""`upload_*`, `download_*` and `clean_*`: the same bytes at both ends, and nothing lost."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Dict

import pytest

from .commands import Command, wait_until
from .conftest import Render, no_client, no_job
from .platform import Platform
from .project import Project

pytestmark = no_job

# Large enough to be caught in the middle.
LARGE = 192 * 2**20

ODD_NAME = "naïve file [1] 100% 'quoted'.txt"


def files(folder: Path) -> Dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write_large(path: Path) -> str:
    """Write a file without repetition; return its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = random.Random(0).randbytes(2**20)
    with path.open("wb") as file:
        for number in range(LARGE // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    return checksum(path)


def checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def kill_in_the_middle(command: Command, folder: Path) -> None:
    """End a command's client without warning, while a large file grows below the folder."""

    def grown() -> bool:
        assert not command.ended, "it was too quick to be caught in the middle"
        return any(path.stat().st_size > LARGE // 20 for path in folder.rglob("large.bin"))

    wait_until(grown, f"the copy grows in {folder}")
    command.signal(signal.SIGKILL)
    command.wait(code=-signal.SIGKILL)


@pytest.mark.parametrize("folder", ["code", "data", "notebooks"])
def test_upload_brings_the_same_bytes(project: Project, folder: str) -> None:
    project.write(f"{folder}/deep/er/{ODD_NAME}", os.urandom(100_000))
    project.write(f"{folder}/empty", "")

    project.make(f"upload_{folder}")

    stored = files(project.storage(folder))
    expected = files(project.path / folder)
    expected.pop(".gitkeep", None)
    assert stored == expected


def test_upload_copies_all_three_folders(project: Project) -> None:
    project.write("data/numbers.csv", "1,2,a\n")

    project.make("upload")

    assert project.storage("code/train.py").exists()
    assert project.storage("data/numbers.csv").exists()
    assert project.storage("notebooks/demo.ipynb").exists()


def test_upload_leaves_junk_at_home(project: Project) -> None:
    project.write("code/__pycache__/train.cpython-312.pyc", "junk")
    project.write("code/.train.py.swp", "junk")
    project.write("notebooks/.ipynb_checkpoints/demo.ipynb", "junk")

    project.make("upload")

    stored = files(project.storage())
    assert not [name for name in stored if "pyc" in name or "swp" in name or "checkpoint" in name]


def test_upload_takes_data_that_git_ignores(project: Project) -> None:
    project.write("data/ignored/model.ckpt", "weights")

    project.make("upload_data")

    assert files(project.storage("data")) == {"ignored/model.ckpt": b"weights"}


def test_upload_replaces_code_whole(project: Project) -> None:
    project.make("upload_code")
    project.write("code/train.py", "print('new')\n")
    older = time.time() - 3600
    os.utime(project.path / "code/train.py", (older, older))

    project.make("upload_code")

    assert project.storage("code/train.py").read_text() == "print('new')\n"


def test_second_upload_of_data_moves_nothing(project: Project) -> None:
    # The client takes what changed within a second or two of its upload for changed since.
    older = time.time() - 60
    os.utime(project.write("data/a.bin", os.urandom(1000)), (older, older))
    os.utime(project.write("data/sub/b.bin", os.urandom(2_000_000)), (older, older))
    project.make("upload_data")
    before = {path: path.stat().st_mtime_ns for path in project.storage("data").rglob("*.bin")}

    project.make("upload_data")

    after = {path: path.stat().st_mtime_ns for path in project.storage("data").rglob("*.bin")}
    assert len(before) == 2
    assert after == before


def test_upload_of_data_takes_what_changed(project: Project) -> None:
    project.write("data/a.txt", "old")
    project.make("upload_data")
    later = time.time() + 10
    os.utime(project.write("data/a.txt", "new and longer"), (later, later))
    project.write("data/b.txt", "added")

    project.make("upload_data")

    assert files(project.storage("data")) == {"a.txt": b"new and longer", "b.txt": b"added"}


def test_full_upload_of_data_heals_what_times_do_not_show(project: Project) -> None:
    project.write("data/a.txt", "right")
    project.make("upload_data")
    project.store("data/a.txt", "wrong")

    project.make("upload_data", FULL="1")

    assert files(project.storage("data")) == {"a.txt": b"right"}


def test_interrupted_upload_of_data_is_completed_by_the_next(project: Project) -> None:
    expected = write_large(project.path / "data" / "large.bin")
    with project.start("upload_data") as upload:
        kill_in_the_middle(upload, project.storage("data"))
    assert project.storage("data/large.bin").stat().st_size < LARGE

    project.make("upload_data")

    assert checksum(project.storage("data/large.bin")) == expected


def test_interrupted_upload_of_code_is_completed_by_the_next(project: Project) -> None:
    expected = write_large(project.path / "code" / "large.bin")
    with project.start("upload_code") as upload:
        kill_in_the_middle(upload, project.storage("code"))

    project.make("upload_code")

    assert checksum(project.storage("code/large.bin")) == expected


def test_data_can_live_elsewhere(project: Project) -> None:
    project.write("data/a.txt", "a")
    elsewhere = f"{project.slug}-shared/data"

    project.make("upload_data", DATA_STORAGE=f"storage:{elsewhere}")

    assert files(project.platform.storage(elsewhere)) == {"a.txt": b"a"}
    assert not project.storage("data").exists()


@no_client
@pytest.mark.parametrize("target", ["upload_code", "upload_data", "upload_notebooks"])
def test_upload_of_a_missing_folder_says_so(project: Project, target: str) -> None:
    folder = target.replace("upload_", "")
    (project.path / folder).rename(project.path / "away")

    project.fails(target, says=f"there is no folder {folder}/ here")

    assert not project.storage().exists()


def test_upload_fails_when_the_platform_is_gone(render: Render, dead_platform: Platform) -> None:
    project = render(dead_platform)

    project.fails("upload_code", says="the upload is not complete")


def test_upload_fails_when_the_login_expired(render: Render, expired_platform: Platform) -> None:
    project = render(expired_platform)

    project.fails("upload", says="the upload is not complete")


def test_upload_fails_when_the_platform_goes_in_the_middle(
    render: Render, other_platform: Platform
) -> None:
    project = render(other_platform)
    expected = write_large(project.path / "data" / "large.bin")

    with project.start("upload_data") as upload:
        wait_until(lambda: list(project.storage("data").rglob("large.bin")), "the upload begins")
        other_platform.kill()
        upload.wait(code=2).explains("the upload is not complete")

    other_platform.up()
    project.make("upload_data")
    assert checksum(project.storage("data/large.bin")) == expected


def test_download_of_results_brings_the_same_bytes(project: Project) -> None:
    project.store(f"results/lr-01/{ODD_NAME}", os.urandom(100_000))
    project.store("results/metrics.json", "{}\n")

    project.make("download_results")

    local = files(project.path / "results")
    local.pop(".gitkeep")
    assert local == files(project.storage("results"))


def test_download_of_one_run_brings_its_results_only(project: Project) -> None:
    project.store("results/one/metrics.json", "1")
    project.store("results/two/metrics.json", "2")

    project.make("download_results", RUN="one")

    assert (project.path / "results/one/metrics.json").read_text() == "1"
    assert not (project.path / "results/two").exists()


def test_upload_of_notebooks_keeps_what_jupyter_saved(project: Project) -> None:
    project.make("upload_notebooks")
    later = time.time() + 60
    saved = project.store("notebooks/demo.ipynb", "saved in Jupyter")
    os.utime(saved, (later, later))
    project.write("notebooks/new.ipynb", "{}")

    said = project.make("upload_notebooks").stdout

    assert "newer there stays" in said
    assert saved.read_text() == "saved in Jupyter"
    assert project.storage("notebooks/new.ipynb").read_text() == "{}"
    project.make("upload_notebooks", FULL="1")
    assert saved.read_bytes() == (project.path / "notebooks/demo.ipynb").read_bytes()


def test_download_of_notebooks_brings_new_ones(project: Project) -> None:
    project.store("notebooks/sub/new.ipynb", "{}")

    project.make("download_notebooks")

    assert (project.path / "notebooks/sub/new.ipynb").read_text() == "{}"


def test_download_of_notebooks_takes_the_newer(project: Project) -> None:
    project.write("notebooks/old.ipynb", "local")
    later = time.time() + 10
    os.utime(project.store("notebooks/old.ipynb", "from storage"), (later, later))

    project.make("download_notebooks")

    assert (project.path / "notebooks/old.ipynb").read_text() == "from storage"


def test_download_of_notebooks_keeps_newer_local_ones(project: Project) -> None:
    older = time.time() - 3600
    os.utime(project.store("notebooks/mine.ipynb", "from storage"), (older, older))
    project.write("notebooks/mine.ipynb", "local")

    project.make("download_notebooks")

    assert (project.path / "notebooks/mine.ipynb").read_text() == "local"


def test_interrupted_download_of_results_is_completed_by_the_next(project: Project) -> None:
    expected = write_large(project.storage("results/large.bin"))
    with project.start("download_results") as download:
        kill_in_the_middle(download, project.path / "results")

    project.make("download_results")

    assert checksum(project.path / "results/large.bin") == expected


def test_interrupted_download_of_notebooks_is_completed_by_the_next(project: Project) -> None:
    expected = write_large(project.storage("notebooks/large.bin"))
    with project.start("download_notebooks") as download:
        kill_in_the_middle(download, project.path)

    project.make("download_notebooks")

    assert checksum(project.path / "notebooks/large.bin") == expected


@pytest.mark.parametrize("target", ["download_results", "download_notebooks"])
def test_download_of_nothing_says_so(project: Project, target: str) -> None:
    project.fails(target, says="the download is not complete")


@pytest.mark.parametrize("folder", ["code", "data", "notebooks", "results"])
def test_clean_empties_the_folder_and_no_other(project: Project, folder: str) -> None:
    project.store(f"{folder}/sub/.hidden", "x")
    project.store(f"{folder}/visible", "x")
    project.store("other/kept", "x")

    result = project.make(f"clean_{folder}", YES="1")

    assert f"storage:{project.slug}/{folder}" in result.stdout
    assert list(project.storage(folder).iterdir()) == []
    assert project.storage("other/kept").exists()


def test_clean_of_all_keeps_results(project: Project) -> None:
    for folder in ("code", "data", "notebooks", "results"):
        project.store(f"{folder}/file", "x")

    project.make("clean", YES="1")

    assert list(files(project.storage())) == ["results/file"]


def test_clean_succeeds_when_there_is_nothing(project: Project) -> None:
    project.make("clean", YES="1")

    assert files(project.storage()) == {}


def test_clean_keeps_a_project_whose_name_begins_alike(project: Project) -> None:
    neighbour = project.platform.storage(f"{project.slug}-two/data/kept")
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text("x")
    project.store("data/gone", "x")

    project.make("clean", YES="1")

    assert neighbour.exists()


def test_clean_asks_no_pipe(project: Project) -> None:
    project.store("code/file", "x")

    project.make("clean_code")

    assert not project.storage("code/file").exists()


def test_clean_at_a_terminal_waits_for_a_yes(project: Project) -> None:
    project.store("code/file", "x")

    with project.at_terminal("clean_code") as terminal:
        terminal.wait_for(f"storage:{project.slug}/code")
        terminal.wait_for("[y/N]")
        assert project.storage("code/file").exists()
        terminal.type("y\n")
        terminal.wait()

    assert not project.storage("code/file").exists()


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_clean_at_a_terminal_takes_all_else_for_a_no(project: Project, answer: str) -> None:
    project.store("code/file", "x")

    with project.at_terminal("clean_code") as terminal:
        terminal.wait_for("[y/N]")
        terminal.type(answer)
        screen = terminal.wait(code=2)

    assert "nothing was deleted" in screen
    assert project.storage("code/file").exists()


def test_clean_at_a_terminal_can_be_told_yes_before(project: Project) -> None:
    project.store("code/file", "x")

    with project.at_terminal("clean_code", YES="1") as terminal:
        screen = terminal.wait()

    assert "[y/N]" not in screen
    assert not project.storage("code/file").exists()


@no_client
def test_clean_data_refuses_data_elsewhere(project: Project) -> None:
    elsewhere = f"{project.slug}-shared"
    kept = project.platform.storage(f"{elsewhere}/images.bin")
    kept.parent.mkdir()
    kept.write_text("x")

    project.fails(
        "clean_data", DATA_STORAGE=f"storage:{elsewhere}", YES="1", says="never cleaned from here"
    )

    assert kept.exists()


def test_clean_of_all_keeps_data_elsewhere(project: Project) -> None:
    elsewhere = f"{project.slug}-shared"
    kept = project.platform.storage(f"{elsewhere}/images.bin")
    kept.parent.mkdir()
    kept.write_text("x")
    project.store("code/file", "x")

    result = project.make("clean", DATA_STORAGE=f"storage:{elsewhere}", YES="1")

    assert "Kept" in result.stdout
    assert kept.exists()
    assert not project.storage("code/file").exists()


@no_client
@pytest.mark.parametrize(
    "variables",
    [
        {"PROJECT_STORAGE": ""},
        {"PROJECT_STORAGE": "storage:"},
        {"PROJECT_STORAGE": "storage:/"},
        {"PROJECT_STORAGE": " "},
        {"PROJECT_STORAGE": "storage:a storage:b"},
        {"PROJECT_STORAGE": "storage:../user"},
        {"PROJECT_STORAGE": "storage:*"},
        {"DATA_STORAGE": ""},
        {"DATA_STORAGE": "data"},
    ],
)
@pytest.mark.parametrize("target", ["clean", "upload"])
def test_addresses_that_name_no_folder_are_refused(
    project: Project, target: str, variables: Dict[str, str]
) -> None:
    project.store("data/file", "x")
    user = project.platform.storage()
    before = set(user.iterdir())

    project.fails(target, YES="1", says="must look like storage:folder", **variables)

    assert files(project.storage()) == {"data/file": b"x"}
    after = set(user.iterdir())
    assert before <= after
    # The project whose setup goes on beside the tests may make its folder at any time.
    assert all(folder.name.startswith("e2e-") for folder in after - before)


def test_clean_fails_when_the_platform_is_gone(render: Render, dead_platform: Platform) -> None:
    project = render(dead_platform)
    project.store("code/file", "x")

    project.fails("clean_code", YES="1", says="could not delete all of it")

    assert project.storage("code/file").exists()


def test_clean_fails_when_the_login_expired(render: Render, expired_platform: Platform) -> None:
    project = render(expired_platform)
    project.store("code/file", "x")

    project.fails("clean", YES="1", says="could not delete all of it")

    assert project.storage("code/file").exists()
