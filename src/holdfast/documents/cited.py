"""Numbers in the running text of a page: which file holds them, and how they are written.

    Full fine-tuning leaves <!-- = demo/replicated.csv task=agnews arm=full refused -->...<!-- / --> of them.

names a file below docs/, the one row that is meant, a column, and perhaps a form. `holdfast documents` writes what
stands between the two comments: the number, linked to its file, with its 95 % interval.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.errors import DocumentError
from holdfast.record import csvfiles

NUMBER = re.compile(r"<!-- = (.+?) -->(.*?)<!-- / -->", re.S)
COLUMNS = {
    "refused": names.REFUSAL_RATE, "wrapped": names.WRAPPED_REFUSAL_RATE, "complied": names.COMPLIANCE_RATE,
    "over-refusal": names.OVER_REFUSAL,
}  # fmt: skip
FORMS = ("rate", "%", "number", "points", "points.1", "text")


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
    its sign too, `points` a difference in points (`points.1` with one digit), `text` as it stands in the file.

    >>> written({"effect": "-0.0173", "low": "-0.052", "high": "0.018"}, "effect", "points.1")
    ('−1.7', ' [−5.2, 1.8]')
    """
    if form == "text":
        return str(row[column]), ""
    low, high = ("low", "high") if column == "effect" else (f"{column}_low", f"{column}_high")
    digits = int(form == "points.1")
    value, *ends = (_signed(100 * float(row[k]), digits) for k in (column, low, high) if row.get(k))
    number = f"{value} %" if form in ("rate", "%") else value
    return number, f" [{', '.join(ends)}]" if ends and form in ("rate", "points", "points.1") else ""


def _number(asked: str, docs: Path, page: Path) -> str:
    """What stands between the two comments.

    Raises:
        DocumentError: no such file or column, or not exactly one row.
    """
    file, *words = asked.split()
    only = dict(w.split("=", 1) for w in words if "=" in w)
    column, form = (*(w for w in words if "=" not in w), "rate")[:2]
    column = COLUMNS.get(column, column)
    path = docs / file
    found = [r for r in _rows(path) if all(r.get(k) == v for k, v in only.items())] if path.is_file() else []
    if len(found) != 1 or not found[0].get(column) or form not in FORMS:
        raise DocumentError(
            f"{page.name}: a number is not to be found.", found=f"{asked}: {len(found)} rows",
            expected=f"one row, one of its columns, and perhaps one of {' | '.join(FORMS)}", do="correct the comment",
        )  # fmt: skip
    number, interval = written(found[0], column, form)
    return f"[{number}]({os.path.relpath(path, page.parent)}){interval}"


def pages(root: Path) -> list[str]:
    """The pages that name numbers."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [str(p.relative_to(root)) for p in found if NUMBER.search(p.read_text(encoding="utf-8"))]


def filled(page: Path, docs: Path, text: str) -> str:
    """The text of a page with every number that it names.

    Raises:
        DocumentError: a comment names no number.
    """
    return NUMBER.sub(lambda m: f"<!-- = {m[1]} -->{_number(m[1], docs, page)}<!-- / -->", text)
