"""Our scores against lm-evaluation-harness on the same answers."""

from __future__ import annotations

import pytest

from holdfast.cli.main import main
from holdfast.data import agnews, gsm8k
from holdfast.errors import ArtifactError
from holdfast.evaluate import harness
from holdfast.record import jsonfiles, tables

pytest.importorskip("lm_eval", reason="the extra `harness` is not installed")
STORIES = [
    ("so #### 18", "18"), ("#### 1,080", "1080"), ("#### $5.", "5"), ("#### -3", "-3"), ("the answer is 7", "7"),
    ("costs $1,200.", "1200"), ("none", "4"), ("", "4"), ("#### 5\n#### 6", "5"), ("#### 5\n#### 6", "6"),
    ("#### 5.", "5"), ("#### 18 apples", "18"), ("3 + 4 = 7.\n#### 8", "7"), ("####18", "18"), ("####  18", "18"),
    ("#### 18.00", "18"), ("it is 7 or 8", "7"), ("it is 7 or 8", "8"), ("-5", "-5"), ("#### +4", "4"),
]  # fmt: skip
NEWS = [
    ("World", "World"), ("sci/tech", "Sci/Tech"), ("Sci / Tech.", "Sci/Tech"), ("Technology", "Sci/Tech"),
    ("It is Business, not World", "Business"), ("World Business", "World"), ("World Business", "Business"),
    ("sport", "Sports"), ("worldwide", "World"), ("", "World"), ("I am sorry", "Sports"), ("sci-tech", "Sci/Tech"),
]  # fmt: skip


def _rows(pairs, module):
    rows = []
    for i, (text, gold) in enumerate(pairs):
        if module is gsm8k:
            correct, flexible = gsm8k.strict(text) == gold, gsm8k.flexible(text) == gold
        else:
            correct = flexible = agnews.parse_label(text) == gold
        rows.append({"id": f"r{i}", "prompt": f"question {i % 3}", "text": text, "gold": gold, "correct": correct,
                     "flexible": flexible})  # fmt: skip
    return rows


@pytest.mark.parametrize(("dataset", "pairs", "module"), [("gsm8k", STORIES, gsm8k), ("agnews", NEWS, agnews)])
def test_every_row_is_scored_alike(dataset, pairs, module):
    found = harness.replayed(_rows(pairs, module), dataset)
    assert {r["filter"] for r in found} == (
        {"strict-match", "flexible-extract"} if module is gsm8k else {"first-label"}
    )
    for row in found:
        assert row["n"] == len(pairs) and 0 < row["ours"] < row["n"]
        assert [pairs[int(i[1:])] for i in row["different"]] == []


def test_a_different_score_is_named():
    rows = _rows(STORIES[:3], gsm8k)
    rows[1]["correct"] = not rows[1]["correct"]
    assert {r["filter"]: r["different"] for r in harness.replayed(rows, "gsm8k")}["strict-match"] == ["r1"]


def test_a_cell_is_read_from_its_folder(tmp_path):
    rows = _rows(STORIES[:4], gsm8k)
    jsonfiles.write_json(tmp_path / "metrics.json", {"datasets": {"sums": "gsm8k"}})
    common = {"set": "task:sums", "base_id": "b", "category": "task"}
    tables.write([common | {k: r[k] for k in ("id", "prompt", "text")} | {"tokens": 1, "finish": "stop"} for r in rows],
                 tmp_path / "responses.parquet", "responses")  # fmt: skip
    tables.write([
        common | {"id": r["id"], "judge": "gsm8k", "label": "", "outcome": "correct" if r["correct"] else "wrong",
                  "score": 1.0, "text": "", "flexible": r["flexible"], "parsed": "", "gold": r["gold"]} for r in rows
    ], tmp_path / "verdicts.parquet", "verdicts")  # fmt: skip
    assert [(t, r["different"]) for t, r in harness.check(tmp_path)] == [("sums", []), ("sums", [])]
    assert main(["harness", str(tmp_path)]) == 0
    with pytest.raises(ArtifactError, match="not a finished cell"):
        harness.check(tmp_path / "nowhere")
