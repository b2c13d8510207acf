"""Every table that crosses a stage: one reader, one writer, checked against its contract once.

A file written here carries the digest of the contract it was checked against and of its rows, and checksums of
its pages. A reader that finds all in order trusts it; any other file, an edited one too, is checked first. That
keeps pandas and pandera, two seconds of imports, out of the jobs that only read and answer. Torch-free.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from holdfast.errors import DataError
from holdfast.record import files, provenance

_CHECKED = b"holdfast.contract"


@functools.cache
def _contract(table: str) -> str:
    return f"{table} {provenance.code_digest(Path(__file__).with_name('schemas.py'))}"


def _stamp(table: str, rows: list[dict[str, Any]]) -> bytes:
    return f"{_contract(table)} {provenance.rows_digest(rows)}".encode()


def write(rows: Any, path: Path | str, table: str, *, check: bool = True) -> None:
    """Write parquet through a temp file; the same rows give the same bytes.

    Args:
        rows: a data frame, or dicts.
        check: validate and keep only the contract's columns. Without it the first reader validates.

    Raises:
        DataError: names the file, the row (0-based), the column and the value.
    """
    import pyarrow
    from pyarrow import parquet

    path = Path(path)
    if check:
        from holdfast.record import schemas

        frame = schemas.checked(rows, table, path)
        content = pyarrow.Table.from_pandas(frame, preserve_index=False)
        content = content.replace_schema_metadata({_CHECKED: _stamp(table, content.to_pylist())})
    else:
        content = pyarrow.Table.from_pylist(list(rows))
    with files.whole(path) as temporary:
        parquet.write_table(content, temporary, compression="zstd", write_page_checksum=True)


def read(path: Path | str, table: str) -> list[dict[str, Any]]:
    """Rows of a parquet file as dicts, checked against the table's contract if the file does not say it was.

    Raises:
        DataError: not parquet, damaged, or breaking the contract (file, row, column, value).
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:  # read_table imports pandas
            content = file.read()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None
    rows: list[dict[str, Any]]
    stamp = (content.schema.metadata or {}).get(_CHECKED)
    if stamp is not None and stamp == _stamp(table, rows := content.to_pylist()):
        return rows
    from holdfast.record import schemas

    return cast("list[dict[str, Any]]", schemas.checked(content.to_pandas(), table, path).to_dict("records"))


def _unreadable(path: Path | str, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read as parquet.", found=str(error).splitlines()[0][:160], expected="a parquet file",
        do="write it again, or name it by what it is (.csv, .jsonl)",
    )  # fmt: skip


def read_source(path: Path | str, *, csv_header: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Raw rows of a user's file: .parquet, .jsonl, .json or .csv (UTF-8, a byte-order mark is fine).

    `csv_header` names the columns of a CSV whose first line is already data.

    Raises:
        DataError: unknown ending, not UTF-8, or a line that is not a record (file, row, value).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} does not exist.", found="no file", expected="a data file", do="correct the path in the study"
        )
    if path.suffix == ".parquet":
        import pandas as pd

        try:
            return cast("list[dict[str, Any]]", pd.read_parquet(path).to_dict("records"))
        except (OSError, ValueError) as error:  # pyarrow's errors are both
            raise _unreadable(path, error) from None
    if path.suffix not in (".jsonl", ".json", ".csv"):
        raise DataError(
            f"{path} has an ending that is not known.", found=path.suffix or "none",
            expected=".parquet .csv .jsonl .json", do="rename or convert the file",
        )  # fmt: skip
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n")
        raise DataError(
            f"{path}: row {line} is not UTF-8.", found=repr(error.object[error.start : error.start + 8]),
            expected="UTF-8 text", do="convert the file to UTF-8",
        ) from None  # fmt: skip
    if path.suffix == ".csv":
        rows = _csv(text, path, csv_header)
    else:
        rows = _jsonl(text, path) if path.suffix == ".jsonl" else _json(text, path)
    if not rows:
        raise DataError(f"{path} has no rows.", found="an empty file", expected="at least one row", do="check the file")
    return rows


def _jsonl(text: str, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(part for part in text.split("\n") if part.strip()):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"{path}: row {number} is not JSON.", found=f"{line[:80]!r} ({error})"[:160],
                expected="one JSON object per line", do="correct or remove the row",
            ) from None  # fmt: skip
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number} is not a record.", found=type(row).__name__, expected="a JSON object",
                do="correct or remove the row",
            )  # fmt: skip
        rows.append(row)
    return rows


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON.", found=str(error)[:160], expected="a list of objects",
            do="correct the file, or name it .jsonl if every line is an object",
        ) from None  # fmt: skip
    if not isinstance(rows, list):
        raise DataError(
            f"{path} is not a list.", found=type(rows).__name__, expected="a list of objects", do="correct the file"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number} is not a record.", found=type(row).__name__, expected="a JSON object",
                do="correct or remove the row",
            )  # fmt: skip
    return rows


def _csv(text: str, path: Path, header: Sequence[str] | None) -> list[dict[str, Any]]:
    csv.field_size_limit(10_000_000)
    try:
        lines = [line for line in csv.reader(text.splitlines(keepends=True), strict=True) if line]
    except csv.Error as error:
        raise DataError(
            f"{path} is not valid CSV.", found=str(error), expected="comma-separated values, quotes doubled",
            do="write it again with a CSV library",
        ) from None  # fmt: skip
    if not lines:
        return []
    first = [c.strip().lower() for c in lines[0]]
    if header is None or not first[0].isdigit():
        header, lines = first, lines[1:]
    for number, line in enumerate(lines):
        if len(line) != len(header):
            raise DataError(
                f"{path}: row {number} has another number of columns.", found=f"{len(line)}: {line!r}"[:160],
                expected=f"{len(header)}: {', '.join(header)}", do="correct or remove the row",
            )  # fmt: skip
    return [dict(zip(header, line, strict=True)) for line in lines]
