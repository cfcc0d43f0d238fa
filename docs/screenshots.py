"""The pictures of ``mlflow.md``, made by clicking through MLflow's UI as the page says.

::

    pip install -c constraints.txt '.[docs]'                    and a Chromium: apt install chromium
    sngd-tune scale search_spaces/scaling/digits_width.yaml --dir RUNS/digits_width
    sngd-tune run search_spaces/digits_mlp.yaml --dir RUNS/digits_mlp --set search.trials=20
    python docs/screenshots.py RUNS                             a minute

Where a click finds nothing, MLflow's UI has changed: the page is to be looked through then, too.
"""

import argparse
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from sngd_tune.tracking.client import connect, default_tracking_uri

IMAGES = Path(__file__).parent / "images"
SCALING, STUDY, METHOD = "digits_width", "digits_mlp", "sngd"

_SIZE = {"width": 1280, "height": 720}
_COLOURS = 128  # of a picture: the UI has few
_MACHINE_LEARNING = "workflowType=machine_learning"
_DRAWN = 1500  # ms: charts have no mark by which they say that they are drawn
_LOADED = 4000


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The address of ``sngd-tune ui`` for a run directory."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [Path(sys.executable).with_name("sngd-tune"), "ui", str(directory), "--port", str(port)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert child.stdout is not None
        if not child.stdout.readline():  # its address, as soon as it answers
            raise SystemExit(f"{directory}: sngd-tune ui has ended; see what it says by itself")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


