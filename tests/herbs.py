"""Tasks of our own in the format of lm-evaluation-harness, and the mark of tests that need it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="the extra `harness` is not installed"
)  # fmt: skip
TASK = {
    "task": "herbs", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{right}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
GROUP = {"group": "lore", "task": ["herbs", "more_herbs"]}
WORDS = ["moss", "thyme and a little sage", "nettle", "the red root of the mandrake"]


def task_files(folder: Path, rows: int = 12) -> Path:
    """Two tasks of multiple choice over rows that lie beside them, and a group of both."""
    folder.mkdir()
    lines = [
        {"question": f"Which herb is in potion {i}?", "choices": WORDS[i % 4 :] + WORDS[: i % 4], "right": i % 3}
        for i in range(rows)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    data = {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    for name in GROUP["task"]:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(TASK | data | {"task": name}))
    (folder / "lore.yaml").write_text(yaml.safe_dump(GROUP))
    return folder
