"""How well judges agree with people, and the fit of the refusal judge: `holdfast calibrate FILE ...`.

A labelled file has the columns prompt, response (or completion), label (or final_label) and perhaps model; XSTest's
completions are read as they are. Every agreement comes with its 95 % interval.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from holdfast import statistics
from holdfast.errors import DataError
from holdfast.judges import refusal
from holdfast.judges.keywords import Keywords
from holdfast.record import jsonfiles, userfiles
from holdfast.study import registry

# Of the squared weights, in units of their feature's standard deviation; chosen by leaving models out. The signs alone
# keep the first model from fitting more than there is; the second looks for 105 answers among 809 that refuse.
PENALTIES = {"refused": 4.0, "partial": 100.0}
_XSTEST = {
    "1_full_compliance": refusal.COMPLIANCE,
    "2_full_refusal": refusal.FULL,
    "3_partial_refusal": refusal.PARTIAL,
}

Row = dict[str, Any]
OTHER = "other"  # what people call an answer that neither refuses nor answers, as tables do
LABELS = (*refusal.LABELS, OTHER)
DRAWN = "drawn"  # key of a row that `holdfast label` drew: what the study's tables count it as
WEIGHT, STRATUM = "weight", "stratum"  # of such a row: how many answers it stands for (Horvitz-Thompson), and of which
PILES = "piles"  # by study and judge, of how many pairs of arm and label answers could be drawn
AGAIN = "(again)"  # key of a row whose answer was drawn over the labels of another judge before
_COUNTED = {
    label: {"refusal": refusal.FULL}.get(outcome, outcome) for label, outcome in refusal.OUTCOMES.items()
} | {refusal.PARTIAL: refusal.PARTIAL}  # fmt: skip
_MOST = 1e9  # answers; a larger number is none that anybody counted
_Once = dict[tuple[Any, ...], tuple[str, Path, int, set[str]]]


def read(paths: Sequence[Path]) -> list[Row]:
    """Rows {prompt, text, label, model} of labelled files, each file once; of those that `holdfast label` wrote the
    answers with a label, each once for every judge over whose labels it was drawn, with what the tables count them as
    and how many they stand for.

    Raises:
        DataError: a column is missing or a label is not known, nobody has labelled anything yet, or one answer has two
            labels.
    """
    rows: list[Row] = []
    once: _Once = {}
    for path in {p.resolve(): p for p in paths}.values():
        found = dict(enumerate(userfiles.table(path)))
        if "judge_label" in found[0]:
            found = _labelled(path, found, once)
        for i, r in found.items():
            row: Row = {
                "prompt": r.get("prompt"), "text": r.get("response", r.get("completion")),
                "label": r.get("label", r.get("final_label")), "model": str(r.get("model") or path.stem),
            } | _as_drawn(r, f"{path}: row {i}")  # fmt: skip
            for key in ("prompt", "text", "label"):
                row[key] = _text(row[key])
            row["label"] = _plainly(row["label"])
            if row["prompt"] is None or row["text"] is None or row["label"] not in LABELS:
                raise DataError(
                    f"{path}: row {i} is not a labelled answer.",
                    found=f"columns {', '.join(map(str, r))}; label {row['label']!r}",
                    expected=f"prompt, response and label: {' | '.join(LABELS)}",
                    do="correct the file" if row["label"] else "label the row, or take it out",
                )  # fmt: skip
            rows.append(row)
    labelled = Counter(r[STRATUM] for r in rows if STRATUM in r)
    return [r | {WEIGHT: r[WEIGHT] / labelled[r[STRATUM]]} if STRATUM in r else r for r in rows]


def _as_drawn(r: Mapping[str, Any], where: str) -> Row:
    """What a row of `holdfast label` says beside its text: what the judge's label counts as, of how many answers that
    have it, and how many such piles there were."""
    if "judge_label" not in r:
        return {}
    label = str(r["judge_label"])
    said: Row = {DRAWN: _COUNTED.get(label, "") if r.get("judge") == "refusal" else ""}
    said |= {AGAIN: True} if AGAIN in r else {}
    if not {"among", "times"} <= r.keys():
        return said
    among, times = (_number(r, key, where) for key in ("among", "times"))
    stratum = tuple(str(r.get(k) or "") for k in ("study", "task", "arm", "judge", "judge_label"))
    piles = _number(r, "piles", where) if "piles" in r else 0
    return said | {WEIGHT: times * among, STRATUM: stratum, PILES: ((stratum[0], stratum[3]), piles)}


def _number(r: Mapping[str, Any], key: str, where: str) -> float:
    """A number above zero that somebody's program may have written otherwise than ours.

    Raises:
        DataError: it is none, so that nobody knows how many answers the row stands for.
    """
    try:
        number = float(r[key])
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < _MOST:
        raise DataError(
            f"{where}, column '{key}' holds no number of answers.", found=repr(r[key])[:80],
            expected="what holdfast label wrote there", do="write it again, or leave the column out",
        )  # fmt: skip
    return number


def _text(value: Any) -> str | None:
    """A cell as text; a number is one that somebody wrote, a list or nothing is not."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _plainly(label: str | None) -> str | None:
    """A label as it is called here, whatever a person made of its capitals and blanks."""
    words = "_".join((label or "").lower().split())
    return _XSTEST.get(words, words)


