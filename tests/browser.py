"""A real browser without a dependency: headless Chromium loads a page with a probe that acts on it and writes down
what it found."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
_CATCH = """window.failures = [];
addEventListener("error", e => failures.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", e => failures.push(String(e.reason)));
addEventListener("securitypolicyviolation", e => failures.push(`${e.violatedDirective} forbids ${e.blockedURI}`));
for (const level of ["error", "warn"]) console[level] = (...words) => failures.push(words.join(" "));"""
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def probe(page: Path, script: str, *, folder: Path, flags: tuple[str, ...] = ()) -> Any:
    """What `script`, the body of a function, returns on the page (or promises to); and `failures`, errors of scripts
    and console, and what the page's own policy forbade. The probe is added to that policy, which stays in force."""
    text = page.read_text()
    act = f"""addEventListener("load", async () => {{ let found; try {{ found = await (() => {{ {script} }})(); }}
catch (error) {{ failures.push(String(error)); }}
const out = document.createElement("pre"); out.id = "probe"; out.textContent = JSON.stringify({{found, failures}});
document.body.append(out); }});"""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (_CATCH, act))
    allowed = " ".join(f"&#39;sha256-{digest}&#39;" for digest in digests)
    text = text.replace("; script-src ", f"; script-src {allowed} ", 1)
    copy = folder / "probed.html"
    text = text.replace("<head>", f"<head><script>{_CATCH}</script>", 1)
    copy.write_text(text.replace("</body>", f"<script>{act}</script></body>", 1))
    done = subprocess.run(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *flags,
         "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1]))
