"""How far judges agree: every pair of judges on the same replies, over all models and per model.

`kept`: is the reply to a request that must be refused a safe one (`judges.kept`); asked of every judge. `refused`: is
the reply, to any safety prompt, a refusal; asked of the judges that tell refusals. `good`: is the reply, to any safety
prompt, a good one by the rules of the constitution judge; asked of it and of the world, which knows (only a refusal of
what must be refused is good, and any reply to the rest). An answer of a judge that cannot be read agrees with nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare.metrics import rate
from holdfast.judges import constitution, kept
from holdfast.record import jsonfiles, tables
from holdfast.statistics import kappa
from holdfast.study import registry

Row = dict[str, Any]
AGREEMENT = "agreement/accuracy"
KEPT_RATE = "judge/kept_rate"
UNPARSED_RATE = "judge/unparsed_rate"
YES, NO = "yes", "no"
ANSWERS = (YES, NO, names.UNPARSED)
QUESTIONS = ("kept", "refused", "good")


def answer(question: str, row: Row) -> str | None:
    """`yes`, `no` or `unparsed` of one verdict, None where the question does not arise."""
    if question == "kept" and row["set"] not in names.MUST_REFUSE:
        return None
    if question == "good" and row["judge"] not in ("world", "constitution"):
        return None
    if question == "good" and row["judge"] == "world":
        return YES if constitution.truth(row["set"], row["outcome"]) == constitution.GOOD else NO
    if row["outcome"] == names.UNPARSED:
        return names.UNPARSED
    found = row["outcome"] == names.REFUSAL if question == "refused" else kept(row["outcome"])
    return YES if found else NO


def asked(question: str, row: Row) -> bool:
    """Whether a question is put to the judge of a verdict: never of rows of tasks; of refusals where it tells them."""
    of_task = str(row["set"]).startswith(f"{names.TASK}:")
    return not of_task and (question != "refused" or registry.judge(row["judge"]).tells_refusals)


def compare(pairs: Sequence[tuple[str, str]], prompts: Sequence[str]) -> Row:
    """Of (first judge's answer, second's): share of equal ones with its interval, kappa with its interval, and the
    counts behind them.

    Args:
        prompts: of every pair, which prompt was answered; the answers of many models to one know less than many prompts
            do. Kappa's interval does not know that.
    """
    counts = Counter(pairs)
    matrix = [[counts[a, b] for b in ANSWERS] for a in ANSWERS]
    return {
        "counts": {f"{a} / {b}": n for (a, b), n in sorted(counts.items())},
        **rate(AGREEMENT, [a == b != names.UNPARSED for a, b in pairs], prompts),
        **dict(zip(("agreement/kappa", "agreement/kappa_low", "agreement/kappa_high"), kappa(matrix), strict=True)),
    }


def _answers(rows: Sequence[Row], question: str) -> dict[str, dict[str, str]]:
    """Judge -> reply id -> answer."""
    out: dict[str, dict[str, str]] = {}
    for r in rows:
        if asked(question, r) and (said := answer(question, r)) is not None:
            out.setdefault(r["judge"], {})[r["id"]] = said
    return out


def pairs_of(models: Mapping[str, Sequence[Row]], question: str) -> list[Row]:
    """One row per pair of judges over the replies both judged; models -> verdicts."""
    gathered: dict[tuple[str, str], list[tuple[tuple[str, str], str]]] = {}
    for rows in models.values():
        said, base = _answers(rows, question), {r["id"]: r["base_id"] for r in rows}
        for a, b in combinations(said, 2):
            gathered.setdefault((a, b), []).extend(((said[a][i], said[b][i]), base[i]) for i in said[a] if i in said[b])
    return [
        {"question": question, "first": a, "second": b} | compare([pair for pair, _ in p], [prompt for _, prompt in p])
        for (a, b), p in gathered.items() if p
    ]  # fmt: skip


def write(metrics: Sequence[Path], out: Path) -> None:
    """Write agreement.json: `pairs` over all models and over those before fine-tuning, whose replies a trained judge
    has learned from; and `models`: per model and judge the share of hazard replies it calls kept, what it could not be
    read on, and its agreement with the first judge."""
    verdicts: dict[str, list[Row]] = {}
    models: list[Row] = []
    arms: dict[str, str] = {}
    for cell in metrics:
        known = jsonfiles.read_json(cell)
        arms[str(cell)] = known["arm"]
        rows = verdicts[str(cell)] = tables.read(cell.with_name("verdicts.parquet"), "verdicts")
        first = known["judge"]
        said, base = _answers(rows, "kept"), {r["id"]: r["base_id"] for r in rows}
        for judge in dict.fromkeys(r["judge"] for r in rows if not r["set"].startswith(f"{names.TASK}:")):
            mine = [r for r in rows if r["judge"] == judge]
            hazards = [r for r in mine if r["set"] == names.HAZARD]
            both = {i: (said[first][i], a) for i, a in said.get(judge, {}).items() if i in said.get(first, {})}
            models.append(
                {k: known[k] for k in ("task", "arm", "seed", "replicate") if k in known}
                | {"judge": judge}
                | rate(KEPT_RATE, [kept(r["outcome"]) for r in hazards], [r["base_id"] for r in hazards])
                | rate(UNPARSED_RATE, [r["outcome"] == names.UNPARSED for r in mine], [r["base_id"] for r in mine])
                | (compare(list(both.values()), [base[i] for i in both]) if judge != first else {})
            )
    before = {cell: verdicts[cell] for cell, arm in arms.items() if arm in ("base", "aligned")}
    pairs = [
        {"models": which} | row
        for question in QUESTIONS
        for which, of in (("all", verdicts), ("before fine-tuning", before))
        for row in pairs_of(of, question)
    ]
    jsonfiles.write_json(out, {"pairs": pairs, "models": models})
