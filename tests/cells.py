"""Files of a finished cell, for what reads them."""

from __future__ import annotations

import json
from pathlib import Path

from holdfast.record import jsonfiles

POINTS = 40


def cell(folder: Path, arm: str, rate: float = 0.5, points: int = POINTS) -> Path:
    folder = folder / arm
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
        "split": "test", "settings": {"trainable": "all"}, "metrics": {"safety/refusal_rate": rate},
    }  # fmt: skip
    jsonfiles.write_json(folder / "metrics.json", cell)
    return folder / "metrics.json"
