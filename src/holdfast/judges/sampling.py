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
    "id", "study", "task", "arm", "model", "set", "prompt", "response", "judge", "judge_label", "among", "times",
    "piles", "label", "remark",
)  # fmt: skip


def draw(metrics: Iterable[Path], count: int, judge: str = "refusal") -> list[dict[str, Any]]:
    """Rows of a file to be labelled: of every arm and label of the judge in turn one answer, until there are `count`.
    Answers that are the same to the same prompt, of whatever arm, are one, and stand for one of their arms, which is
    drawn. `times` is how many they are, `among` from how many such a row of this arm and label is drawn, `piles` how
    many pairs of arm and label there are, task by task. `label` and `remark` are empty: they are people's.

    Args:
        metrics: metrics.json of the models of a finished study, verdicts and responses beside it.

    Raises:
        DataError: the judge was not asked in this study, or an answer that it judged is not there.
    """
    same: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
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
            same.setdefault((answer["prompt"], answer["text"], v["label"]), []).append({
                "id": v["id"], "study": cell.get("study", ""), "task": cell["task"] or "", "arm": cell["arm"],
                "model": str(path.parent), "set": v["set"], "prompt": answer["prompt"], "response": answer["text"],
                "judge": judge, "judge_label": v["label"], "label": "", "remark": "",
            })  # fmt: skip
    if not same:
        raise DataError(
            f"The judge `{judge}` was not asked in this study.", found=", ".join(sorted(asked)) or "no verdicts",
            expected=f"{judge} among evaluation.judges", do="add it, then: snakemake --config study=NAME -- verdicts",
        )  # fmt: skip
    rng = random.Random("holdfast-label")
    piles: dict[tuple[str, str, str], list[dict[str, Any]]] = {
        (r["task"], r["arm"], r["judge_label"]): [] for found in same.values() for r in found
    }
    for found in same.values():
        row = rng.choice(found) | {"times": len(found)}
        piles[row["task"], row["arm"], row["judge_label"]].append(row)
    filled = sum(map(bool, piles.values()))
    for pile in piles.values():
        pile[:] = [r | {"among": len(pile), "piles": filled} for r in rng.sample(pile, len(pile))]
    out: list[dict[str, Any]] = []
    while len(out) < count and any(piles.values()):
        for pile in piles.values():
            if pile and len(out) < count:
                out.append(pile.pop())
    rng.shuffle(out)  # whoever labels does not see which model comes next
    return out
