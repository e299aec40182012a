"""What uploads, downloads and cleans call of the client, whole, on success and on failure."""

from __future__ import annotations

import os
import pty
import shlex
from typing import List

import pytest
from baking import Project, Reply
from targets import EXCLUDED, ROOT, sentence


def test_code_is_copied_whole(project: Project) -> None:
    result = project.make("upload_code")

    assert result.code == 0, result.err
    assert result.calls == [
        ["mkdir", "--parents", ROOT],
        ["cp", "--recursive", *EXCLUDED, "--target-directory", ROOT, "code"],
    ]


@pytest.mark.parametrize(("full", "how"), [("", ["--update"]), ("1", [])])
def test_notebooks_that_are_newer_on_storage_stay_unless_full(
    project: Project, full: str, how: List[str]
) -> None:
    result = project.make("upload_notebooks", f"FULL={full}")

    assert result.calls == [
        ["mkdir", "--parents", ROOT],
        ["cp", "--recursive", *EXCLUDED, *how, "--target-directory", ROOT, "notebooks"],
    ]
    assert ("newer" in result.out) is bool(how)


@pytest.mark.parametrize(("full", "how"), [("", ["--continue"]), ("1", [])])
def test_data_is_continued_unless_full(project: Project, full: str, how: List[str]) -> None:
    result = project.make("upload_data", f"FULL={full}")

    assert result.calls == [
        ["mkdir", "--parents", f"{ROOT}/data"],
        ["cp", "--recursive", *EXCLUDED, *how, "--no-target-directory", "data", f"{ROOT}/data"],
    ]


def test_upload_of_all_makes_four_calls(project: Project) -> None:
    result = project.make("upload", "DATA_STORAGE=storage:/team/images")

    data = "storage:/team/images"
    assert result.calls == [
        ["mkdir", "--parents", ROOT, data],
        ["cp", "--recursive", *EXCLUDED, "--target-directory", ROOT, "code"],
        ["cp", "--recursive", *EXCLUDED, "--update", "--target-directory", ROOT, "notebooks"],
        ["cp", "--recursive", *EXCLUDED, "--continue", "--no-target-directory", "data", data],
    ]


def test_the_ignore_file_may_have_windows_line_ends_and_comments(project: Project) -> None:
    (project.path / ".neuroignore").write_bytes(b"# junk\r\n\r\n*.tmp\r\n__pycache__/\r\n")
    (project.path / "a.tmp").touch()

    call = project.make("upload_code").calls[1]

    assert [w for w in call if w.startswith("--exclude")] == [
        "--exclude=*.tmp",
        "--exclude=__pycache__/",
    ]


@pytest.mark.parametrize("line", ["my folder/", "!keep.csv", "*.tmp  # junk"])
def test_the_ignore_file_has_no_blanks_and_no_exceptions(project: Project, line: str) -> None:
    (project.path / ".neuroignore").write_text(f"# my junk\n*.tmp  \n{line}\n")

    result = project.make("upload")

    assert result.code != 0
    assert result.calls == []
    assert f"3:{line}" in result.out
    assert ".neuroignore cannot hold the lines above" in sentence(result.err)


def test_without_an_ignore_file_all_is_copied(project: Project) -> None:
    (project.path / ".neuroignore").unlink()

    result = project.make("upload_code")

    assert result.code == 0
    assert result.err == ""
    assert result.calls[1] == ["cp", "--recursive", "--target-directory", ROOT, "code"]


@pytest.mark.parametrize("target", ["upload_code", "upload_data", "upload_notebooks", "upload"])
@pytest.mark.parametrize("words", ["mkdir", "cp"])
def test_a_failed_upload_is_a_failure(project: Project, target: str, words: str) -> None:
    result = project.make(target, replies=[Reply(words, 72)])

    assert result.code != 0
    assert result.commands[-1] == words
    assert sentence(result.err).startswith(f"{target}: the upload is not complete")