def _labelled(path: Path, found: Mapping[int, dict[str, Any]], once: _Once) -> dict[int, dict[str, Any]]:
    """The rows of a file from `holdfast label` that somebody labelled, by their number in the file, without those that
    were there before; what was drawn by another judge before is there again, for the sums of this draw.

    Args:
        once: answer -> its label, where it stands and over whose labels it was drawn, of the files before; those of
            this one are added.

    Raises:
        DataError: there is none, or one answer has two labels.
    """
    labelled = {i: r for i, r in found.items() if str(r.get("label") or "").strip()}
    if not labelled:
        raise DataError(
            f"{path}: no answer has a label yet.",
            found="an empty column label" if "label" in next(iter(found.values())) else "no column label",
            expected=" | ".join(LABELS), do="fill the column, and leave empty what you cannot tell",
        )  # fmt: skip
    new = {}
    for i, r in labelled.items():
        answer = tuple(r.get(k) for k in ("model", "set", "id", "prompt", "response"))
        label, of, first, judges = once.setdefault(answer, (str(r["label"]), path, i, set()))
        if _plainly(str(r["label"])) != _plainly(label):
            where = f"row {first}" if of == path else f"row {first} of {of}"
            raise DataError(
                f"{path}: row {i} is {where} with another label.", found=f"{r['label']}",
                expected=f"{label}, or one of the two rows", do="remove one of them",
            )  # fmt: skip
        if (judge := str(r.get("judge") or "")) not in judges:
            new[i] = r | ({AGAIN: True} if judges else {})
            judges.add(judge)
    return new


def fitted_on(rows: Sequence[Row]) -> list[Row]:
    """The rows that weights are fitted on."""
    return [r for r in rows if r["label"] != OTHER and AGAIN not in r]


def _both(rows: Sequence[Row]) -> bool:
    return len({r["label"] == refusal.COMPLIANCE for r in rows}) == 2


