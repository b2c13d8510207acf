"""Texts and tables of a user: one reader, whatever wrote them and wherever they lie.

UTF-8 with or without a byte-order mark, any line ends, packed or not. A column is known by its name without regard to
capitals and outer spaces; a value stays what it is, so that whoever needs text can refuse a number or nothing. The rows
are the same from .csv, .json, .jsonl and .parquet, from a disk and from an address.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from holdfast.errors import DataError, said

Row = dict[str, Any]
FORMATS = (".parquet", ".csv", ".jsonl", ".json")
_UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
PACKED = (*_UNPACK, ".zip")
_LONGEST_FIELD = 10_000_000
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def text(path: Path | str, what: str = "the study") -> str:
    """A text file a user names, with plain line ends.

    Args:
        what: who names it, for the error.

    Raises:
        DataError: not there, a folder, empty, or not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} is not a text file.", found="a folder" if path.is_dir() else "no file",
            expected="a file with text", do=f"correct the path in {what}",
        )  # fmt: skip
    found = _decoded(_bytes(path), str(path))
    if not found.strip():
        raise DataError(f"{path} is empty.", found="no text", expected="the text that it is named for",
                        do=f"write it, or remove the path from {what}")  # fmt: skip
    return _LINE_ENDS.sub("\n", found)


def table(path: Path | str, *, csv_header: Sequence[str] | None = None) -> list[Row]:
    """Rows of a local file: .parquet .csv .jsonl .json, also packed (.gz .bz2 .xz, or .zip with one file in it).

    `csv_header` names the columns of a CSV whose first line is already data.

    Raises:
        DataError: no file, unknown ending, not UTF-8, or a line that is not a record (file, row, value).
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            raise DataError(
                f"{path} is no data file.", found="a folder", expected="a data file", do="name a file in it"
            )
        raise DataError(f"{path} does not exist.", found="no file", expected="a data file", do="correct its path")
    return parsed(_bytes(path), str(path), csv_header=csv_header)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read.", found=error.strerror or str(error), expected="a file that you may read",
            do="change its permissions",
        ) from None  # fmt: skip


def parsed(raw: bytes, name: str, *, csv_header: Sequence[str] | None = None) -> list[Row]:
    """Rows of a file's bytes; its `name` (a path, or the path of an address) says the format.

    Raises:
        DataError: as `table`.
    """
    check_name(name)
    raw, inner = _unpacked(raw, name)
    ending = PurePosixPath(inner).suffix.lower()
    if ending == ".parquet":
        rows = _parquet(raw, name)
    else:
        content = _decoded(raw, name)
        if ending == ".csv":
            rows = _csv(content, name, csv_header)
        else:
            rows = _jsonl(content, name) if ending == ".jsonl" else _json(content, name)
    if not rows:
        raise DataError(f"{name} has no rows.", found="an empty file", expected="at least one row", do="check the file")
    return [_named(row, number, name) for number, row in enumerate(rows)]


def check_name(name: str) -> None:
    """Refuse a file whose name does not say its format, before anything is read or fetched.

    Raises:
        DataError: unknown ending.
    """
    endings = [ending.lower() for ending in PurePosixPath(name).suffixes[-2:]]
    if endings and endings[-1] in _UNPACK:
        endings.pop()
    if not endings or endings[-1] not in (*FORMATS, ".zip"):
        raise DataError(
            f"{name} has an ending that is not known.", found=PurePosixPath(name).suffix or "none",
            expected=f"{' '.join(FORMATS)}, also packed ({' '.join(PACKED)})", do="rename or convert the file",
        )  # fmt: skip


def _unpacked(raw: bytes, name: str) -> tuple[bytes, str]:
    """(bytes, name) of what is in a packed file, or of the file itself."""
    path = PurePosixPath(name)
    ending = path.suffix.lower()
    try:
        if ending in _UNPACK:
            return _UNPACK[ending](raw), path.stem
        if ending == ".zip":
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                inside = [n for n in archive.namelist() if PurePosixPath(n).suffix.lower() in FORMATS
                          and not n.startswith("__MACOSX/")]  # fmt: skip
                if len(inside) != 1:
                    raise DataError(
                        f"{name} must hold one data file.", found=", ".join(inside)[:120] or "none",
                        expected=f"one file ending in {' '.join(FORMATS)}", do="unpack it and name the file",
                    )  # fmt: skip
                return archive.read(inside[0]), inside[0]
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(
            f"{name} cannot be unpacked.", found=str(error)[:160] or type(error).__name__, expected="a packed file",
            do="pack it again, or name the unpacked file",
        ) from None  # fmt: skip
    return raw, name


def _decoded(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n")
        raise DataError(
            f"{name}: row {line} is not UTF-8.", found=repr(raw[error.start : error.start + 8]),
            expected="UTF-8 text", do="convert the file to UTF-8",
        ) from None  # fmt: skip


def _named(row: Row, number: int, name: str) -> Row:
    """A row under plain column names; text that no file could hold is refused here."""
    out: Row = {}
    for column, value in row.items():
        key = str(column).strip().lower()
        if not whole(key):
            raise DataError(
                f"{name}: row {number} has a name that holds half a character.", found=ascii(column)[:120],
                expected="text that UTF-8 can write", do="remove the lone surrogate from the name",
            )  # fmt: skip
        if key in out:
            raise DataError(
                f"{name}: two columns are called '{key}'.", found=", ".join(map(str, row))[:160],
                expected="names that differ in more than capitals and spaces", do="rename one of them",
            )  # fmt: skip
        held = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
        if isinstance(held, str) and not whole(held):
            raise DataError(
                f"{name}: row {number}, column '{key}' holds half a character.", found=ascii(value)[:120],
                expected="text that UTF-8 can write", do="remove the lone surrogate from the row",
            )  # fmt: skip
        out[key] = value
    return out


def whole(value: str) -> bool:
    """Whether a text could be written: JSON can name half of a character."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _not_a_record(name: str, number: int, row: Any) -> DataError:
    return DataError(
        f"{name}: row {number} is not a record.", found=type(row).__name__, expected="a JSON object",
        do="correct or remove the row",
    )  # fmt: skip


