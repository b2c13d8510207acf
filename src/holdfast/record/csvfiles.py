"""Small result tables as CSV: one reader, one writer."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.record import files


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """CSV with floats to 6 digits, through a temp file; column order is that of the rows."""
    fields = list(columns) or list(dict.fromkeys(k for row in rows for k in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    files.write_text(path, buffer.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a header line, every value as the text that stands there."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
