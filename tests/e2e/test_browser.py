"""What `run_jupyter`, `run_tensorboard` and `run_filebrowser` open, worked in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Dict, Iterator, List
from urllib.parse import urljoin

import pytest
from dockerimages import STAND_IN

from .browser import Chromium, FileBrowser, JupyterLab, TensorBoard, started_chromium
from .conftest import DOCKER, Render, Trained
from .platform import fetch
from .project import Project, printed_address

# Writes scalars as a training does that goes on for as long as the test wants.
SLOW_TRAINING = """
import pathlib, time
from tensorboard.summary import Writer

results = pathlib.Path("../results")
writer = Writer(str(results))
step = 0
for goal in (5, 9):
    while step < goal:
        step += 1
        writer.add_scalar("accuracy", step / 10, step)
    writer.flush()
    print("at step", step, flush=True)
    while not (results / f"beyond-{goal}").exists():
        time.sleep(0.1)
writer.close()
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with started_chromium() as chromium:
        yield chromium


@pytest.fixture
def neighbour(render: Render, trainer: Project) -> Iterator[Project]:
    """Another project, with a notebook of its own in a Jupyter of its own."""
    project = render()
    project.variables.update(trainer.variables)
    project.mark_set_up()
    project.store("notebooks/mine.ipynb", (project.path / "notebooks/demo.ipynb").read_bytes())
    yield project
    project.end_jobs()


def lend_results(trained: Trained, project: Project) -> None:
    """Put what a training left behind on the storage of another project."""
    shutil.copytree(
        trained.project.storage("results"), project.storage("results"), dirs_exist_ok=True
    )


def outputs(notebook: Path) -> List[Dict[str, object]]:
    cells = json.loads(notebook.read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_demo_notebook_in_jupyter(
    trainer: Project, trained: Trained, neighbour: Project, chromium: Chromium
) -> None:
    opened = trainer.platform.browser.opened
    trainer.make("upload", "run_jupyter")
    (address,) = trainer.platform.browser.opened[len(opened) :]
    page = chromium.open(address)
    jupyter = JupyterLab(page)
    assert page.url.endswith("/lab")
    assert page.locator("input[type=password]").count() == 0
    assert jupyter.files == ["demo.ipynb"]

    jupyter.open_notebook("demo.ipynb")
    imports, data, results, plot = jupyter.run_cells()
    assert (imports, plot) == ("", "")
    assert "1797 rows, 64 columns, 10 classes" in data
    assert "No results yet: make run_training" in results
    assert jupyter.plot.count() == 0

    lend_results(trained, trainer)
    results, _ = jupyter.run_cells(first=2)
    assert results.strip() == "trainings: 1"
    jupyter.plot.wait_for()
    assert jupyter.plot.evaluate("image => image.naturalWidth") > 100

    jupyter.save()
    saved = trainer.storage("notebooks/demo.ipynb")
    assert any("image/png" in json.dumps(output) for output in outputs(saved))
    trainer.make("download_notebooks")
    assert (trainer.path / "notebooks/demo.ipynb").read_bytes() == saved.read_bytes()

    jupyter.type_in_terminal("echo six times seven is $((6 * 7))", "six times seven is 42")

    # Another project's Jupyter runs at the same time, and each shows its own notebooks.
    other = JupyterLab(chromium.open(printed_address(neighbour.make("run_jupyter", BROWSE=""))))
    assert other.files == ["mine.ipynb"]
    assert jupyter.files == ["demo.ipynb"]
    assert trainer.job("jupyter").status == neighbour.job("jupyter").status == "running"

    check_second_start(trainer, chromium)
    check_options(trainer)


def check_second_start(project: Project, chromium: Chromium) -> None:
    """It opens the Jupyter that runs, whose address alone lets nobody in."""
    job = project.job("jupyter")

    again = project.make("run_jupyter", BROWSE="no")

    assert f"{job.name} runs already; to end it: make kill_jupyter" in again.stdout
    assert project.job("jupyter").id == job.id
    address = printed_address(again)
    page = address.partition("?")[0]
    assert [fetch(urljoin(page, path))[0] for path in ("", "/api/status", "/lab")] == [401] * 3
    assert JupyterLab(chromium.open(address)).files == ["demo.ipynb"]


def check_options(project: Project) -> None:
    """Jupyter knows the options that its target starts it with, and complains of none."""
    job = project.job("jupyter")
    record = json.loads(project.platform.request(f"/api/v1/jobs/{job.id}")[1])
    used = set(re.findall(r"--[\w.-]+", record["container"]["entrypoint"]))
    assert "--no-browser" in used and "--IdentityProvider.token" in used

    told = project.platform.neuro("exec", "-T", job.id, "python -m jupyterlab --help-all").stdout
    listed = set(re.findall(r"^(--[\w.-]+)", told, re.MULTILINE))
    outdated = set(re.findall(r"^(--[\w.-]+).*\n +DEPRECATED", told, re.MULTILINE))
    # Those of the identity provider are only named, as what takes the place of older ones.
    successors = {f"--{name}" for name in re.findall(r"DEPRECATED.* Use ([\w.]+\w)", told)}
    assert outdated
    assert used <= listed - outdated | successors

    project.make("kill_jupyter")
    log = project.platform.neuro("logs", job.id).stdout
    assert "ServerApp" in log
    assert re.findall("(?i).*(?:deprecat|unrecogni|Traceback).*", log) == []


def test_tensorboard_shows_what_ended_and_what_runs(
    trainer: Project, trained: Trained, chromium: Chromium
) -> None:
    lend_results(trained, trainer)
    said = trainer.make("run_tensorboard", BROWSE="no")
    board = TensorBoard(chromium.open(printed_address(said)))
    board.wait_for({".": 3})
    assert board.title == "accuracy"
    board.wait_for_curve(".")

    job = trainer.job("tensorboard").name
    write = trainer.platform.neuro("exec", "-T", job, "touch /project/results/x", code=None)
    assert write.code != 0
    assert "Read-only file system" in write.stderr
    assert not trainer.storage("results/x").exists()

    trainer.write("code/slow.py", SLOW_TRAINING)
    with trainer.start("run_training", RUN="live", TRAIN_CMD="python slow.py") as training:
        training.wait_for("at step 5")
        board.wait_for({".": 3, "live": 5})
        trainer.store("results/live/beyond-5", "")
        training.wait_for("at step 9")
        board.wait_for({".": 3, "live": 9})
        assert not training.ended
        board.wait_for_curve("live")
        trainer.store("results/live/beyond-9", "")
        training.wait()


def test_files_in_the_file_browser(
    project: Project, engine: str, chromium: Chromium, tmp_path: Path
) -> None:
    if engine == DOCKER:  # which may have pulled another, with a page of its own
        project.variables["FILEBROWSER_IMAGE"] = STAND_IN
    project.make("upload")
    before = files(project)
    page = chromium.open(printed_address(project.make("run_filebrowser", BROWSE="")))
    browser = FileBrowser(page)
    assert page.locator("input[type=password]").count() == 0
    content = "naïve\r\n".encode() * 1000
    local = tmp_path / "a table.csv"
    local.write_bytes(content)

    browser.enter("data")
    browser.upload(local)
    assert project.storage("data/a table.csv").read_bytes() == content
    assert browser.download("a table.csv") == content
    browser.rename("a table.csv", "b.csv")
    assert not project.storage("data/a table.csv").exists()
    assert project.storage("data/b.csv").read_bytes() == content
    browser.delete("b.csv")

    assert files(project) == before


def files(project: Project) -> List[str]:
    root = project.storage()
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
