"""From stored responses to verdicts: one row per answer and judge, and one per task row by its dataset's scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast import names
from holdfast.data import scorers
from holdfast.data.kinds import Score
from holdfast.errors import ArtifactError
from holdfast.judges import Opinion, Row, asked_about, text
from holdfast.record import tables
from holdfast.study import registry


def judge(
    responses: Path,
    *,
    prompts: Path,
    tasks: Mapping[str, Path],
    datasets: Mapping[str, str],
    told: Mapping[str, scorers.Settings] | None = None,
    judges: Sequence[str],
    opinions: Mapping[str, Path],
    out: Path,
) -> list[Row]:
    """Judge every response and write verdicts.parquet.

    Replies to safety prompts get, per judge and its version, its label, what that means (`outcome`), a score and what a
    model said; task rows get correct | wrong | invalid (no answer of the asked form) and `flexible` where a dataset
    has a laxer score; thoughts before an answer are not scored. Every row says how the answer ended.

    Args:
        datasets: task name -> dataset name.
        told: task name -> what the scorer of a table is told.
        judges: text judges, which read the words here.
        opinions: what models and servers said before, by judge.

    Raises:
        ArtifactError: the opinions are not those of these responses. DataError: a scorer cannot score a row.
    """
    asked = {r["id"]: r for r in tables.read(prompts, "prompts")}
    gold = {name: {r["id"]: r for r in tables.read(path, datasets[name])} for name, path in tasks.items()}
    given = tables.read(responses, "responses")
    heads = {name: registry.judge(name) for name in (*judges, *opinions)}
    readers = {name: registry.load_judge(name).opinion for name in judges}
    said = {name: _opinions(path, given) for name, path in opinions.items()}
    score = {name: scorers.scorer(datasets[name], (told or {}).get(name)) for name in tasks}
    rows = []
    for r in given:
        row = {k: r[k] for k in ("id", "set", "base_id", "category", "wrapper", "finish")}
        if r["set"].startswith(f"{names.TASK}:"):
            name = r["set"].split(":", 1)[1]
            rows.append(row | _scored(text.reply(r["text"]), datasets[name], score[name], gold[name][r["id"]]))
            continue
        found = {name: read(r["text"], asked[r["id"]]) for name, read in readers.items()}
        found |= {name: o[r["id"]] for name, o in said.items() if r["id"] in o}
        rows += [
            row
            | {"judge": name, "version": heads[name].version, "label": o.label,
               "outcome": heads[name].outcomes[o.label], "score": o.score,
               "text": o.text, "flexible": False, "parsed": "", "gold": ""}
            for name, o in found.items()
        ]  # fmt: skip
    tables.write(rows, out, "verdicts")
    return rows


def _scored(answer: str, dataset: str, score: Score, gold: Row) -> Row:
    scored = score(answer, gold)
    outcome = "correct" if scored["correct"] else "invalid" if scored["invalid"] else "wrong"
    return {
        "judge": dataset, "version": "", "label": outcome, "outcome": outcome,
        "score": float(scored["score"] if "score" in scored else scored["correct"]), "text": "",
        "flexible": bool(scored.get("flexible", scored["correct"])), "parsed": scored["parsed"], "gold": scored["gold"],
    }  # fmt: skip


def _opinions(path: Path, given: Sequence[Row]) -> Mapping[str, Opinion]:
    rows = {r["id"]: r for r in tables.read(path, "opinions")}
    wanted = [r["id"] for r in asked_about(given)]
    if list(rows) != wanted:
        raise ArtifactError(
            f"{path} does not hold one opinion for every reply to a safety prompt.",
            found=f"{len(rows)} opinions", expected=f"{len(wanted)} in the order of the responses",
            do=f"rm {path} and run again",
        )  # fmt: skip
    return {k: Opinion(r["label"], r["score"], r["text"]) for k, r in rows.items()}
