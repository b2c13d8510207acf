"""How far a second judge agrees with the first: counts, accuracy and kappa, per model and together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import artifact, names, tables
from holdfast.judges import constitution
from holdfast.metrics import rate
from holdfast.statistics import kappa

ACCURACY = "agreement/accuracy"
BAD_RATE = "constitution/bad_rate"
UNPARSED_RATE = "constitution/unparsed_rate"


def compare(pairs: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Of (prompt set, what the label should be, what the judge said): accuracy with its interval, kappa with
    its interval, unparsed rate, share of replies to hazards called bad, and the counts behind them.

    An unparsed opinion agrees with nothing.
    """
    counts = Counter((true, said) for _, true, said in pairs)
    hazards = [said for name, _, said in pairs if name == names.HAZARD]
    matrix = [[counts[true, said] for said in constitution.LABELS] for true in constitution.LABELS]
    return {
        "confusion": {f"{true} called {said}": n for (true, said), n in sorted(counts.items())},
        **rate(ACCURACY, sum(n for (true, said), n in counts.items() if true == said), len(pairs)),
        **dict(zip(("agreement/kappa", "agreement/kappa_low", "agreement/kappa_high"), kappa(matrix), strict=True)),
        **rate(UNPARSED_RATE, sum(said == constitution.UNPARSED for *_, said in pairs), len(pairs)),
        **rate(BAD_RATE, hazards.count(constitution.BAD), len(hazards)),
    }


def write(metrics: Sequence[Path], *, verdicts: Sequence[Path], opinions: Sequence[Path], out: Path) -> None:
    """Write agreement.json: {"all": ..., "models": [{task, arm, seed, ...}]}; the files are in the same order."""
    models, everything = [], []
    for cell, first, second in zip(metrics, verdicts, opinions, strict=True):
        said = {r["id"]: r["label"] for r in tables.read(second, "opinions")}
        pairs = [
            (r["set"], constitution.truth(r["set"], r["outcome"]), said[r["id"]])
            for r in tables.read(first, "verdicts")
            if r["id"] in said
        ]
        known = artifact.read_json(cell)
        models.append({k: known[k] for k in ("task", "arm", "seed")} | compare(pairs))
        everything += pairs
    artifact.write_json(out, {"all": compare(everything), "models": models})