@pytest.mark.parametrize("folder", ["code", "data", "notebooks"])
@pytest.mark.parametrize("target", ["upload_{}", "upload"])
def test_a_missing_folder_is_said_before_any_call(
    project: Project, folder: str, target: str
) -> None:
    (project.path / folder).rename(project.path / "elsewhere")

    result = project.make(target.format(folder))

    assert result.code != 0
    assert result.calls == []
    assert f"there is no folder {folder}/ here" in sentence(result.err)


@pytest.mark.parametrize(
    ("target", "arguments", "folders", "patterns"),
    [
        ("clean_code", [], ["code"], ["storage:[m]y-project/[c]ode"]),
        ("clean_data", [], ["data"], ["storage:[m]y-project/[d]ata"]),
        ("clean_notebooks", [], ["notebooks"], ["storage:[m]y-project/[n]otebooks"]),
        ("clean_results", [], ["results"], ["storage:[m]y-project/[r]esults"]),
        (
            "clean",
            [],
            ["code", "data", "notebooks"],
            [f"storage:[m]y-project/{name}" for name in ("[c]ode", "[d]ata", "[n]otebooks")],
        ),
    ],
)
def test_clean_makes_two_calls(
    project: Project, target: str, arguments: List[str], folders: List[str], patterns: List[str]
) -> None:
    uris = [f"{ROOT}/{folder}" for folder in folders]

    result = project.make(target)

    assert result.code == 0, result.err
    assert result.calls == [["rm", "--recursive", *patterns], ["mkdir", "--parents", *uris]]
    assert [line.strip() for line in result.out.splitlines() if line.startswith("  ")] == uris


@pytest.mark.parametrize(
    ("root", "pattern"),
    [
        ("storage:a/b/c", "storage:[a]/[b]/[c]/[c]ode"),
        ("storage:/team/a", "storage:/team/[a]/code"),
        ("storage:/a", "storage:/[a]/code"),
        ("storage://cluster/org/team/a", "storage://cluster/org/team/[a]/code"),
    ],
)
def test_a_missing_parent_is_nothing_to_delete(project: Project, root: str, pattern: str) -> None:
    result = project.make("clean_code", f"PROJECT_STORAGE={root}")

    assert result.calls[0] == ["rm", "--recursive", pattern]


@pytest.mark.parametrize("target", ["clean_code", "clean_data", "clean_results", "clean"])
@pytest.mark.parametrize("words", ["rm", "mkdir"])
def test_a_failed_clean_is_a_failure(project: Project, target: str, words: str) -> None:
    result = project.make(target, replies=[Reply(words, 72)])

    assert result.code != 0
    assert result.commands[-1] == words
    assert sentence(result.err).startswith(f"{target}: ")
    assert "Done" not in result.out


@pytest.mark.parametrize("target", ["clean", "upload"])
@pytest.mark.parametrize(
    "root",
    [
        *["", "storage:", "storage:/", "storage://cluster", "storage:.", "storage:a/..", "a"],
        *["storage:..", "storage:a/", "storage:a b", "storage:*", "storage:$HOME", "storage:a\nb"],
    ],
)
def test_a_project_folder_that_is_no_folder_is_refused(
    project: Project, target: str, root: str
) -> None:
    result = project.make(target, f"PROJECT_STORAGE={root.replace('$', '$$')}")

    assert result.code != 0
    assert result.calls == []


def test_the_refusal_of_an_empty_variable_names_the_rule(project: Project) -> None:
    assert "must look like storage:folder/folder" in project.make("clean", "PROJECT_STORAGE=").err
    assert "must look like storage:folder/folder" in project.make("clean", "DATA_STORAGE=").err


@pytest.mark.parametrize(
    "data", ["storage:/team/images", "storage:my-project", "storage:my-project-2/data"]
)
def test_data_kept_elsewhere_is_never_cleaned(project: Project, data: str) -> None:
    alone = project.make("clean_data", f"DATA_STORAGE={data}")
    among = project.make("clean", f"DATA_STORAGE={data}")

    assert alone.code != 0
    assert alone.calls == []
    assert f"{data} is not below storage:my-project/" in sentence(alone.err)
    assert among.code == 0
    assert among.calls[1] == ["mkdir", "--parents", f"{ROOT}/code", f"{ROOT}/notebooks"]
    assert f"Kept: {data}" in among.out


