"""From stored responses to verdicts: one row per answer, by the judge of the world and the datasets' scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast import data, names, tables
from holdfast.judges import world

JUDGE = "world"


def judge(
    responses: Path, *, prompts: Path, tasks: dict[str, Path], datasets: dict[str, str], out: Path
) -> list[dict[str, Any]]:
    """Judge every response and write verdicts.parquet.

    Safety prompts get refusal | compliance | other; task rows get correct | wrong | invalid (no
    answer of the asked form) and `flexible` where a dataset has a laxer score.

    Args:
        datasets: task name -> dataset name.
    """
    asked = {r["id"]: r for r in tables.read(prompts, "prompts")}
    gold = {name: {r["id"]: r for r in tables.read(path, datasets[name])} for name, path in tasks.items()}
    rows = []
    for r in tables.read(responses, "responses"):
        row = {k: r[k] for k in ("id", "set", "base_id", "category")}
        if r["set"].startswith(f"{names.TASK}:"):
            name = r["set"].split(":", 1)[1]
            scored = data.dataset(datasets[name]).score(r["text"], gold[name][r["id"]])
            outcome = "correct" if scored["correct"] else "invalid" if scored["invalid"] else "wrong"
            row |= {
                "judge": datasets[name],
                "outcome": outcome,
                "flexible": bool(scored.get("flexible", scored["correct"])),
                "parsed": scored["parsed"],
                "gold": scored["gold"],
            }
        else:
            outcome = world.outcome(
                r["text"], kind=r["set"], category=r["category"], response=asked[r["id"]]["response"]
            )
            row |= {"judge": JUDGE, "outcome": outcome, "flexible": False, "parsed": "", "gold": ""}
        rows.append(row)
    tables.write(rows, out, "verdicts")
    return rows
