"""A real browser without a dependency: headless Chromium loads a page with a probe that acts on it and writes down
what it found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
_CATCH = """<script>window.failures = [];
addEventListener("error", e => failures.push(String(e.message || e.target.src || e.target.href)), true);
for (const level of ["error", "warn"]) console[level] = (...words) => failures.push(words.join(" "));</script>"""


def probe(page: Path, script: str, *, folder: Path, flags: tuple[str, ...] = ()) -> Any:
    """What `script`, the body of a function, returns on the page; and `failures`, errors of scripts and console."""
    text = page.read_text()
    act = f"""<script>addEventListener("load", () => {{ let found; try {{ found = (() => {{ {script} }})(); }}
catch (error) {{ failures.push(String(error)); }}
const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify({{found, failures}});
document.body.append(out); }});</script>"""
    copy = folder / "probed.html"
    copy.write_text(text.replace("<head>", f"<head>{_CATCH}", 1).replace("</body>", f"{act}</body>", 1))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=5000", *flags, "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1]))