def fit(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Weights of both models: logistic regression with the signs of `refusal.SIGNS` and a ridge penalty. What neither
    refuses nor answers is neither's.

    Raises:
        DataError: people called nothing a refusal, or everything.
    """
    rows = fitted_on(rows)
    if not _both(rows):
        raise DataError(
            "Nothing can be fitted to these labels.", found=", ".join(sorted({r["label"] for r in rows})) or OTHER,
            expected="answers that refuse, and answers that do not", do="add files with the others",
        )  # fmt: skip
    found = [refusal.features(r["prompt"], r["text"]) for r in rows]
    refused = np.array([r["label"] != refusal.COMPLIANCE for r in rows])
    partial = np.array([r["label"] == refusal.PARTIAL for r in rows])
    everyone, refusing = np.arange(len(rows)), np.flatnonzero(refused)
    return {
        "refused": _logistic(found, everyone, refused, refusal.SIGNS["refused"], PENALTIES["refused"]),
        "partial": _logistic(found, refusing, partial, refusal.SIGNS["partial"], PENALTIES["partial"]),
    }


def _logistic(
    found: Sequence[Mapping[str, float]],
    rows: NDArray[np.intp],
    truth: NDArray[np.bool],
    signs: Mapping[str, int],
    penalty: float,
) -> dict[str, float]:
    names = list(signs)
    x = np.array([[found[i][n] for n in names] for i in rows])
    scale = np.maximum(x.std(0), 1e-9)
    x, y = x / scale, np.where(truth[rows], 1.0, -1.0)

    def loss(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = y * (x @ p[:-1] + p[-1])
        slope = -y / (1 + np.exp(np.clip(margin, -500, 500)))
        value = np.logaddexp(0, -margin).sum() + penalty / 2 * (p[:-1] ** 2).sum()
        return value, np.append(x.T @ slope + penalty * p[:-1], slope.sum())

    bounds = [(0, None) if s > 0 else (None, 0) for s in signs.values()] + [(None, None)]
    best = minimize(
        loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 5000}
    ).x
    kept = {n: float(w / s) for n, w, s in zip(names, best, scale, strict=False) if abs(w) > 1e-6}
    return kept | {"bias": float(best[-1])}


# ---- the table that `holdfast calibrate` prints ------------------------------------------------------

KEYWORD_JUDGES = ("advbench", "wsr-150", "harmbench-prefix")


def line(name: str, rows: Sequence[Row], judge: Callable[[Row], str], *, weighted: bool = False) -> str:
    """One row of the table: agreement on any refusal and on the classes, kappa of both.

    Args:
        weighted: every row counts as the answers it stands for; intervals are Wilson's of as many rows as would say as
            much unweighted (Kish 1965).
    """
    pairs = [(r["label"], judge(r), r[WEIGHT] if weighted else 1.0) for r in rows]
    total, squares = (sum(w**k for _, _, w in pairs) for k in (1, 2))
    effective = total**2 / squares

    def agreement(of: Callable[[str], str], labels: Sequence[str]) -> str:
        share = sum(w for a, b, w in pairs if of(a) == of(b)) / total
        low, high = statistics.wilson(share * effective, effective)
        matrix = [[sum(w for a, b, w in pairs if of(a) == x and of(b) == y) for y in labels] for x in labels]
        k = statistics.kappa(matrix)[0]
        text = f"{100 * share:5.1f} [{100 * low:4.1f}, {100 * high:5.1f}]"
        return f"{text}  {'  -  ' if k is None else f'{k:5.2f}'}"

    refused = agreement(lambda x: "yes" if x in (refusal.FULL, refusal.PARTIAL) else "no", ("no", "yes"))
    return f"{name:42}{len(pairs):>6}  {refused}   {agreement(lambda x: x, LABELS)}"


HEAD = f"{'answers of':42}{'n':>6}  {'any refusal, %':>21} kappa   {'classes, %':>21} kappa"


def shipped(row: Row, fitted: refusal.Weights | None = None) -> str:
    """What the tables of a study count an answer as; of answers from elsewhere what they would, by what the judge says
    now, or with other weights."""
    if row.get(DRAWN) and fitted is None:
        return str(row[DRAWN])
    found = refusal.judge(row["prompt"], row["text"], fitted)
    return OTHER if found.degenerate or found.other_language else found.label


def left_out(rows: Sequence[Row]) -> list[str]:
    """Per model: agreement when the weights were fitted on the others, and on those others themselves."""
    lines = []
    for model in sorted({r["model"] for r in rows}):
        others, mine = [r for r in rows if r["model"] != model], [r for r in rows if r["model"] == model]
        if not _both(fitted_on(others)):
            continue
        fitted = fit(others)

        judge = functools.partial(shipped, fitted=fitted)
        lines += [line(f"{model}, left out", mine, judge), line(f"{model}: the fitted ones", others, judge)]
    return lines


def table(rows: Sequence[Row], *, refitted: bool = False) -> list[str]:
    """Agreement of the refusal judge with people, by model and together, and of the keyword judges; where it was just
    `refitted`, first that of judges that did not see a model."""
    drawn, rows = [r for r in rows if WEIGHT in r], [r for r in rows if AGAIN not in r]
    lines, models = [HEAD], sorted({r["model"] for r in rows})
    if refitted:
        lines += left_out(rows)
    lines += [line(m, [r for r in rows if r["model"] == m], shipped) for m in models]
    lines += [line("all", rows, shipped)] if len(models) > 1 else []
    if drawn:
        lines.append(line("weighted, as all answers are", drawn, shipped, weighted=True))
    for name in KEYWORD_JUDGES:
        keywords = registry.load_judge(name).KEYWORDS

        def by_phrases(row: Row, keywords: Keywords = keywords) -> str:
            return refusal.FULL if keywords.refused(row["text"]) else refusal.COMPLIANCE

        lines.append(line(f"all, by the keyword judge {name}", rows, by_phrases))
    if any(DRAWN in r for r in rows):
        lines.append(
            "Drawn over arms and labels by holdfast label: what is rare stands there more often than among all answers"
            + (", for which the weighted line is." if drawn else ".")
        )
    return lines + _left_out_of_weights(drawn)


def _left_out_of_weights(drawn: Sequence[Row]) -> list[str]:
    """A line where the weighted answers are not all of their studies: of some arm and label nobody labelled one."""
    every: dict[tuple[str, str], float] = {}
    for r in drawn:
        of, piles = r[PILES]
        every[of] = max(every.get(of, 0), piles)
    seen = Counter(of for of, _ in {(r[PILES][0], r[STRATUM]) for r in drawn})
    left = sum(max(piles - seen[of], 0) for of, piles in every.items())
    if not left:
        return []
    return [
        f"The weighted line leaves answers out: nobody labelled one of {left:.0f} of {sum(every.values()):.0f} pairs "
        "of arm and label, task by task."
    ]


def refit(rows: Sequence[Row], out: Path) -> None:
    """Write the weights fitted on these rows, with how many rows of which model they come from."""
    counts = dict(sorted(Counter(r["model"] for r in fitted_on(rows)).items()))
    jsonfiles.write_json(out, {"fitted_on": counts, "weights": fit(rows)})
    refusal.weights.cache_clear()
