"""Safety mixing: which refusals the AG News script of WSR-Tune's authors draws; the statements of `maybe_mix_safety`.

The repository of SafeInstr's authors has no code that mixes: its data files are mixed already.
"""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace

from holdfast.methods import safety_mix
from parity import code

REPOSITORY, COMMIT = "min-seong-kim/Safety-WaRP-LLM", "62655ede3a130387ded918ae63d3f9b6053b70aa"


def compare(theirs: code.Code) -> list[code.Row]:
    refusals = [{"id": f"s{i}", "kind": "hazard", "prompt": f"p{i}", "response": f"r{i}"} for i in range(400)]
    task = [{"id": f"t{i}", "prompt": "", "response": ""} for i in range(1003)]
    rows = []
    for draw, within, because in (
        ("published", 0, "none"),
        ("study", 1, "every seed draws rows of its own by default; theirs are always these"),
    ):
        for ratio in (0.01, 0.1):
            names = {
                "random": random,
                "train_tok": task,
                "safety_raw": refusals,
                "args": SimpleNamespace(safety_mix_ratio=ratio, seed=42),
            }
            theirs.statements("agnews_eval/finetune_agnews_full_params.py", "num_safety =", "sampled =", names)
            settings = safety_mix.Settings(ratio=ratio, draw=draw)
            ours = [r["id"] for r in safety_mix.rows(task, settings, seed=0, safety=refusals)[len(task) :]]
            want = [r["id"] for r in names["sampled"]]
            far = len(set(want) ^ set(ours)) / (2 * len(want)) if len(want) == len(ours) else float("nan")
            what = f"share of {len(want)} rows that are others, `draw: {draw}`"
            rows.append(code.Row(what, far, within, because))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
