"""Raw rows of the user, the hub or the web as rows of ours: mapped, cleaned and checked, and nothing chosen yet."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, cast

from holdfast import data, names
from holdfast.data import sources
from holdfast.data.sources import is_file
from holdfast.errors import DataError
from holdfast.record import tables

Row = dict[str, Any]


def read_local(dataset: str, path: Path) -> list[Row]:
    """Every row of one local file, cleaned and checked against the dataset's contract.

    Raises:
        DataError: file, row, column and value of the first bad row.
    """
    module = data.dataset(dataset)
    raw = tables.read_source(path, csv_header=getattr(module, "CSV_HEADER", None))
    rows = []
    for i, record in enumerate(raw):
        try:
            cleaned = module.real_row(record)
        except (KeyError, TypeError, ValueError) as error:
            missing = isinstance(error, KeyError)
            raise DataError(
                f"{path}: row {i} is not a row of {dataset}.",
                found=f"no column {error}" if missing else str(error)[:120],
                expected=", ".join(module.COLUMNS),
                do="correct or remove the row",
            ) from None
        rows.append({"id": f"{dataset}/{path.stem}/{i:06d}", "split": "train", **cleaned})
    return checked(rows, dataset, path)


def local_parts(module: ModuleType, dataset: str, source: Path) -> dict[str, list[Row]]:
    files = sources.local_files(dataset, str(source)) if source.is_dir() else [source]
    if not files or not all(f.is_file() for f in files):
        raise DataError(
            f"There are no rows of {dataset} in {source}.",
            found="no train, validation or test file", expected="train.* and / or test.* (.csv .jsonl .parquet)",
            do="correct HOLDFAST_DATA or the task's source",
        )  # fmt: skip
    return {path.stem if path.stem in names.SPLITS else "all": read_local(dataset, path) for path in files}


def hub_parts(module: ModuleType) -> dict[str, list[Row]]:
    import datasets

    try:
        loaded = datasets.load_dataset(module.HUB_ID, module.HUB_CONFIG)
    except Exception as error:  # noqa: BLE001 - the hub raises many kinds; the user needs one answer
        raise DataError(
            f"{module.HUB_ID} cannot be fetched.",
            found=str(error).splitlines()[0][:160], expected="a connection to the hub, or local files",
            do="set HOLDFAST_DATA to a folder with the files, or the task's source to one",
        ) from None  # fmt: skip
    name = module.__name__.rsplit(".", 1)[-1]
    parts = {}
    for split in loaded:
        rows = [
            {"id": f"{name}/{split}/{i:06d}", "split": "train", **module.real_row(r)}
            for i, r in enumerate(loaded[split])
        ]
        parts[split] = checked(rows, name, f"{module.HUB_ID}:{split}")
    return parts


def records(source: str, columns: dict[str, str]) -> list[Row]:
    """Raw records of a user's file or address under our column names.

    Args:
        columns: our column -> the source's column. Columns that no schema knows are dropped later.

    Raises:
        DataError: unreadable, unreachable, or a column that is not there.
    """
    found = tables.read_source(source) if is_file(source) else _fetch(source)
    for ours, theirs in columns.items():
        missing = next((i for i, r in enumerate(found) if theirs not in r), None)
        if missing is not None:
            raise DataError(
                f"{source}: row {missing} has no column '{theirs}'.",
                found=", ".join(map(str, found[missing])), expected=f"'{theirs}', which is to be read as '{ours}'",
                do="correct `columns` in the study",
            )  # fmt: skip
    return [r | {ours: r[theirs] for ours, theirs in columns.items()} for r in found]


def _fetch(address: str) -> list[Row]:
    import datasets

    ending = address.split("?")[0].rsplit(".", 1)[-1]
    kind = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet"}.get(ending)
    if kind is None:
        raise DataError(
            f"{address} has an ending that is not known.", found=ending[:20], expected=".parquet .csv .jsonl .json",
            do="correct the source in the study",
        )  # fmt: skip
    try:
        return cast("list[Row]", datasets.load_dataset(kind, data_files=address, split="train").to_list())
    except Exception as error:  # noqa: BLE001 - the network raises many kinds; the user needs one answer
        raise DataError(
            f"{address} cannot be fetched.", found=(str(error).splitlines() or [type(error).__name__])[0][:160],
            expected="a connection to the web, or a local copy", do="name a local file as the source in the study",
        ) from None  # fmt: skip


def checked(rows: list[Row], table: str, source: Path | str) -> list[Row]:
    """The rows against their contract, in the contract's columns."""
    from holdfast.record import schemas

    return cast("list[Row]", schemas.checked(rows, table, source).to_dict("records"))
