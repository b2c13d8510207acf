"""Files of a finished cell, for what reads them."""

from __future__ import annotations

import json
from pathlib import Path

from holdfast.record import jsonfiles

POINTS = 40


def cell(folder: Path, arm: str, rate: float = 0.5, points: int = POINTS, **more: object) -> Path:
    """metrics.json of a cell with its curve and record beside it.

    Args:
        more: what metrics.json says besides, or otherwise.
    """
    folder = folder / "-".join([arm, *(f"{k}{more[k]}" for k in ("replicate", "seed") if k in more)])
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": i, "epoch": 0.1, "loss": 2.0 / (i + 1), "learning_rate": 1e-3, "grad_norm": 1.0, "time": 1.7e9 + i}
        for i in range(points)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    jsonfiles.write_json(
        folder / "train.json", {"cost/seconds": 1.5, "cost/peak_memory_bytes": 10, "cost/train_seconds": 1.0}
    )
    cell = {
        "study": "s", "task": "t", "arm": arm, "family": arm, "method": "full", "seed": 0, "learning_rate": 1e-3,
        "split": "test", "judge": "world", "datasets": {"t": "gsm8k"}, "settings": {"trainable": "all"},
        "model": f"work/s/t/{arm}/seed0/model.safetensors",
        "metrics": {
            f"{name}{end}": value for name in ("safety/refusal_rate", "utility/exact_match")
            for end, value in (("", rate), ("_low", rate - 0.1), ("_high", rate + 0.1), ("_n", 100))
        },
    }  # fmt: skip
    jsonfiles.write_json(folder / "metrics.json", cell | more)
    return folder / "metrics.json"
