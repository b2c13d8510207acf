"""Pictures of a finished study without a server: its report, and what planning says of it.

python tests/screens.py [STUDY]      # docs/pictures/report.png and plan.png; the report where there is one
"""

from __future__ import annotations

import argparse
import html
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import browser
from PIL import Image

from holdfast.errors import EngineError, HoldfastError

OUT, WIDTH, COLOURS = Path("docs/pictures"), 1400, 255
HOLDFAST = Path(sys.executable).with_name("holdfast")
TERMINAL = """<!doctype html><meta charset="utf-8"><body style="margin:0;background:#1b1f24;color:#e6e8eb">
<pre style="margin:20px;font:15px/1.45 monospace;white-space:pre-wrap">{said}</pre>"""


def shot(page: Path, height: int, out: Path) -> None:
    """A picture of the top of a page, in few colours."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "shot.png"
        subprocess.run(
            [str(browser.CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", "--virtual-time-budget=5000", f"--window-size={WIDTH},{height}",
             f"--screenshot={picture}", page.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        few = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB").quantize(COLOURS)
    out.parent.mkdir(parents=True, exist_ok=True)
    few.save(out, optimize=True)


def plan(study: str, out: Path) -> None:
    """What `holdfast plan` prints, as a terminal shows it; the speed is given, so that no machine is in it."""
    command = [HOLDFAST, "plan", study, "--tflops", "0.1"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shown = f"$ holdfast plan {study} --tflops 0.1\n\n{said}"
    lines = sum(1 + len(line) // 150 for line in shown.splitlines())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "plan.html"
        page.write_text(TERMINAL.format(said=html.escape(shown)), encoding="utf-8")
        shot(page, 40 + 22 * lines, out)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2: there is no Chromium."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="demo")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    try:
        if browser.CHROMIUM is None:
            raise EngineError(
                "There is no Chromium here.", found="none of chromium, chromium-browser, google-chrome on the PATH",
                do="install it (Debian: apt-get install chromium), then: make pictures",
            )  # fmt: skip
        plan(given.study, given.out / "plan.png")
        report = Path("results", given.study, "report.html")
        if report.is_file():
            shot(report, 1100, given.out / "report.png")
    except HoldfastError as error:
        print(error.block(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