def _parquet(raw: bytes, name: str) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(io.BytesIO(raw)) as file:
            _once(file.schema_arrow.names, name)
            return cast("list[Row]", file.read().to_pylist())
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{name} cannot be read as parquet.", found=said(error),
            expected="a parquet file",
            do="write it again, or name it by what it is (.csv, .jsonl)",
        ) from None  # fmt: skip


def _jsonl(content: str, name: str) -> list[Row]:
    rows = []
    for number, line in enumerate(part for part in _LINE_ENDS.split(content) if part.strip()):
        try:
            row = json.loads(line, object_pairs_hook=_pairs)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{name}: row {number} is not JSON.", found=f"{line[:80]!r} ({error})"[:160],
                expected="one JSON object per line", do="correct or remove the row",
            ) from None  # fmt: skip
        if not isinstance(row, dict):
            raise _not_a_record(name, number, row)
        rows.append(row)
    return rows


def _json(content: str, name: str) -> list[Row]:
    try:
        rows = json.loads(content, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name} is not JSON.", found=str(error)[:160], expected="a list of objects",
            do="correct the file, or name it .jsonl if every line is an object",
        ) from None  # fmt: skip
    if not isinstance(rows, list):
        raise DataError(
            f"{name} is not a list.", found=type(rows).__name__, expected="a list of objects", do="correct the file"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _not_a_record(name, number, row)
    return rows


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    """A JSON object; a key that stands there twice would hide a value."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"the key '{next(k for k in keys if keys.count(k) > 1)}' is written twice")
    return dict(pairs)


def _once(columns: Sequence[str], name: str) -> None:
    if len({c.strip().lower() for c in columns}) != len(columns):
        raise DataError(
            f"{name}: two columns have one name.", found=", ".join(columns)[:160],
            expected="names that differ in more than capitals and spaces", do="rename one of them",
        )  # fmt: skip


def _other_delimiter(header: Sequence[str]) -> str | None:
    """What separates the columns of a file whose first line is one column to a reader of commas, if it looks so."""
    if header[0].lower().startswith("sep=") and len("".join(header)) <= 5:
        return (header[0][4:] or ",")[:1]
    if len(header) == 1:
        for sign in (";", "\t", "|"):
            if all(part.strip() and len(part) < 40 for part in header[0].split(sign)) and sign in header[0]:
                return sign
    return None


def _without_leavings(lines: list[list[str]], named: bool) -> list[list[str]]:
    """The lines without what spreadsheets leave: a first line that only says that commas separate, and at the end rows,
    and columns of lines that are `named` by the first, with nothing in any cell."""
    if lines and lines[0] == ["sep=", ""]:
        lines = lines[1:]
    while lines and len(lines[-1]) > 1 and not any(map(str.strip, lines[-1])):
        lines = lines[:-1]
    width = len(lines[0]) if lines else 0
    if not named or any(len(line) != width for line in lines):  # which the reader tells
        return lines
    used = max((i + 1 for line in lines for i, cell in enumerate(line) if cell.strip()), default=width)
    return [line[:used] for line in lines]


def _csv(content: str, name: str, header: Sequence[str] | None) -> list[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    # Lines end as the first one does, not at every sign that Unicode calls a separator.
    first = _LINE_ENDS.search(content)
    line_end = "\r" if first and first[0] == "\r" else "\n"
    *whole, rest = content.split(line_end)
    try:
        lines = [line for line in csv.reader([*(part + line_end for part in whole), rest], strict=True) if line]
    except csv.Error as error:
        raise DataError(
            f"{name} is not valid CSV.", found=str(error), expected="comma-separated values, quotes doubled",
            do="write it again with a CSV library",
        ) from None  # fmt: skip
    lines = _without_leavings(lines, named=header is None)
    if not lines:
        return []
    if other := _other_delimiter(lines[0]):
        raise DataError(
            f"{name} is not separated by commas.", found=f"{other!r} between its columns: {lines[0][0]!r}"[:160],
            expected="comma-separated values, quotes doubled", do="write it again with commas, or as .jsonl",
        )  # fmt: skip
    if header is None or not lines[0][0].strip().isdigit():
        header, lines = lines[0], lines[1:]
        _once(header, name)
    for number, line in enumerate(lines):
        if len(line) != len(header):
            raise DataError(
                f"{name}: row {number} has another number of columns.", found=f"{len(line)}: {line!r}"[:160],
                expected=f"{len(header)}: {', '.join(header)}", do="correct or remove the row",
            )  # fmt: skip
    return [dict(zip(header, line, strict=True)) for line in lines]
