"""Every table that crosses a stage: one reader, one writer, checked against its contract once.

A file written here carries the digest of the contract it was checked against and of its rows, and checksums of
its pages. A reader that finds all in order trusts it; any other file, an edited one too, is checked first. That
keeps pandas and pandera, two seconds of imports, out of the jobs that only read and answer. Torch-free.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from holdfast.errors import DataError, said
from holdfast.record import container, files, provenance

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

    frame = schemas.checked(content.to_pandas(), table, path)
    rows = pyarrow.Table.from_pandas(frame, preserve_index=False).to_pylist()  # as `write` does: what is empty is None
    return rows


def _unreadable(path: Path | str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"There is no file {path}.", found="nothing there", expected="a parquet file",
                         do=f"name another, or make it again: {container.again(path)}")  # fmt: skip
    return DataError(
        f"{path} cannot be read as parquet.", found=said(error), expected="a parquet file",
        do="write it again, or name it by what it is (.csv, .jsonl)",
    )  # fmt: skip