@pytest.mark.parametrize(
    ("answer", "arguments", "deleted"),
    [
        ("y\n", [], True),
        ("YES\n", [], True),
        ("\n", [], False),
        ("n\n", [], False),
        ("yep\n", [], False),
        ("\x04", [], False),
        ("", ["YES=1"], True),
    ],
)
def test_clean_asks_at_a_terminal(
    project: Project, answer: str, arguments: List[str], deleted: bool
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())

    result = project.make("clean", *arguments, stdin=theirs)

    os.close(ours)
    os.close(theirs)
    assert (result.code == 0) is deleted
    assert bool(result.calls) is deleted
    assert ("Continue?" in result.out) is (not arguments)
    if not deleted:
        assert "nothing was deleted" in sentence(result.err)


def test_download_of_results(project: Project) -> None:
    result = project.make("download_results")

    assert result.code == 0
    assert result.calls == [
        [
            *["cp", "--recursive", "--continue", "--no-target-directory"],
            *[f"{ROOT}/results", "results"],
        ]
    ]


def test_download_of_one_trainings_results(project: Project) -> None:
    result = project.make("download_results", "RUN=lr-1", "FULL=1")

    assert result.calls == [
        ["cp", "--recursive", "--no-target-directory", f"{ROOT}/results/lr-1", "results/lr-1"]
    ]
    assert project.has("results/lr-1")


@pytest.mark.parametrize("target", ["download_results", "download_notebooks"])
def test_a_failed_download_is_a_failure(project: Project, target: str) -> None:
    before = project.files()

    result = project.make(
        target, replies=[Reply("cp", 72, sh="echo half > .notebooks.new/demo.ipynb")]
    )

    assert result.code != 0
    assert sentence(result.err).startswith(f"{target}: the download is not complete")
    assert project.files() == before


def test_download_of_notebooks_moves_in_whole_files(project: Project) -> None:
    old = project.read("notebooks/demo.ipynb")
    brought = (
        "cd .notebooks.new && echo new > demo.ipynb && mkdir 'a b' && echo x > 'a b/c d.ipynb'"
    )

    result = project.make("download_notebooks", replies=[Reply("cp", sh=brought)])

    assert result.code == 0, result.err
    assert result.calls == [
        [
            *["cp", "--recursive", "--update", "--no-target-directory"],
            *[f"{ROOT}/notebooks", ".notebooks.new"],
        ]
    ]
    assert project.read("notebooks/demo.ipynb") == "new\n"
    assert project.read("notebooks/demo.ipynb~") == old
    assert project.read("notebooks/a b/c d.ipynb") == "x\n"
    assert not project.has(".notebooks.new")


@pytest.mark.parametrize(
    "name", ["-n", "a\\c b.ipynb", "$(touch CANARY)", "`touch CANARY`", "a'b\"c", "a\nb", "%s", " "]
)
def test_notebooks_of_any_name_are_brought(project: Project, name: str) -> None:
    create = f"cd .notebooks.new && echo new >./{shlex.quote(name)}"

    result = project.make("download_notebooks", replies=[Reply("cp", sh=create)])

    assert result.code == 0, result.err
    assert project.read(f"notebooks/{name}") == "new\n"
    assert f"Brought: {name}\n" in result.out
    assert not project.has("CANARY") and not project.has("notebooks/CANARY")


def test_download_keeps_a_notebook_that_was_saved_meanwhile(project: Project) -> None:
    saved = "echo old > .notebooks.new/demo.ipynb; sleep 0.05; echo saved > notebooks/demo.ipynb"

    assert project.make("download_notebooks", replies=[Reply("cp", sh=saved)]).code == 0

    assert project.read("notebooks/demo.ipynb") == "saved\n"


def test_times_are_kept_for_the_clients_comparison(project: Project) -> None:
    os.utime(project.path / "notebooks/demo.ipynb", (1e9, 1e9))
    look = Reply("cp", sh="find .notebooks.new -name demo.ipynb -newermt 2002-01-01 > newer")

    assert project.make("download_notebooks", replies=[look]).code == 0

    assert project.read("newer") == ""
