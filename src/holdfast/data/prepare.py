"""Stage data preparation: world, hub or a user's file -> validated tables with disjoint splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from holdfast import data, names
from holdfast.data import sources
from holdfast.data.sources import HUB, is_file
from holdfast.errors import DataError
from holdfast.record import tables
from holdfast.world.generator import SPLITS, World

# A training pool is larger than one run, so that every seed draws its own rows.
POOL_FACTOR = 2
Row = dict[str, Any]


def safety_rows(cfg: dict[str, Any]) -> list[Row]:
    """Rows of the safety table: the world's, or the user's file with kind, prompt, response."""
    if cfg["source"] == "world":
        return World(cfg["world"]["seed"]).safety(cfg["hazards"], cfg["benign"])
    rows = [
        {"id": str(r.get("id") or f"safety/{i:05d}"), "category": str(r.get("category") or "user"), **r}
        for i, r in enumerate(_records(cfg["source"], cfg["columns"]))
    ]
    for row in rows:
        row.setdefault("kind", "hazard")
    checked = _checked(rows, "safety", cfg["source"])
    return _limit([r for r in checked if r["kind"] == "hazard"], cfg["hazards"]) + _limit(
        [r for r in checked if r["kind"] != "hazard"], cfg["benign"]
    )


def preference_rows(cfg: dict[str, Any]) -> list[Row]:
    """Preference pairs: the world's, or the user's file with prompt, chosen, rejected."""
    if cfg["source"] == "world":
        return World(cfg["world"]["seed"]).preferences(cfg["rows"])
    rows = [
        {"id": f"preference/{i:05d}", "category": "user", **r}
        for i, r in enumerate(_records(cfg["source"], cfg["columns"]))
    ]
    return _checked(rows, "preferences", cfg["source"])[: cfg["rows"]]


_XSTEST_LABELS = {"unsafe": names.HAZARD, "safe": names.LOOKALIKE}


def prompt_rows(cfg: dict[str, Any]) -> list[Row]:
    """Evaluation prompts, validation and test: the world's, or the user's file with set and prompt.

    A user's `set` may also be XSTest's label: `unsafe` is a hazard, `safe` a benign prompt that looks like one.
    """
    if cfg["source"] == "world":
        world = World(cfg["world"]["seed"])
        return [row for split in SPLITS[1:] for row in world.prompts(split, cfg["prompts_per_set"])]
    rows = []
    for i, r in enumerate(_records(cfg["source"], cfg["columns"])):
        defaults = {
            "id": f"prompt/{i:05d}", "split": "test", "set": names.HAZARD, "base_id": f"{i:05d}", "category": "user",
            "response": "",
        }  # fmt: skip
        row = defaults | {k: v for k, v in r.items() if v is not None}
        rows.append(row | {"set": _XSTEST_LABELS.get(row["set"], row["set"])})
    return _checked(rows, "prompts", cfg["source"])


def judge_prompt_rows(cfg: dict[str, Any]) -> list[Row]:
    """Training requests whose answers a judge learns from."""
    return World(cfg["world"]["seed"]).prompts("train", cfg["prompts_per_set"])


def own_judge_pairs(source: str) -> list[Row]:
    """A user's labelled pairs: prompt, reply, label (good | bad) and perhaps the evaluation to learn."""
    rows = [
        {"id": f"pair/{i:05d}", "evaluation": f"Evaluation: judged by the rules. Chatbot is: {r.get('label')}.", **r}
        for i, r in enumerate(_records(source, {}))
    ]
    return _checked(rows, "judge_pairs", source)


def task_rows(cfg: dict[str, Any], source: Path | None = None) -> list[Row]:
    """Rows of one task: a training pool and validation and test rows, no text in two splits.

    Args:
        cfg: world, dataset, source and the three row counts.
        source: local file or folder when the rows are neither the world's nor fetched from the hub.
    """
    sizes = {s: cfg[f"{s}_rows"] * (POOL_FACTOR if s == "train" else 1) for s in SPLITS}
    if cfg["source"] == "world":
        world = World(cfg["world"]["seed"])
        make = {
            "agnews": world.agnews, "gsm8k": world.gsm8k, "crafts": world.crafts_task, "howto": world.howto_task,
            "chat": world.chat_task,
        }[cfg["dataset"]]  # fmt: skip
        return [row for split in SPLITS for row in make(split, sizes[split])]
    module = data.dataset(cfg["dataset"])
    parts = _local(module, cfg["dataset"], source) if source else _hub(module)
    if cfg["source"] != HUB:  # published splits share a few texts; _cut keeps each once
        for split in ("validation", "test"):
            refuse_leak(parts.get("train", []), parts.get(split, []), module.TEXT_COLUMNS[0], f"{source}/{split}",
                        "the training rows beside it")  # fmt: skip
    return _cut(parts, sizes, cfg["dataset"], cfg["world"]["seed"], str(source or module.HUB_ID))


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
    return _checked(rows, dataset, path)


