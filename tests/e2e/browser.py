"""Headless Chromium, and the pages of the web targets as a user sees and works them.

Playwright's plain interface keeps an event loop running in its thread for as long as it is up, so
no asynchronous test may run meanwhile: keep a Chromium for one module at most.
"""

from __future__ import annotations

import base64
import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Union
from urllib.parse import urlencode, urljoin

from machine import impossible
from playwright.sync_api import Browser, Download, Locator, Page, sync_playwright

from .commands import wait_until

FINDER = Path(__file__).parents[2] / "scripts" / "chromium.sh"

# What the page may take to do as it is told, on a slow machine. Milliseconds.
PATIENCE = 60_000

# Counts the pixels of one colour in a picture; the browser is who can read one.
COUNT_PIXELS = """async ([png, colour]) => {
    const picture = new Image();
    picture.src = "data:image/png;base64," + png;
    await picture.decode();
    const canvas = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
    canvas.drawImage(picture, 0, 0);
    const { data } = canvas.getImageData(0, 0, picture.width, picture.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4)
        count += colour === `rgb(${data[i]}, ${data[i + 1]}, ${data[i + 2]})`;
    return count;
}"""


def find_chromium() -> str:
    found = subprocess.run(["sh", str(FINDER), "find"], capture_output=True, text=True)
    if found.returncode != 0:
        impossible("Chromium is not installed; on Debian: apt-get install chromium")
    return found.stdout.strip()


class Chromium:
    """Opens each address as another user would: with no cookie from before."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def open(self, address: str) -> Page:
        context = self._browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        return page


@contextmanager
def started_chromium() -> Iterator[Chromium]:
    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield Chromium(browser)
        browser.close()


class JupyterLab:
    def __init__(self, page: Page) -> None:
        self.page = page
        self._cells = page.locator(".jp-Notebook .jp-CodeCell")
        self._executed = 0
        # It asks once whether it may look for news, in a corner, above what one wants to click.
        no = page.get_by_role("button", name="No", exact=True)
        page.add_locator_handler(no, lambda: no.click())
        page.locator(".jp-DirListing-item").first.wait_for()

    @property
    def files(self) -> List[str]:
        return self.page.locator(".jp-DirListing-itemName").all_inner_texts()

    def open_notebook(self, name: str) -> None:
        """Open it, and wait for its kernel."""
        self.page.locator(".jp-DirListing-item", has_text=name).dblclick()
        self.page.get_by_text("| Idle").wait_for()

    def run_cells(self, first: int = 0) -> List[str]:
        """Run one cell after the other, from this one on; return the text that each printed."""
        printed = []
        for index in range(first, self._cells.count()):
            cell = self._cells.nth(index)
            cell.locator(".jp-InputArea-editor").click()
            self.page.keyboard.press("Control+Enter")
            self._executed += 1
            cell.locator(".jp-InputPrompt", has_text=f"[{self._executed}]:").wait_for()
            printed.append("".join(cell.locator(".jp-OutputArea-output pre").all_inner_texts()))
        return printed

    @property
    def plot(self) -> Locator:
        return self.page.locator(".jp-Notebook .jp-OutputArea-output img")

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        self.page.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="hidden")

    def type_in_terminal(self, command: str, answer: str) -> None:
        """Open a terminal, type the command, and wait until the terminal shows the answer."""
        self.page.locator("[data-command='launcher:create']").first.click()
        with self.page.expect_websocket(lambda socket: "/terminals/" in socket.url) as opened:
            self.page.locator(".jp-LauncherCard:visible", has_text="Terminal").first.click()
        self.page.locator(".jp-Terminal .xterm-screen").click()
        shown = ""

        def answered(frame: Union[str, bytes]) -> bool:
            nonlocal shown
            kind, *content = json.loads(frame)
            shown += content[0] if kind == "stdout" else ""
            return answer in shown

        with opened.value.expect_event("framereceived", answered):
            self.page.keyboard.type(f"{command}\n")


class TensorBoard:
    def __init__(self, page: Page) -> None:
        self.page = page
        # Until it answers there is the platform's page, which tries again by itself, and so could
        # break off a reload.
        page.locator("tb-webapp").wait_for(state="attached")
        self._rows = page.locator("scalar-card tb-data-table-content-row")

    @property
    def steps(self) -> Dict[str, int]:
        """The last step that the card shows of each run."""
        titles = self.page.locator("scalar-card tb-data-table-header-cell").all_inner_texts()
        run, step = titles.index("Run"), titles.index("Step")
        cells = "rows => rows.map(row => [...row.children].map(cell => cell.innerText.trim()))"
        return {row[run]: int(row[step]) for row in self._rows.evaluate_all(cells)}

    def wait_for(self, steps: Dict[str, int]) -> None:
        """Reload once it has these runs up to these steps; wait until the card shows just them."""
        wait_until(
            lambda: all(self._last_step(run) == step for run, step in steps.items()),
            f"TensorBoard has read {steps}",
        )
        self.page.reload()
        self._rows.first.wait_for()
        wait_until(lambda: self.steps == steps, f"TensorBoard shows {steps}")

    def _last_step(self, run: str) -> int:
        query = urlencode({"run": run, "tag": "accuracy"})
        url = urljoin(self.page.url, f"/data/plugin/scalars/scalars?{query}")
        answer = self.page.request.get(url)
        return int(answer.json()[-1][1]) if answer.ok else 0

    @property
    def title(self) -> str:
        return self.page.locator("scalar-card .tag").inner_text()

    def wait_for_curve(self, run: str) -> None:
        """Wait until something of some length in the run's colour is drawn into the chart."""
        row = self._rows.filter(has=self.page.get_by_text(run, exact=True))
        circle = row.locator(".row-circle span")
        colour = circle.evaluate("circle => getComputedStyle(circle).backgroundColor")
        chart = self.page.locator("scalar-card line-chart canvas")

        def drawn() -> bool:
            png = base64.b64encode(chart.screenshot()).decode()
            return int(self.page.evaluate(COUNT_PIXELS, [png, colour])) > 50

        wait_until(drawn, f"TensorBoard draws the curve of {run}")


class FileBrowser:
    """The stand-in of neuro-local's catalogue, which is copyparty."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.row("code/").wait_for()

    def enter(self, folder: str) -> None:
        self.page.get_by_role("link", name=f"{folder}/", exact=True).click()
        self.page.wait_for_url(f"**/{folder}/")

    def row(self, name: str) -> Locator:
        link = self.page.get_by_role("link", name=name, exact=True)
        return self.page.locator("#files tbody tr").filter(has=link)

    def upload(self, path: Path) -> None:
        self.page.locator("#opa_up").click()
        self.page.locator("#file1").set_input_files(path)
        self.page.get_by_text("OK", exact=True).click()
        self.row(path.name).wait_for()

    def download(self, name: str) -> bytes:
        self._select(name)
        with self.page.expect_download() as started:
            self.page.locator("#seldl").click()
        self._select(name)
        download: Download = started.value
        assert download.suggested_filename == name
        return download.path().read_bytes()

    def rename(self, name: str, new_name: str) -> None:
        self._select(name)
        self.page.locator("#fren").click()
        self.page.locator("#rn_new_0").fill(new_name)
        self.page.locator("#rn_apply").click()
        self.row(new_name).wait_for()

    def delete(self, name: str) -> None:
        self._select(name)
        self.page.locator("#fdel").click()
        self.page.get_by_text("OK", exact=True).click()
        self.row(name).wait_for(state="hidden")

    def _select(self, name: str) -> None:
        """Click the row beside its links; a second time takes it back."""
        self.row(name).locator("td").nth(2).click()
