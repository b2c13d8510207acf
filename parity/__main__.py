"""Every comparison whose code is at hand: `python -m parity --code FOLDER`, one clone per repository in FOLDER, under
its own name. Prints the table of README.md; `--write` writes it there.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

from holdfast.errors import HoldfastError
from parity import code

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- results begin -->\n", "<!-- results end -->"


def scripts() -> list[ModuleType]:
    """Every comparison there is, by name."""
    names = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "__main__", "code", "tiny"))
    return [importlib.import_module(f"parity.{name}") for name in names]


def table(folder: Path) -> tuple[str, bool]:
    """(the table in Markdown, whether everything is explained)."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    lines = [
        f"Run on {datetime.date.today():%d %B %Y} with Python {platform.python_version()}, {versions}, on a CPU.",
        "",
        "| script | what | largest difference | explained by |",
        "|---|---|---|---|",
    ]
    well, last = True, ""
    for script in scripts():
        name = Path(str(script.__file__)).stem
        try:
            there = code.opened(script.REPOSITORY, script.COMMIT, folder / script.REPOSITORY.split("/")[1], name)
        except HoldfastError as error:
            print(error.block(), file=sys.stderr)
            well = False
            continue
        for row in code.compared(script.compare, there):
            well &= row.explained
            first = f"[{name}]({name}.py)" if name != last else ""
            because = row.because if row.explained else f"**not explained** ({row.because})"
            lines.append(f"| {first} | {row.what} | {row.difference:.1e} | {because} |")
            last = name
    return "\n".join(lines) + "\n", well


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parity", description=__doc__)
    parser.add_argument("--code", type=Path, required=True, metavar="FOLDER", help="where the clones lie")
    parser.add_argument("--write", action="store_true", help="write the table into README.md of this folder")
    given = parser.parse_args()
    text, well = table(given.code)
    print(text, end="")
    if given.write:
        readme = FOLDER / "README.md"
        before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
        readme.write_text(f"{before}{BEGIN}{text}{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