def refuse_leak(trained: Sequence[Row], asked: Sequence[Row], column: str, where: str, source: str) -> None:
    """Refuse evaluation rows whose text is trained on; case and white space do not make another text.

    Raises:
        DataError: the first such row of `asked`.
    """

    def text(row: Row) -> str:
        return " ".join(row[column].lower().split())

    known = {text(r) for r in trained}
    for i, row in enumerate(asked):
        if text(row) in known:
            raise DataError(
                f"{where}: row {i}, column '{column}' is also among {source}.",
                found=repr(row[column])[:120], expected="evaluation rows that nothing is trained on",
                do="remove the row from one of the two",
            )  # fmt: skip


def _local(module: ModuleType, dataset: str, source: Path) -> dict[str, list[Row]]:
    files = sources.local_files(dataset, str(source)) if source.is_dir() else [source]
    if not files or not all(f.is_file() for f in files):
        raise DataError(
            f"There are no rows of {dataset} in {source}.",
            found="no train, validation or test file", expected="train.* and / or test.* (.csv .jsonl .parquet)",
            do="correct HOLDFAST_DATA or the task's source",
        )  # fmt: skip
    return {path.stem if path.stem in SPLITS else "all": read_local(dataset, path) for path in files}


def _hub(module: ModuleType) -> dict[str, list[Row]]:
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
        parts[split] = _checked(rows, name, f"{module.HUB_ID}:{split}")
    return parts


def _cut(parts: dict[str, list[Row]], sizes: dict[str, int], dataset: str, seed: int, where: str) -> list[Row]:
    """Draw the three splits. Published train and test files are respected; what is missing is cut
    from what is there. A text that occurs twice is kept once, in the split drawn first (test)."""
    key = data.dataset(dataset).TEXT_COLUMNS[0]
    rng = random.Random(f"holdfast-cut-{seed}-{dataset}")
    pools = {name: rng.sample(rows, len(rows)) for name, rows in sorted(parts.items())}
    seen: set[str] = set()
    out: dict[str, list[Row]] = {}
    for split in ("test", "validation", "train"):
        order = [split, "all", "train", "test"] if split != "test" else ["test", "all", "train"]
        source = next((n for n in order if pools.get(n)), None)
        chosen: list[Row] = []
        while source and pools[source] and len(chosen) < sizes[split]:
            row = pools[source].pop()
            text = " ".join(row[key].lower().split())
            if text not in seen:
                seen.add(text)
                chosen.append({**row, "split": split})
        needed = sizes[split] if split != "train" else sizes[split] // POOL_FACTOR
        if len(chosen) < needed:
            raise DataError(
                f"{where} has too few different rows for the {split} split of {dataset}.",
                found=f"{len(chosen)} rows", expected=f"{needed}", do=f"lower tasks.*.{split}_rows in the study",
            )  # fmt: skip
        out[split] = chosen
    return [row for split in SPLITS for row in out[split]]


def draw(rows: Sequence[Row], count: int, seed: int, *, stratify: bool = False) -> list[Row]:
    """The training rows of one seed: `count` rows of the pool without replacement.

    `stratify` draws equally many of every label (one more of the first ones where it does not divide).

    Raises:
        DataError: a label has too few rows for that.
    """
    pool = [r for r in rows if r["split"] == "train"]
    rng = random.Random(f"holdfast-draw-{seed}")
    if not stratify:
        return rng.sample(pool, min(count, len(pool)))
    labels = sorted({r["label"] for r in pool})
    drawn = []
    for position, label in enumerate(labels):
        share = count // len(labels) + (position < count % len(labels))
        of_label = [r for r in pool if r["label"] == label]
        if len(of_label) < share:
            raise DataError(
                "A label has too few rows for a stratified draw.", found=f"{len(of_label)} rows with label {label}",
                expected=f"{share}", do="lower train_rows of the task",
            )  # fmt: skip
        drawn += rng.sample(of_label, share)
    return rng.sample(drawn, len(drawn))


def mix_harmful(pairs: Sequence[Row], harmful: Sequence[Row], fraction: float, seed: int) -> list[Row]:
    """The pairs with round(fraction · N) of them replaced, in place, by harmful answers (the rejected side
    of preference rows): the poisoned task data of a risk study.

    Raises:
        DataError: fewer harmful rows than the fraction asks for.
    """
    count = round(fraction * len(pairs))
    if count > len(harmful):
        raise DataError(
            "There are too few preference pairs for the harmful fraction of this task.",
            found=f"{len(harmful)} pairs", expected=f"at least {count}", do="raise preferences.rows in the study",
        )  # fmt: skip
    rng, out = random.Random(f"holdfast-harmful-{seed}"), list(pairs)
    for position, row in zip(rng.sample(range(len(out)), count), rng.sample(list(harmful), count), strict=True):
        out[position] = {"id": row["id"], "prompt": row["prompt"], "response": row["rejected"]}
    return out


def _records(source: str, columns: dict[str, str]) -> list[Row]:
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


def _limit(rows: list[Row], count: int) -> list[Row]:
    return rows[:count]


def _checked(rows: list[Row], table: str, source: Path | str) -> list[Row]:
    """The rows against their contract, in the contract's columns."""
    from holdfast.record import schemas

    return cast("list[Row]", schemas.checked(rows, table, source).to_dict("records"))
