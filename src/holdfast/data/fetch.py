"""Raw rows of the user, the hub or the web as rows of ours: mapped, cleaned and checked, and nothing chosen yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from holdfast import data, names
from holdfast.data import sources, table
from holdfast.data.sources import is_file
from holdfast.errors import DataError, meant, said
from holdfast.record import userfiles
from holdfast.suites import published

TIMEOUT_SECONDS = 60.0
Row = dict[str, Any]


def read_local(
    dataset: str, path: Path, how: table.Reading | None = None, part: str | None = None
) -> list[Row]:  # fmt: skip
    """Every row of one local file, cleaned and checked against the dataset's contract.

    Args:
        how: the rows of a table are read.
        part: what their ids say of the file; default: its name without the ending.

    Raises:
        DataError: file, row, column and value of the first bad row.
    """
    raw = userfiles.table(path, csv_header=getattr(data.dataset(dataset), "CSV_HEADER", None))
    return _cleaned(dataset, raw, part or sources.part(path), str(path), how)


def _cleaned(
    dataset: str, raw: Sequence[Mapping[str, Any]], part: str, where: str, how: table.Reading | None
) -> list[Row]:
    """Raw rows as rows of the dataset, all in the split `train` until splits are cut."""
    module, rows = data.dataset(dataset), []
    if how and raw:
        _refuse_unknown(how.named, list(raw[0]), where)
    for i, record in enumerate(raw):
        try:
            cleaned = table.real_row(record, how) if how else module.real_row(record)
        except (KeyError, TypeError, ValueError) as error:
            missing = isinstance(error, KeyError)
            raise DataError(
                f"{where}: row {i} is not a row of {dataset}.",
                found=f"no column {error}" if missing else str(error)[:160],
                expected=how.expected if how else ", ".join(module.COLUMNS),
                do="correct or remove the row",
            ) from None
        rows.append({"id": f"{dataset}/{part}/{i:06d}", "split": "train", **cleaned})
    return checked(rows, dataset, where)


def _refuse_unknown(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    """Refuse columns that a table is made of and the first row does not have."""
    for column in wanted:
        if column not in there:
            raise DataError(
                f"{where} has no column '{column}', which the task is made of.", found=", ".join(there)[:160],
                expected=f"'{column}'",
                do=meant(column, there, "correct columns or splits of the task"),
            )  # fmt: skip


def local_parts(dataset: str, source: Path, how: table.Reading | None = None) -> dict[str, list[Row]]:
    """The rows of a file, or of a folder's files, by split; `all` where nothing says which split they are of.

    Raises:
        DataError: no file, two for one split, or a bad row.
    """
    named = how.parts if how else {}
    files = sources.local_files(dataset, str(source), named)
    if named and source.is_dir():
        for name in named.values():
            called = sorted(p.name for p in source.iterdir() if p.is_file() and sources.part(p) == name)
            if len(called) > 1 and name not in called:
                raise DataError(
                    f"{source} has several files called {name}, which a split is read from.", found=", ".join(called),
                    expected="one", do="write the ending too in splits of the task",
                )  # fmt: skip
        stems = [sources.part(path) for path in files]
        ids = [path.name if stems.count(stem) > 1 else stem for path, stem in zip(files, stems, strict=True)]
        return {split: _part(dataset, path, how, part) for split, path, part in zip(named, files, ids, strict=True)}
    if named and dataset == "table":
        raise DataError(
            f"{source} is no folder, and splits name files in one.", found="a file", expected="a folder, or splits by "
            "column or share", do="name the folder as the task's source, or correct splits",
        )  # fmt: skip
    if not files or not all(f.is_file() for f in files):
        raise DataError(
            f"There are no rows of {dataset} in {source}.",
            found=", ".join(sorted(p.name for p in source.iterdir())[:8]) or "an empty folder" if source.is_dir()
            else "no such file", expected="train.* and / or test.* (.csv .jsonl .parquet)",
            do="correct HOLDFAST_DATA or the task's source",
        )  # fmt: skip
    parts = {sources.part(path): path for path in files}
    if len(parts) != len(files):
        raise DataError(
            f"{source} has two files for one split.", found=", ".join(f.name for f in files),
            expected="one file each of train, validation, test", do="remove one of the two",
        )  # fmt: skip
    return {part if part in names.SPLITS else "all": read_local(dataset, path, how) for part, path in parts.items()}


def _part(dataset: str, path: Path, how: table.Reading | None, part: str) -> list[Row]:
    if not path.is_file():
        there = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise DataError(
            f"There is no file {path}, which a split is read from.", found=", ".join(there)[:160] or "no such folder",
            expected="a file for every split that is named", do="correct splits or source of the task",
        )  # fmt: skip
    return read_local(dataset, path, how, part)


def hub_parts(
    dataset: str, source: str = sources.HUB, revision: str | None = None, how: table.Reading | None = None
) -> dict[str, list[Row]]:
    """The rows of a data set on the hub by split: that of a dataset's module, or the one that a source names.

    Raises:
        DataError: it cannot be fetched, has no such split, or a bad row.
    """
    module, named = data.dataset(dataset), how.parts if how else {}
    if found := sources.HUB_DATA.fullmatch(source):
        repository, configs = found["id"], (found["config"],)
    else:
        repository, configs = module.HUB_ID, module.HUB_CONFIG
        configs, revision = configs if isinstance(configs, tuple) else (configs,), getattr(module, "REVISION", None)
    parts: dict[str, list[Row]] = {}
    for config in configs:
        loaded = _loaded(repository, config, revision)
        for split, theirs in (named or dict(zip(loaded, loaded, strict=True))).items():
            where = f"{repository}:{theirs}" if len(configs) == 1 else f"{repository}/{config}:{theirs}"
            if theirs not in loaded:
                raise DataError(
                    f"{where} does not exist.", found=", ".join(loaded), expected=f"the split {theirs} on the hub",
                    do="correct splits of the task",
                )  # fmt: skip
            raw = [{str(k).strip().lower(): v for k, v in r.items()} for r in loaded[theirs]]
            part = theirs if len(configs) == 1 else f"{config}/{theirs}"
            parts.setdefault(split, []).extend(_cleaned(dataset, raw, part, where, how))
    return parts


def _loaded(repository: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    import datasets

    try:
        return cast("Mapping[str, Any]", datasets.load_dataset(repository, config, revision=revision))
    except Exception as error:  # noqa: BLE001 - the hub raises many kinds; the user needs one answer
        raise DataError(
            f"{repository} cannot be fetched.",
            found=said(error), expected="a connection to the hub, or local files",
            do="set HOLDFAST_DATA to a folder with the files, or the task's source to one",
        ) from None  # fmt: skip


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
