"""Numbers in the running text of a page: which file holds them, and how they are written.

    Full fine-tuning leaves <!-- = demo/replicated.csv task=agnews arm=full refused -->...<!-- / --> of them.

names a file below docs/, the one row that is meant, a column, and perhaps a form. `holdfast documents` writes what
stands between the two comments: the number, linked to its file, with its 95 % interval. What no study writes, times
above all, stands with how it was measured in docs/numbers/, one row a number; `<!-- = key -->` on the page X.md is the
row `key` of docs/numbers/X.csv, and `<!-- = Y/key -->` that of docs/numbers/Y.csv. A whole table stands between
`<!-- table numbers/name.csv -->` and `<!-- /table -->`, cell by cell as in its file, without the column `what`, by
which a cell can be cited elsewhere (a blank in a column's name is written `_`).
"""

from __future__ import annotations

import csv
import functools
import os
import re
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.documents.tables import table
from holdfast.errors import DocumentError
from holdfast.record import csvfiles

TABLE = re.compile(r"<!-- table (\S+) -->(.*?)<!-- /table -->", re.S)
NUMBER = re.compile(r"<!-- = (.+?) -->(.*?)<!-- / -->", re.S)
COLUMNS = {
    "refused": names.REFUSAL_RATE, "wrapped": names.WRAPPED_REFUSAL_RATE, "complied": names.COMPLIANCE_RATE,
    "over-refusal": names.OVER_REFUSAL,
}  # fmt: skip
FORMS = ("rate", "%", "number", "points", "points.1", "digits.1", "digits.2", "text", "first")
RECORDS = "numbers"  # folder of numbers that no study writes: what, value, low, high, unit, how
RECORDED = ("all", "value")  # with unit and interval, and without


@functools.cache
def _rows(path: Path) -> list[dict[str, Any]]:
    return csvfiles.read_csv(path)


def _signed(value: float, digits: int) -> str:
    """A number with a true minus; what rounds to nothing has no sign.

    >>> _signed(-1.66, 1), _signed(-0.04, 1), _signed(7, 0)
    ('−1.7', '0.0', '7')
    """
    text = f"{value:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def written(row: dict[str, Any], column: str, form: str) -> tuple[str, str]:
    """(the number, its interval) of one row: `rate` a share in percent with its interval, `%` without, `number` without
    its sign too, `points` a difference in points (`points.1` with one digit), `digits.N` the number itself with N
    significant digits, `text` as it stands in the file, `first` its first word.

    >>> written({"effect": "-0.0173", "low": "-0.052", "high": "0.018"}, "effect", "points.1")
    ('−1.7', ' [−5.2, 1.8]')
    >>> written({"p": "6.8e-09"}, "p", "digits.1")
    ('7e-9', '')
    """
    if form == "text":
        return str(row[column]), ""
    if form == "first":
        return str(row[column]).split()[0], ""
    if form.startswith("digits."):
        return f"{float(row[column]):.{form[-1]}g}".replace("e-0", "e-"), ""
    low, high = ("low", "high") if column == "effect" else (f"{column}_low", f"{column}_high")
    digits = int(form == "points.1")
    value, *ends = (_signed(100 * float(row[k]), digits) for k in (column, low, high) if row.get(k))
    number = f"{value} %" if form in ("rate", "%") else value
    return number, f" [{', '.join(ends)}]" if ends and form in ("rate", "points", "points.1") else ""


def _recorded(row: dict[str, Any], form: str) -> tuple[str, str]:
    """(the number, its interval) of one row of a record, as they stand there."""
    if form == "value":
        return row["value"], ""
    ends = [row[k] for k in ("low", "high") if row.get(k)]
    return f"{row['value']} {row['unit']}".strip(), f" [{', '.join(ends)}]" if ends else ""


def _number(asked: str, docs: Path, page: Path) -> str:
    """What stands between the two comments.

    Raises:
        DocumentError: no such file or column, or not exactly one row.
    """
    file, *words = asked.split()
    if record := not file.endswith(".csv"):
        name, _, key = file.rpartition("/")
        file, words = f"{RECORDS}/{name or page.stem}.csv", [f"what={key}", "value", *(words or RECORDED[:1])]
    forms = RECORDED if record else FORMS
    only = dict(w.split("=", 1) for w in words if "=" in w)
    column, form = (*(w for w in words if "=" not in w), "rate")[:2]
    column = COLUMNS.get(column, column)
    path = docs / file
    rows = [{k.replace(" ", "_"): v for k, v in r.items()} for r in _rows(path)] if path.is_file() else []
    found = [r for r in rows if all(r.get(k) == v for k, v in only.items())]
    if len(found) != 1 or not found[0].get(column) or form not in forms:
        raise DocumentError(
            f"{page.name}: a number is not to be found.", found=f"{asked}: {len(found)} rows",
            expected=f"one row of {file}, one of its columns, and perhaps one of {' | '.join(forms)}",
            do="correct the comment",
        )  # fmt: skip
    number, interval = _recorded(found[0], form) if record else written(found[0], column, form)
    return f"[{number}]({os.path.relpath(path, page.parent)}){interval}"


def _table(file: str, docs: Path, page: Path) -> str:
    """A CSV file as a table with a link to it; columns whose every cell begins with a number stand at the right.

    Raises:
        DocumentError: no such file.
    """
    path = docs / file
    if not path.is_file():
        raise DocumentError(
            f"{page.name}: a table is not to be found.", found=file, expected="a CSV file below docs/",
            do="correct the comment",
        )  # fmt: skip
    with path.open(newline="", encoding="utf-8") as text:
        lines = list(csv.reader(text))
    keyed = lines[0][0] == "what"
    titles, *rows = (line[keyed:] for line in lines)
    right = [all(re.match(r"[−+]?\d", row[i]) for row in rows if row[i]) for i in range(len(titles))]
    return f"{table(titles, rows, right=right)}\n<sub>[{path.name}]({os.path.relpath(path, page.parent)})</sub>\n"


def pages(root: Path) -> list[str]:
    """The pages that name numbers."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    texts = {p: p.read_text(encoding="utf-8") for p in found}
    return [str(p.relative_to(root)) for p, text in texts.items() if NUMBER.search(text) or TABLE.search(text)]


def filled(page: Path, docs: Path, text: str) -> str:
    """The text of a page with every number and table that it names.

    Raises:
        DocumentError: a comment names no number, or no table.
    """
    text = TABLE.sub(lambda m: f"<!-- table {m[1]} -->\n{_table(m[1], docs, page)}<!-- /table -->", text)
    return NUMBER.sub(lambda m: f"<!-- = {m[1]} -->{_number(m[1], docs, page)}<!-- / -->", text)
