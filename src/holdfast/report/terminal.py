"""The console command: `holdfast <study>` prints its table, `holdfast why <target>` what would run and why."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from holdfast import names
from holdfast.archive import why
from holdfast.errors import HoldfastError
from holdfast.record.csvfiles import read_csv
from holdfast.study import resolve

COLUMNS = (
    ("refusal", names.REFUSAL_RATE), ("wrapped", names.WRAPPED_REFUSAL_RATE), ("compliance", names.COMPLIANCE_RATE),
    ("over-refusal", names.OVER_REFUSAL), ("utility", "utility"),
)  # fmt: skip


def text(folder: Path) -> str:
    """The table of results/<study> as text: percent, 95 % intervals in brackets; share of weights that changed, and
    seconds of a cell, which stand in cost.csv because table.csv does not depend on the clock."""
    rows = read_csv(folder / "table.csv")
    width = max(len(r["arm"]) for r in rows)
    costs: dict[tuple[str, str], list[float]] = {}
    for c in read_csv(folder / "cost.csv") if (folder / "cost.csv").exists() else []:
        costs.setdefault((c["task"], c["arm"]), []).append(float(c["cost/seconds"]))
    lines = []
    for task in dict.fromkeys(r["task"] for r in rows):
        lines += ["", f"{task:<{width}}" + "".join(f"{title:>22}" for title, _ in COLUMNS) + "   changed   seconds"]
        for r in (r for r in rows if r["task"] == task):
            cells = ""
            for _, key in COLUMNS:
                if r.get(key):
                    rate, low, high = (100 * float(r[k]) for k in (key, f"{key}_low", f"{key}_high"))
                cells += (f"{rate:>10.1f} [{low:4.1f}, {high:4.1f}]" if r.get(key) else "–").rjust(22)
            spent = costs.get((task, r["arm"]))
            cells += f"{100 * float(r[names.CHANGED_FRACTION]):>10.1f}"
            cells += f"{sum(spent) / len(spent):>10.0f}" if spent else ""
            lines.append(f"{r['arm']:<{width}}" + cells)
    first = rows[0]
    lines += ["", f"percent, 95 % intervals; {first['split']} split, {max(int(r['seeds']) for r in rows)} seed(s)"]
    lines.append(f"report: {(folder / 'report.html').resolve()}")
    return "\n".join(lines)


def main() -> int:
    """Console entry: `holdfast [study]` prints the table of a finished study; `holdfast why TARGET`."""
    if sys.argv[1:2] == ["why"]:
        return why.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="holdfast", description="Print the table of a finished study.",
        epilog="holdfast why TARGET says why a file would be made again. All else is snakemake's: see README.md.",
    )  # fmt: skip
    parser.add_argument("study", nargs="?", default="demo", help="its name or its file (default: demo)")
    study = parser.parse_args().study
    folder = Path("results") / Path(study).stem
    try:
        if not (folder / "table.csv").exists():
            resolve.load(study)
            raise HoldfastError(
                f"Study '{folder.name}' has no table yet.", found=f"no {folder / 'table.csv'}",
                expected="a finished study", do=f"snakemake --config study={study}",
            )  # fmt: skip
    except HoldfastError as error:
        sys.stderr.write(error.block() + "\n")
        return error.exit_code
    sys.stdout.write(text(folder) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
