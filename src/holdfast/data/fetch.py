"""Raw rows of the user, the hub or the web as rows of ours: mapped, cleaned and checked, and nothing chosen yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from holdfast import data, names
from holdfast.data import sources
from holdfast.data.sources import is_file
from holdfast.errors import DataError, said
from holdfast.record import userfiles
from holdfast.suites import published

TIMEOUT_SECONDS = 60.0
Row = dict[str, Any]


def read_local(dataset: str, path: Path) -> list[Row]:
    """Every row of one local file, cleaned and checked against the dataset's contract.

    Raises:
        DataError: file, row, column and value of the first bad row.
    """
    module = data.dataset(dataset)
    raw = userfiles.table(path, csv_header=getattr(module, "CSV_HEADER", None))
    return _cleaned(module, dataset, raw, sources.part(path), str(path))


def _cleaned(module: ModuleType, dataset: str, raw: Iterable[Mapping[str, Any]], part: str, where: str) -> list[Row]:
    """Raw rows as rows of the dataset, all in the split `train` until splits are cut."""
    rows = []
    for i, record in enumerate(raw):
        try:
            cleaned = module.real_row(record)
        except (KeyError, TypeError, ValueError) as error:
            missing = isinstance(error, KeyError)
            raise DataError(
                f"{where}: row {i} is not a row of {dataset}.",
                found=f"no column {error}" if missing else str(error)[:160],
                expected=", ".join(module.COLUMNS),
                do="correct or remove the row",
            ) from None
        rows.append({"id": f"{dataset}/{part}/{i:06d}", "split": "train", **cleaned})
    return checked(rows, dataset, where)


def local_parts(module: ModuleType, dataset: str, source: Path) -> dict[str, list[Row]]:
    files = sources.local_files(dataset, str(source)) if source.is_dir() else [source]
    if not files or not all(f.is_file() for f in files):
        raise DataError(
            f"There are no rows of {dataset} in {source}.",
            found="no train, validation or test file", expected="train.* and / or test.* (.csv .jsonl .parquet)",
            do="correct HOLDFAST_DATA or the task's source",
        )  # fmt: skip
    parts = {sources.part(path): path for path in files}
    if len(parts) != len(files):
        raise DataError(
            f"{source} has two files for one split.", found=", ".join(f.name for f in files),
            expected="one file each of train, validation, test", do="remove one of the two",
        )  # fmt: skip
    return {part if part in names.SPLITS else "all": read_local(dataset, path) for part, path in parts.items()}


def hub_parts(module: ModuleType) -> dict[str, list[Row]]:
    import datasets

    try:
        loaded = datasets.load_dataset(module.HUB_ID, module.HUB_CONFIG)
    except Exception as error:  # noqa: BLE001 - the hub raises many kinds; the user needs one answer
        raise DataError(
            f"{module.HUB_ID} cannot be fetched.",
            found=said(error), expected="a connection to the hub, or local files",
            do="set HOLDFAST_DATA to a folder with the files, or the task's source to one",
        ) from None  # fmt: skip
    name = module.__name__.rsplit(".", 1)[-1]
    return {s: _cleaned(module, name, loaded[s], s, f"{module.HUB_ID}:{s}") for s in loaded}


def records(source: str, columns: dict[str, str]) -> list[Row]:
    """Raw records of a user's file or address under our column names.

    Args:
        columns: our column -> the source's column. Columns that no schema knows are dropped later.

    Raises:
        DataError: unreadable, unreachable, or a column that is not there.
    """
    if source in published.REFUSALS:
        return published.rows(source, downloaded)
    found = userfiles.table(Path(source)) if is_file(source) else _fetch(source)
    for ours, theirs in columns.items():
        key = theirs.strip().lower()
        missing = next((i for i, r in enumerate(found) if key not in r), None)
        if missing is not None:
            raise DataError(
                f"{source}: row {missing} has no column '{theirs}'.",
                found=", ".join(map(str, found[missing])), expected=f"'{theirs}', which is to be read as '{ours}'",
                do="correct `columns` in the study",
            )  # fmt: skip
    return [r | {ours: r[theirs.strip().lower()] for ours, theirs in columns.items()} for r in found]


def _fetch(address: str) -> list[Row]:
    """Rows of a file on the web, read as a local one is."""
    name = unquote(urlsplit(address).path)
    userfiles.check_name(name)
    return userfiles.parsed(downloaded(address), name)


def downloaded(address: str) -> bytes:
    """What lies at an address.

    Raises:
        DataError: it cannot be fetched.
    """
    try:
        asked = Request(address, headers={"User-Agent": "holdfast"})
        with urlopen(asked, timeout=TIMEOUT_SECONDS) as answer:
            raw: bytes = answer.read()
            return raw
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(
            f"{address} cannot be fetched.", found=said(error),
            expected="a connection to the web, or a local copy", do="name a local file as the source in the study",
        ) from None  # fmt: skip


def checked(rows: list[Row], table: str, source: Path | str) -> list[Row]:
    """The rows against their contract, in the contract's columns."""
    from holdfast.record import schemas

    return cast("list[Row]", schemas.checked(rows, table, source).to_dict("records"))