class Experiment:
    """An experiment in MLflow's UI."""

    def __init__(self, page: Page, address: str, client: MlflowClient, name: str) -> None:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise SystemExit(f"{name}: no experiment of this name; the runs are made as the head of this script says")
        self.page = page
        self._runs = {run.info.run_name: run.info.run_id for run in client.search_runs([found.experiment_id])}
        self._address = f"{address}/#/experiments/{found.experiment_id}/runs"

    def open(self, mode: str = "TABLE") -> None:
        """Its runs, as a table or as charts."""
        self._go(f"?compareRunsMode={mode}&{_MACHINE_LEARNING}")

    def open_run(self, run: str, tab: str) -> None:
        """A tab of one of its runs."""
        self._go(f"/{self._runs[run]}/{tab}?{_MACHINE_LEARNING}")

    def search(self, text: str) -> None:
        """Enter a filter of runs."""
        box = self.page.get_by_placeholder("metrics.rmse", exact=False)
        box.fill(text)
        box.press("Enter")
        self.page.wait_for_timeout(_DRAWN)

    def search_charts(self, text: str) -> None:
        """Leave the charts whose name has the text."""
        self.page.get_by_placeholder("Search metric charts").fill(text)
        self.page.wait_for_timeout(_DRAWN)

    def expand(self) -> None:
        """Click the + of the first run."""
        self.page.locator(".ag-row button[class*=icon-only]").first.click()
        self.page.wait_for_timeout(_DRAWN)

    def show_columns(self, *names: str) -> None:
        """Tick columns of the table, and take away those that are empty here."""
        self.page.get_by_role("button", name="Columns", exact=False).first.click()
        box = self.page.get_by_placeholder("Search columns")
        for name in ("Dataset", "Source", "Models", *names):
            box.fill(name)
            self.page.wait_for_timeout(_DRAWN // 3)
            node = self.page.locator("[class*=tree-treenode]", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$"))
            node.last.locator("[class*=tree-checkbox]").first.click()
        self.page.keyboard.press("Escape")
        self.page.mouse.click(640, 700)
        self.page.wait_for_timeout(_DRAWN)

    def show_all_runs(self) -> None:
        """What the eye above the runs offers; ten are drawn otherwise."""
        self.page.get_by_test_id("experiment-view-runs-visibility-column-header").click()
        self.page.get_by_text("Show all runs").click()
        self.page.wait_for_timeout(_DRAWN)

    def add_chart(self, kind: str) -> Locator:
        """*Add chart* in the first section; the dialog."""
        self.page.get_by_test_id("experiment-view-compare-runs-add-chart").first.click()
        self.page.get_by_role("menuitem", name=kind).click()
        self.page.wait_for_timeout(_DRAWN)
        return self.page.get_by_role("dialog")

    def confirm(self) -> None:
        """The dialog's *Add chart* or *Save changes*."""
        self.page.get_by_test_id("experiment-view-compare-runs-chart-modal-confirm").click()
        self.page.wait_for_timeout(_DRAWN)

    def enlarge(self, title: str) -> None:
        """Show the first chart of this title by itself."""
        card = self.page.locator("[data-testid=experiment-view-compare-runs-card]").filter(has_text=title).first
        card.scroll_into_view_if_needed()
        card.locator("button").first.click()
        self.page.wait_for_timeout(_DRAWN)

    def choose(self, box: Locator, name: str) -> None:
        """Pick an entry of a list that is drawn as far as it is seen."""
        box.click()
        self.page.keyboard.type(name)
        active = self.page.locator("[class*=select-item-option-active]:visible")
        for _ in range(200):
            if active.count() and active.first.inner_text() == name:
                self.page.keyboard.press("Enter")
                self.page.wait_for_timeout(_DRAWN // 3)
                return
            self.page.keyboard.press("ArrowDown")
        raise SystemExit(f"{name}: not in the list")

    def save(self, name: str) -> None:
        """Take the picture; the mouse goes where no chart shows its tools for it."""
        self.page.mouse.move(5, 5)
        self.page.wait_for_timeout(_DRAWN)
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
        print(IMAGES / f"{name}.png")

    def _go(self, place: str) -> None:
        self.page.goto("about:blank")  # else nothing is loaded anew where only what follows the # differs
        self.page.goto(self._address + place)
        self.page.wait_for_timeout(_LOADED)


def points(scaling: Experiment) -> None:
    """The points of a scaling study as a table."""
    scaling.open()
    scaling.expand()
    scaling.show_columns("method", "width", "batch_size", "step_seconds", "final_loss")
    scaling.save("points")


def curves(scaling: Experiment) -> None:
    """A curve of each method in one chart, both axes logarithmic."""
    scaling.open_run(SCALING, "model-metrics")
    scaling.search_charts("width/step_seconds")
    scaling.page.get_by_test_id("experiment-view-compare-runs-card-menu").first.click()
    scaling.page.get_by_role("menuitem", name="Configure").click()
    scaling.page.wait_for_timeout(_DRAWN)
    dialog = scaling.page.get_by_role("dialog")
    metrics = dialog.locator("[class*=select-multiple] [class*=select-selector]")
    for method in ("sngd", "sgd"):
        scaling.choose(metrics, f"width/step_seconds/{method}")
    scaling.page.keyboard.press("Tab")
    for axis in ("x-axis-log", "y-axis-log"):
        dialog.get_by_label(axis).click()
    scaling.confirm()
    scaling.enlarge("adamw")
    scaling.save("curves")


def scatter(scaling: Experiment) -> None:
    """A measure of the points against an axis, a colour for each method."""
    scaling.open("CHART")
    scaling.search("tags.role = 'point' and params.batch_size = '64'")
    scaling.expand()
    scaling.show_all_runs()
    boxes = scaling.add_chart("Scatter chart").locator("[class*=select-selector]")
    scaling.choose(boxes.nth(-2), "width")
    scaling.choose(boxes.nth(-1), "step_seconds")
    scaling.confirm()
    scaling.search_charts("step_seconds")
    scaling.save("scatter")


def report(scaling: Experiment) -> None:
    """The report of a scaling study among its artifacts."""
    scaling.open_run(SCALING, "artifacts/figures/width.png")
    scaling.save("artifacts")


def system(scaling: Experiment) -> None:
    """What the node of a point's trainings did."""
    scaling.open_run(f"width=512.{METHOD}", "system-metrics")
    scaling.save("system")


def parallel(study: Experiment) -> None:
    """What the trials of a study tried, and what came of it."""
    study.open("CHART")
    study.search("tags.phase = 'search'")
    study.expand()
    study.show_all_runs()
    dialog = study.add_chart("Parallel coordinates")
    boxes = dialog.locator("[class*=select-selector]")
    for name in ("base", "granularity", "lr", "relative_damping", "fisher_interval"):
        study.choose(boxes.nth(-2), name)
    study.page.keyboard.press("Tab")
    study.choose(boxes.nth(-1), "curves/validation_accuracy")
    study.page.keyboard.press("Tab")
    study.save("parallel")


PICTURES: dict[str, tuple[str, Callable[[Experiment], None]]] = {
    each.__name__: (name, each)
    for name, each in (
        *((SCALING, each) for each in (points, curves, scatter, report, system)),
        (STUDY, parallel),
    )
}


def main() -> None:
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help=f"folder with the run directories {SCALING} and {STUDY}")
    parser.add_argument("pictures", nargs="*", help=f"default: all, of {', '.join(PICTURES)}")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    client = connect(default_tracking_uri(arguments.runs / STUDY))
    with served(arguments.runs / STUDY) as address, sync_playwright() as playwright:
        # Without a sandbox, as containers are root; it sees this machine's own pages alone.
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        for name in arguments.pictures or PICTURES:
            page = browser.new_page(viewport=_SIZE)
            page.set_default_timeout(10_000)
            page.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
            experiment, take = PICTURES[name]
            take(Experiment(page, address, client, experiment))
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
