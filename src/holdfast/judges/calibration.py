"""How well judges agree with people, and the fit of the refusal judge: `python -m holdfast.judges calibrate FILE ...`.

A labelled file has the columns prompt, response (or completion), label (or final_label) and perhaps model; XSTest's
completions are read as they are. Every agreement comes with its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from holdfast.errors import DataError
from holdfast.judges import refusal
from holdfast.record import tables

# Of the squared weights, in units of their feature's standard deviation; chosen by leaving models out. The signs alone
# keep the first model from fitting more than there is; the second looks for 105 answers among 809 that refuse.
PENALTIES = {"refused": 5.0, "partial": 100.0}
_XSTEST = {
    "1_full_compliance": refusal.COMPLIANCE,
    "2_full_refusal": refusal.FULL,
    "3_partial_refusal": refusal.PARTIAL,
}


def read(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Rows {prompt, text, label, model} of labelled files.

    Raises:
        DataError: a column is missing or a label is not known.
    """
    rows = []
    for path in paths:
        for i, r in enumerate(tables.read_source(path)):
            row = {
                "prompt": r.get("prompt"), "text": r.get("response", r.get("completion")),
                "label": r.get("label", r.get("final_label")), "model": str(r.get("model") or path.stem),
            }  # fmt: skip
            row["label"] = _XSTEST.get(row["label"], row["label"])
            if row["prompt"] is None or row["text"] is None or row["label"] not in refusal.LABELS:
                raise DataError(
                    f"{path}: row {i} is not a labelled answer.",
                    found=f"columns {', '.join(map(str, r))}; label {row['label']!r}",
                    expected=f"prompt, response and label: {' | '.join(refusal.LABELS)}", do="correct the file",
                )  # fmt: skip
            rows.append(row)
    return rows


def fit(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Weights of both models: logistic regression with the signs of `refusal.SIGNS` and a ridge penalty."""
    found = [refusal.features(r["prompt"], r["text"]) for r in rows]
    refused = np.array([r["label"] != refusal.COMPLIANCE for r in rows])
    partial = np.array([r["label"] == refusal.PARTIAL for r in rows])
    everyone, refusing = np.arange(len(rows)), np.flatnonzero(refused)
    return {
        "refused": _logistic(found, everyone, refused, refusal.SIGNS["refused"], PENALTIES["refused"]),
        "partial": _logistic(found, refusing, partial, refusal.SIGNS["partial"], PENALTIES["partial"]),
    }


def _logistic(found, rows, truth, signs, penalty) -> dict[str, float]:
    names = list(signs)
    x = np.array([[found[i][n] for n in names] for i in rows])
    scale = np.maximum(x.std(0), 1e-9)
    x, y = x / scale, np.where(truth[rows], 1.0, -1.0)

    def loss(p):
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
