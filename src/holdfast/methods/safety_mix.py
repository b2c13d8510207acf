"""Safety mixing (SafeInstr; Bianchi et al. 2023, arXiv 2309.07875): refusals added to the task data.

Formula: D' = D_task ∪ sample(D_refusals, q |D_task|), then full-parameter fine-tuning on D'.

`ratio` is relative to the task count and rounded down, as in the AG News runs of the WSR-Tune
authors: 0.1 adds int(0.1 N) refusals, 9.09 % of the mixture. Refusals alone teach a model to refuse
benign requests too; `benign_ratio` adds answered benign safety rows in the same way.
"""

from __future__ import annotations

import random

from pydantic import Field

from holdfast.registry import MethodSettings

KIND = "train"
NEEDS = ("aligned", "safety")
LEARNING_RATE = 6e-4


class Settings(MethodSettings):
    ratio: float = Field(0.1, ge=0, le=1, description="refusals added, as a share of the task rows")
    benign_ratio: float = Field(0.0, ge=0, le=1, description="answered benign rows added, as a share of the task rows")


def rows(task_rows, settings, *, seed, safety):
    """Task rows plus the drawn safety rows; every safety row at most once, same seed same rows."""
    out = list(task_rows)
    for ratio, refused in ((settings.ratio, True), (settings.benign_ratio, False)):
        pool = [r for r in safety if (r["kind"] == "hazard") == refused]
        count = min(int(len(task_rows) * ratio), len(pool))
        out += random.Random(f"safety-mix/{seed}/{refused}").sample(pool, count)
    return out
