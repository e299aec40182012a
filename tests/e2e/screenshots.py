"""Takes the pictures in docs/ anew. Not a test: it runs by `make screenshots` only.

The file browser's buttons are emoji; on Debian they need the package fonts-noto-color-emoji.
"""

from __future__ import annotations

from typing import Iterator

import pytest
from clients import APOLO
from playwright.sync_api import Page

from .browser import Chromium, FileBrowser, JupyterLab, TensorBoard, started_chromium
from .conftest import SANDBOX, TEMPLATE, Render, only_on, only_with
from .project import Project, printed_address

# The pages are the same, whichever client opens them; the file browser's is the stand-in's, which
# an engine that pulls images does not have.
pytestmark = [only_with(APOLO), only_on(SANDBOX)]

DOCS = TEMPLATE / "docs"

# The trainings that are seen, and their learning rates.
RATES = {"lr-01": "0.01", "lr-001": "0.001"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with started_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def shown(render: Render, built: Project) -> Iterator[Project]:
    """A project with the name of the template's own, after two trainings."""
    project = render(project_name="My Project")
    project.variables["IMAGE"] = f"image:{built.slug}"
    project.mark_set_up()
    project.make("upload")
    for run, rate in RATES.items():
        project.make("run_training", RUN=run, TRAIN_ARGS=f"--epochs 30 --learning-rate {rate}")
    yield project
    project.end_jobs()


def open_page(chromium: Chromium, project: Project, target: str) -> Page:
    return chromium.open(printed_address(project.make(target, BROWSE="")))


def test_jupyter(chromium: Chromium, shown: Project) -> None:
    jupyter = JupyterLab(open_page(chromium, shown, "run_jupyter"))
    jupyter.open_notebook("demo.ipynb")
    jupyter.run_cells()
    jupyter.save()
    jupyter.plot.evaluate("image => image.scrollIntoView({block: 'end'})")

    jupyter.page.screenshot(path=DOCS / "jupyter.png")


def test_tensorboard(chromium: Chromium, shown: Project) -> None:
    board = TensorBoard(open_page(chromium, shown, "run_tensorboard"))
    board.wait_for({run: 30 for run in RATES})
    for run in RATES:
        board.wait_for_curve(run)

    board.page.screenshot(path=DOCS / "tensorboard.png")


def test_filebrowser(chromium: Chromium, shown: Project) -> None:
    browser = FileBrowser(open_page(chromium, shown, "run_filebrowser"))
    browser.enter("results")
    browser.enter("lr-01")
    browser.row("model.joblib").wait_for()
    browser.page.mouse.move(640, 600)  # off what explains itself

    browser.page.screenshot(path=DOCS / "filebrowser.png")
