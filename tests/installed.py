"""Try a built wheel as a user would: in an environment of its own, away from the project.

python tests/installed.py dist            # with all its dependencies, pinned
python tests/installed.py dist --light    # with click alone: what `holdfast --help` and `import holdfast` need
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
LOOK = """
import sys, holdfast
from pathlib import Path
package = Path(holdfast.__file__).parent
assert "site-packages" in package.parts, package
assert not {"torch", "pandas", "mlflow", "numpy"} & set(sys.modules), "import holdfast is not light"
for name in ("py.typed", "report/templates/report.html", "report/templates/plot.js", "judges/refusal.json"):
    assert (package / name).is_file(), f"the wheel lacks {name}"
print(holdfast.__version__)
"""


def tried(wheel: Path, *, light: bool) -> str:
    """The version an installed wheel says it is; every command of the trial must succeed."""
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as folder:
        bin_ = Path(folder) / "env/bin"

        def run(*command: object) -> str:
            done = subprocess.run([*map(str, command)], cwd=folder, env=outside, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
            return done.stdout

        run(sys.executable, "-m", "venv", *(["--without-pip"] if light else []), Path(folder) / "env")
        if light:
            run(UV, "pip", "install", "-q", "--python", bin_ / "python", "--no-deps", wheel, "click")
        else:
            pinned = re.findall(r"^(?:torch|uv)==\S+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
            run(bin_ / "python", "-m", "pip", "install", "-q", *pinned)
            run(
                UV,
                "pip",
                "install",
                "-q",
                "--python",
                bin_ / "python",
                "-c",
                ROOT / "constraints.txt",
                f"{wheel}[pipeline,tracking]",
            )
        version = run(bin_ / "python", "-c", LOOK).strip()
        assert "Usage: holdfast" in run(bin_ / "holdfast", "--help")
        assert run(bin_ / "holdfast", "--version").strip() == f"holdfast {version}"
        if not light:
            assert "holdfast plan" in run(bin_ / "holdfast", "plan", "--help")
            run(bin_ / "python", "-c", "import holdfast.train.loop, holdfast.warp.optimizer, holdfast.report.page")
    return version


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the wheel is")
    parser.add_argument("--light", action="store_true", help="with click alone")
    given = parser.parse_args()
    wheels = sorted(given.folder.resolve().glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"one wheel is expected in {given.folder}, found {len(wheels)}")
    found = wheels[0]
    sys.stdout.write(f"{found.name}: {tried(found, light=given.light)} installs and works\n")
