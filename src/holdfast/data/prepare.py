"""Stage data preparation: world, hub or a user's file -> validated tables with disjoint splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import data, names
from holdfast.data import draws, fetch
from holdfast.data.sources import HUB
from holdfast.errors import DataError
from holdfast.names import SPLITS
from holdfast.world.generator import World

Row = dict[str, Any]


def safety_rows(cfg: dict[str, Any]) -> list[Row]:
    """Rows of the safety table: the world's, or the user's file with kind, prompt, response."""
    if cfg["source"] == "world":
        return World(cfg["world"]["seed"]).safety(cfg["hazards"], cfg["benign"])
    rows = [
        {"id": str(r.get("id") or f"safety/{i:05d}"), "category": str(r.get("category") or "user"), **r}
        for i, r in enumerate(fetch.records(cfg["source"], cfg["columns"]))
    ]
    for row in rows:
        row.setdefault("kind", "hazard")
    checked = fetch.checked(rows, "safety", cfg["source"])
    return _limit([r for r in checked if r["kind"] == "hazard"], cfg["hazards"]) + _limit(
        [r for r in checked if r["kind"] != "hazard"], cfg["benign"]
    )


def preference_rows(cfg: dict[str, Any]) -> list[Row]:
    """Preference pairs: the world's, or the user's file with prompt, chosen, rejected."""
    if cfg["source"] == "world":
        return World(cfg["world"]["seed"]).preferences(cfg["rows"])
    rows = [
        {"id": f"preference/{i:05d}", "category": "user", **r}
        for i, r in enumerate(fetch.records(cfg["source"], cfg["columns"]))
    ]
    return fetch.checked(rows, "preferences", cfg["source"])[: cfg["rows"]]


_XSTEST_LABELS = {"unsafe": names.HAZARD, "safe": names.LOOKALIKE}


def prompt_rows(cfg: dict[str, Any]) -> list[Row]:
    """Evaluation prompts, validation and test: the world's, or the user's file with set and prompt.

    A user's `set` may also be XSTest's label: `unsafe` is a hazard, `safe` a benign prompt that looks like one.
    """
    if cfg["source"] == "world":
        world = World(cfg["world"]["seed"])
        return [row for split in SPLITS[1:] for row in world.prompts(split, cfg["prompts_per_set"])]
    rows = []
    for i, r in enumerate(fetch.records(cfg["source"], cfg["columns"])):
        defaults = {
            "id": f"prompt/{i:05d}", "split": "test", "set": names.HAZARD, "base_id": f"{i:05d}", "category": "user",
            "response": "",
        }  # fmt: skip
        row = defaults | {k: v for k, v in r.items() if v is not None}
        rows.append(row | {"set": _XSTEST_LABELS.get(row["set"], row["set"])})
    return fetch.checked(rows, "prompts", cfg["source"])


def judge_prompt_rows(cfg: dict[str, Any]) -> list[Row]:
    """Training requests whose answers a judge learns from."""
    return World(cfg["world"]["seed"]).prompts("train", cfg["prompts_per_set"])


def own_judge_pairs(source: str) -> list[Row]:
    """A user's labelled pairs: prompt, reply, label (good | bad) and perhaps the evaluation to learn."""
    rows = [
        {"id": f"pair/{i:05d}", "evaluation": f"Evaluation: judged by the rules. Chatbot is: {r.get('label')}.", **r}
        for i, r in enumerate(fetch.records(source, {}))
    ]
    return fetch.checked(rows, "judge_pairs", source)


def task_rows(cfg: dict[str, Any], source: Path | None = None) -> list[Row]:
    """Rows of one task: a training pool and validation and test rows, no text in two splits.

    Args:
        cfg: world, dataset, source and the three row counts.
        source: local file or folder when the rows are neither the world's nor fetched from the hub.
    """
    sizes = {s: cfg[f"{s}_rows"] * (draws.POOL_FACTOR if s == "train" else 1) for s in SPLITS}
    if cfg["source"] == "world":
        world = World(cfg["world"]["seed"])
        make = {
            "agnews": world.agnews, "gsm8k": world.gsm8k, "crafts": world.crafts_task, "howto": world.howto_task,
            "chat": world.chat_task,
        }[cfg["dataset"]]  # fmt: skip
        return [row for split in SPLITS for row in make(split, sizes[split])]
    module = data.dataset(cfg["dataset"])
    parts = fetch.local_parts(module, cfg["dataset"], source) if source else fetch.hub_parts(module)
    if cfg["source"] != HUB:  # published splits share a few texts; _cut keeps each once
        for split in ("validation", "test"):
            refuse_leak(parts.get("train", []), parts.get(split, []), module.TEXT_COLUMNS[0], f"{source}/{split}",
                        "the training rows beside it")  # fmt: skip
    return draws.cut(parts, sizes, cfg["dataset"], cfg["world"]["seed"], str(source or module.HUB_ID))


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


def _limit(rows: list[Row], count: int) -> list[Row]:
    return rows[:count]
