"""Answers for people to label: drawn over models and labels, so that what is rare is among them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.errors import DataError
from holdfast.record import jsonfiles, tables

COLUMNS = (
    "id", "study", "task", "arm", "model", "set", "prompt", "response", "judge", "judge_label", "among", "label",
    "remark",
)  # fmt: skip


def draw(metrics: Iterable[Path], count: int, judge: str = "refusal") -> list[dict[str, Any]]:
    """Rows of a file to be labelled: of every arm and label of the judge in turn one answer, until there are `count`.
    Answers that are the same to the same prompt come once. `among` is how many answers of its arm have its label: what
    a row stands for. `label` and `remark` are empty: they are people's.

    Args:
        metrics: metrics.json of the models of a finished study, verdicts and responses beside it.

    Raises:
        DataError: the judge was not asked in this study, or an answer that it judged is not there.
    """
    piles: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    asked: set[str] = set()
    for path in metrics:
        cell = jsonfiles.read_json(path)
        texts = {(r["set"], r["id"]): r for r in tables.read(path.with_name("responses.parquet"), "responses")}
        for v in tables.read(path.with_name("verdicts.parquet"), "verdicts"):
            if v["set"].startswith(f"{names.TASK}:"):
                continue
            asked.add(v["judge"])
            if v["judge"] != judge:
                continue
            if (answer := texts.get((v["set"], v["id"]))) is None:
                raise DataError(
                    f"{path.parent}: verdicts.parquet judges an answer that responses.parquet does not hold.",
                    found=f"{v['set']} {v['id']} in one of them", expected="answers and verdicts of one run",
                    do="snakemake --config study=NAME -- verdicts, which makes again what is not of one run",
                )  # fmt: skip
            place = (cell["task"] or "", cell["arm"], v["label"])
            piles.setdefault(place, []).append({
                "id": v["id"], "study": cell.get("study", ""), "task": cell["task"] or "", "arm": cell["arm"],
                "model": str(path.parent),
                "set": v["set"], "prompt": answer["prompt"], "response": answer["text"], "judge": judge,
                "judge_label": v["label"],
                "label": "", "remark": "",
            })  # fmt: skip
    if not piles:
        raise DataError(
            f"The judge `{judge}` was not asked in this study.", found=", ".join(sorted(asked)) or "no verdicts",
            expected=f"{judge} among evaluation.judges", do="add it, then: snakemake --config study=NAME -- verdicts",
        )  # fmt: skip
    rng = random.Random("holdfast-label")
    for pile in piles.values():
        for answer in pile:
            answer["among"] = len(pile)
        rng.shuffle(pile)
    out: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    while len(out) < count and any(piles.values()):
        for pile in piles.values():
            row = pile.pop() if pile else None
            if row and len(out) < count and (same := (row["prompt"], row["response"])) not in seen:
                seen.add(same)
                out.append(row)
    rng.shuffle(out)  # whoever labels does not see which model comes next
    return out
