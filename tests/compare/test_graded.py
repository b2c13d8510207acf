"""A task whose answers are graded (ROUGE): its utility is a mean everywhere, and its intervals are those of one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.compare import components, groups, metrics, pareto, table
from holdfast.record import csvfiles, jsonfiles, tables
from holdfast.track import importing

ROUGE = {"t": {"rouge": {"variant": "rougeL"}}}


def verdicts(scores, refused=0.5):
    row = {"category": "x", "judge": "world", "label": "", "text": "", "flexible": False, "parsed": "", "gold": "",
           "finish": "stop"}  # fmt: skip
    hazards = [
        row | {"id": f"h{i:03d}", "set": "hazard", "base_id": str(i), "score": None,
               "outcome": "refusal" if i < 100 * refused else "other"}
        for i in range(100)
    ]  # fmt: skip
    return hazards + [
        row | {"id": f"r{i:03d}", "set": "task:t", "base_id": f"r{i}", "judge": "table", "score": float(s),
               "outcome": "correct" if s == 1 else "invalid" if s == 0 else "wrong"}
        for i, s in enumerate(scores)
    ]  # fmt: skip


def cell(folder, arm, seed, scores, task="t", **more):
    """metrics.json and verdicts.parquet of a model, as the judging stage writes them."""
    rows = verdicts(scores)
    folder = folder / f"{arm}-{seed}"
    tables.write(rows, folder / "verdicts.parquet", "verdicts")
    identity = {
        "study": "s", "task": task, "arm": arm, "family": arm, "method": "full", "settings": {"trainable": "all"},
        "seed": seed, "learning_rate": 1e-3, "swept": {}, "split": "test", "judge": "world", "datasets": {"t": "table"},
        "scorers": ROUGE,
    } | more  # fmt: skip
    metrics.write(rows, cell=identity, datasets={"t": "table"}, record=None, out=folder / "metrics.json")
    return folder / "metrics.json"


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    full = rng.beta(8, 12, 120)
    return {"full": full, "lora": np.clip(full - 0.1 + rng.normal(0, 0.02, 120), 0, 1)}


def test_the_metric_of_a_model_is_its_mean(tmp_path, scores):
    path = cell(tmp_path, "full", 0, scores["full"])
    found = jsonfiles.read_json(path)["metrics"]
    assert found["utility/rougeL"] == pytest.approx(scores["full"].mean()) and found["utility/rougeL_n"] == 120
    error = scores["full"].std(ddof=1) / math.sqrt(120)
    low, high = found["utility/rougeL_low"], found["utility/rougeL_high"]
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert "utility/accuracy" not in found and found["utility/invalid_rate"] == 0
    role = jsonfiles.read_json(cell(tmp_path, "aligned", 0, scores["full"], task=None))["metrics"]
    assert role["utility/t/rougeL"] == found["utility/rougeL"]
    assert importing._values(jsonfiles.read_json(path), path)["utility"] == found["utility/rougeL"]


def test_tables_claims_and_fronts_are_of_means(tmp_path, scores):
    shifts = (0.0, 0.005, -0.005, 0.0)
    files = [cell(tmp_path, arm, k, np.clip(s + d, 0, 1)) for arm, s in scores.items() for k, d in enumerate(shifts)]
    loaded = groups.load(files)
    assert loaded["t"]["full"].metric == "utility/rougeL" and loaded["t"]["full"].scores.shape == (4, 120)
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims", "draws")}
    table.build(loaded, files, **out)
    rows = {r["arm"]: r for r in csvfiles.read_csv(out["table"])}
    mean = {arm: s.mean() for arm, s in scores.items()}
    for arm, r in rows.items():
        assert float(r["utility"]) == float(r["utility/rougeL"]) == pytest.approx(mean[arm], abs=1e-3)
        assert r["utility_metric"] == "utility/rougeL" and r["utility_n"] == "120"
        assert float(r["utility_high"]) - float(r["utility_low"]) < 0.15, "a rate of 120 answers would be known less"
    difference = float(rows["lora"]["utility_minus_full"])
    assert difference == pytest.approx(mean["lora"] - mean["full"], abs=2e-3)
    assert float(rows["lora"]["utility_minus_full_high"]) < -0.05
    (claim,) = [r for r in csvfiles.read_csv(out["claims"]) if r["kind"] == "utility"]
    assert claim["verdict"] == "does not hold" and float(claim["effect"]) == difference
    draws = [float(r["utility"]) for r in csvfiles.read_csv(out["draws"]) if r["arm"] == "full"]
    assert draws == pytest.approx([np.clip(scores["full"] + d, 0, 1).mean() for d in shifts])
    front = {r["arm"]: r for r in pareto.rows(loaded["t"])}
    assert front["full"]["utility"] == pytest.approx(mean["full"], abs=1e-3) and front["lora"]["on_front"] == "no"
    _, parts = components.components(loaded["t"]["full"], "utility")
    assert parts["prompts"] == pytest.approx(scores["full"].var() / 120, rel=0.05)


def test_right_and_wrong_stay_rates(tmp_path, scores):
    rows = verdicts(scores["full"] > 0.4)
    found = metrics.compute(rows, {"t": "table"}, by_task=False, told={"t": {"exact": {}}})["metrics"]
    assert found["utility/exact_match"] == pytest.approx((scores["full"] > 0.4).mean())
    path = cell(tmp_path, "full", 0, scores["full"] > 0.4, scorers={"t": {"exact": {}}})
    group = groups.load([path])["t"]["full"]
    assert group.scores is None and group.answered(["task:t"], "correct").dtype == bool
