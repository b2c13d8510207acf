"""The pictures of docs/mlflow.md: MLflow's pages of a finished study, in a headless Chromium that clicks as readers do.

    python tests/pictures.py                                # the demo in the project's own store, that of `make ui`
    python tests/pictures.py demo-replicated --store FILE   # another study, in another database

Addresses come from the store; what is clicked is known by what stands on it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import browser
from PIL import Image

from holdfast import names
from holdfast.errors import ArtifactError, EngineError, HoldfastError
from holdfast.track import described, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

OUT = Path("docs/mlflow")
WIDTH, COLOURS = 1400, 255
PATIENCE_SECONDS = 90.0  # the first page of a server that just started takes up to 20
# Chromium reads commands from descriptor 3 and answers on 4; a shell between them may not know descriptors above 9.
LAUNCH = "import os, sys; a = sys.argv[1:]; os.dup2(int(a[0]), 3); os.dup2(int(a[1]), 4); os.execv(a[2], a[2:])"
# On a first visit MLflow opens its assistant over a third of the page.
BEFORE = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
KEYS = {"Escape": 27, "Enter": 13}
# Where a chart has drawn the point of two values.
POINT = """(chart => {{
    const at = chart.data[0].x.findIndex((x, i) => Math.hypot(x - {x}, chart.data[0].y[i] - {y}) < 1e-9);
    const drawn = chart.querySelectorAll(".points path")[at].getBoundingClientRect();
    return [drawn.x + drawn.width / 2, drawn.y + drawn.height / 2];
}})(document.querySelector("[role=dialog] .js-plotly-plot"))"""
# Where the store of whoever takes the pictures lies stands above every file.
WITHOUT_PATH = """[...document.querySelectorAll("*")].filter(e => (e.innerText || "").startsWith("Path: "))
    .map(e => e.style.visibility = "hidden").length"""
SHOWN = "e => e.getBoundingClientRect().width > 0"


class Page:
    """One page of a Chromium, driven by the commands of its developer tools."""

    def __init__(self, folder: Path) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # Away from 3 and 4, which the launcher overwrites.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, theirs), str(browser.CHROMIUM), "--headless=new", "--no-sandbox",
             "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"],
            pass_fds=theirs, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (commands, answers, *theirs):
            os.close(end)
        self._sent, self._left, self._session = 0, b"", None
        tabs = self.ask("Target.getTargets")["targetInfos"]
        tab = next(t["targetId"] for t in tabs if t["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=BEFORE)

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError, EOFError, EngineError):
            self.ask("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()

    def ask(self, method: str, **params: Any) -> Any:
        """The answer to one command."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._left:
                got = os.read(self._read, 1 << 16)
                if not got:
                    raise EngineError("Chromium ended by itself.", found=f"while it was asked for {method}")
                self._left += got
            line, self._left = self._left.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise EngineError(f"Chromium does not take {method}.", found=answer["error"]["message"])
                return answer["result"]

    def value(self, script: str) -> Any:
        """What an expression is on the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return None if "exceptionDetails" in found else found["result"].get("value")

    def until(self, script: str) -> Any:
        """What an expression is as soon as it is something."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if found := self.value(script):
                return found
            time.sleep(0.2)
        raise EngineError(
            "A page of MLflow is not as this script knows it.",
            found=f"after {PATIENCE_SECONDS:.0f} seconds nothing of: {script}",
            do="open the page by hand (make ui), and follow it in tests/pictures.py",
        )  # fmt: skip

    def open(self, address: str, text: str, height: int) -> None:
        """Load an address anew, wait until a text stands there, and make room by closing the side bar."""
        self.ask("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)
        self.until(f"document.body && document.body.innerText.includes({json.dumps(text)})")
        self.click("[aria-label='Toggle sidebar']")
        self.still()

    def find(self, selector: str, text: str | None = None, place: int = -1) -> str:
        """An expression for a visible element, of several that match one by its place."""
        same = f" && (e.innerText || '').trim() === {json.dumps(text)}" if text else ""
        return f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => ({SHOWN})(e){same}).at({place})"

    def point(self, selector: str, text: str | None = None, place: int = -1) -> tuple[float, float]:
        """Where the middle of an element is, brought into view and at rest."""
        before = None
        while True:
            where = self.until(
                f"(e => e && (e.scrollIntoView({{block: 'nearest'}}), e = e.getBoundingClientRect(), "
                f"[e.x + e.width / 2, e.y + e.height / 2]))({self.find(selector, text, place)})"
            )
            if where == before:
                return where[0], where[1]
            before = where
            time.sleep(0.3)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """One event of a mouse."""
        button = "none" if kind == "mouseMoved" else "left"
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def click(self, selector: str, text: str | None = None, place: int = -1) -> None:
        """Click on an element."""
        x, y = self.point(selector, text, place)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def scroll(self, selector: str, text: str) -> None:
        """Bring the row of a link to the top of a table in two halves: names, and values, which have the scroll bar.

        A row is made when it comes into view, and the names are always where the values were one movement ago.
        """
        self.until(f"""(([names, values], link) => {{
            const wanted = link ? parseFloat(link.parentElement.style.top) : values.scrollTop + 100;
            if (link && [names, values].every(half => Math.abs(half.scrollTop - wanted) < 2)) {{
                values.scrollIntoView({{block: "nearest"}});
                return true;
            }}
            values.scrollTop = values.scrollTop === wanted ? wanted + 1 : wanted;
        }})([...document.querySelectorAll({json.dumps(selector)})].slice(-2), {self.find("a", text)})""")

    def write(self, text: str, *keys: str) -> None:
        """Type into what has the focus, and press keys."""
        self.ask("Input.insertText", text=text)
        for key in keys:
            for kind, more in (("keyDown", {"text": "\r"} if key == "Enter" else {}), ("keyUp", {})):
                self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key], **more)

    def look(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def still(self) -> bytes:
        """The page as a PNG once it does not change for a second, without a caret that blinks."""
        self.value("document.activeElement.blur()")
        end, seen, since = time.monotonic() + PATIENCE_SECONDS, b"", time.monotonic()
        while time.monotonic() < end:
            now = self.look()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > 1:
                return seen
            time.sleep(0.2)
        raise EngineError("A page of MLflow does not come to rest.", found=f"after {PATIENCE_SECONDS:.0f} seconds")

    def keep(self, name: str) -> None:
        """The page as it is into the folder of the pictures, with few colours."""
        picture = Image.open(io.BytesIO(self.still())).convert("RGB").quantize(COLOURS, kmeans=2)
        OUT.mkdir(parents=True, exist_ok=True)
        picture.save(OUT / f"{name}.png", optimize=True)
        print(f"{OUT / name}.png: {(OUT / name).with_suffix('.png').stat().st_size // 1024} KB")


@contextlib.contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    """The address of an MLflow server of a store, which is stopped whatever happens."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    server, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1",
             "--port", str(port), "--workers", "1"],
            stdout=said, stderr=said, cwd=folder, start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{server}/health", timeout=5):
                break
            time.sleep(0.5)
        else:
            last = (log.read_text().splitlines() or ["nothing"])[-1]
            raise EngineError(
                "The MLflow server does not answer.", found=last[:200], do=f"try: mlflow server --port {port}"
            )
        yield server
    finally:
        for end_by in (signal.SIGTERM, signal.SIGKILL):  # its workers too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, end_by)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


class Wanted(NamedTuple):
    """What the pictures show: an experiment, a filter for the arms of a task, two arms, a model of the second."""

    number: str
    listed: str
    arms: list[str]
    axes: dict[str, float]
    run: str
    model: str
    registered: str | None = None


def wanted(client: MlflowClient, study: str, task: str, arms: list[str]) -> Wanted:
    """Look up what the pictures show."""
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        have = ", ".join(e.name for e in client.search_experiments())
        raise ArtifactError(f"The store has no study {study}.", found=have, do=f"make demo STUDY={study}")
    number = experiment.experiment_id
    above = "params.replicates LIKE '%'"  # runs above all models of an arm have that parameter
    several = bool(client.search_runs([number], above, max_results=1))

    def run_of(arm: str, *, whole: bool) -> Run:
        cell = f"{study}/{task}/{arm}" + ("" if whole else "/seed0")
        found = store.runs_of(client, number, cell)
        if not found:
            raise ArtifactError(f"The store has no run of {cell}.", do="name a task and two arms of it: --task, --arms")
        return client.get_run(found[0].info.run_id)

    both = [run_of(arm, whole=several) for arm in arms]
    single = run_of(arms[-1], whole=False)
    assert single.outputs is not None  # of a complete import
    return Wanted(
        number,
        f"tags.task = '{task}'" + (f" and {above}" if several else ""),
        [run.info.run_id for run in both],
        {metric: both[-1].data.metrics[metric] for metric in ("utility", names.REFUSAL_RATE)},
        single.info.run_id,
        single.outputs.model_outputs[0].model_id,
    )


def pictures(page: Page, server: str, shown: Wanted) -> None:
    """Take all of them."""
    training, here = "workflowType=machine_learning", f"{server}/#/experiments/{shown.number}"
    if shown.registered:
        page.open(f"{server}/#/models/{quote(shown.registered)}?{training}", "Version 1", 1000)
        page.keep("registered")
        return
    page.open(described.view_address(shown.number, server), "matching runs", 800)
    page.click("input[type=search]", place=0)
    page.write(shown.listed, "Escape", "Enter")  # the first closes what MLflow proposes
    page.still()
    page.keep("runs")

    runs, experiments = quote(json.dumps(shown.arms)), quote(json.dumps([shown.number]))
    page.open(f"{server}/#/compare-runs?runs={runs}&experiments={experiments}&{training}", "Run details", 1150)
    page.click("[role=button]", "Visualizations")
    for switch in (0, 1):  # show only what differs, of parameters and of metrics
        page.click("[role=switch]", place=switch)
    page.scroll(".ReactVirtualized__Grid", names.REFUSAL_RATE)
    page.keep("compare")

    page.open(f"{here}/runs?{training}&compareRunsMode=CHART&searchFilter={quote(shown.listed)}", "Add chart", 800)
    page.click("[aria-label='Toggle visibility of runs']")
    page.click("[role^=menuitem]", "Show all runs")
    page.still()
    page.click("button", "Add chart", place=0)
    page.click("[role=menuitem]", "Scatter chart")
    for place, metric in enumerate(shown.axes):
        page.click("[role=dialog] input[role=combobox]", place=place)
        page.write(metric)
        page.click("[class*=select-item-option-content]", metric)
    page.click("[role=dialog] button", "Add chart")
    page.click("input[placeholder='Search metric charts']")
    page.write("utility")  # of the first section that leaves the new chart
    page.still()
    page.click("[data-component-id=fullscreen_button_chartcard]", place=0)
    page.still()
    x, y = shown.axes.values()
    page.mouse("mouseMoved", *page.until(POINT.format(x=x, y=y)))
    page.keep("chart")

    page.open(f"{here}/models/{shown.model}?{training}", "About this logged model", 1000)
    page.keep("model")
    page.open(f"{here}/runs/{shown.run}/artifacts?{training}", "checkpoint.json", 420)
    page.click("*", "checkpoint.json")
    page.still()
    page.until(WITHOUT_PATH)
    page.keep("checkpoint")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2: no Chromium, no store, no such study, or a page that is another one now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="demo")
    parser.add_argument("--store", type=Path, default=Path("mlflow.db"), help="an sqlite database of MLflow")
    parser.add_argument("--registered", help="name of a registered model: only the picture of it")
    parser.add_argument("--task", default="crafts")
    parser.add_argument("--arms", nargs=2, default=["full", "warp"])
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped then too
    try:
        if browser.CHROMIUM is None:
            raise EngineError(
                "There is no Chromium here.", found="none of chromium, chromium-browser, google-chrome on the PATH",
                do="install it (Debian: apt-get install chromium), then: make pictures",
            )  # fmt: skip
        if not given.store.is_file():
            raise ArtifactError(
                f"There is no MLflow store at {given.store}.",
                do=f"make demo STUDY={given.study}, or name one: --store FILE",
            )
        uri = f"sqlite:///{given.store.resolve()}"
        shown = wanted(store.client_of(uri), given.study, given.task, given.arms)._replace(registered=given.registered)
        with (
            tempfile.TemporaryDirectory() as folder,
            served(uri, Path(folder)) as server,
            contextlib.closing(Page(Path(folder))) as page,
        ):
            pictures(page, server, shown)
    except HoldfastError as error:
        print(error.block(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
