"""The smallest attack in the DAG, from nothing to the report: the tables are there, and the models are marked."""

from __future__ import annotations

import csv
import importlib.util

import pytest
from workflow import call, finished, planned

from holdfast.record import container

pytestmark = [
    pytest.mark.dag,
    pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs the extra `attack` (Optuna)"),
]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("attacked"), study="smoke-attack")


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_trial_is_in_a_table_and_the_best_in_one_of_all(attacked):
    results = attacked / "results/smoke-attack"
    table = {r["arm"]: r for r in rows(results / "attack.csv")}
    assert {*table} == {"lora", "resta-lora"}
    for arm, row in table.items():
        trials = rows(results / f"attack/crafts/{arm}/seed0/trials.csv")
        assert len(trials) == int(row["trials"]) == 2 and sum(t["best"] == "1" for t in trials) <= 1
        assert all(2 <= int(t["rank"]) <= 8 and 1e-3 <= float(t["learning_rate"]) <= 1e-2 for t in trials)
        assert float(row["seconds"]) == pytest.approx(sum(float(t["seconds"]) for t in trials), rel=1e-3)
        assert float(row["dollars"]) == pytest.approx(float(row["seconds"]) * 1e-4, rel=1e-3)
        assert row["refusal_n"] in ("12", "") and (results / f"attack/crafts/{arm}/seed0/metrics.json").exists()
    page = (results / "report.html").read_text()
    assert "Against an attacker who tunes" in page and 'id="attack"' in page


def test_how_far_every_arm_moved_is_beside_it(attacked):
    results = attacked / "results/smoke-attack"
    moved = {r["arm"]: r["drift/kl"] for r in rows(results / "table.csv")}
    roles = [moved.pop(role) for role in ("base", "aligned")]
    assert {*moved} == {"full", "lora", "resta-lora"} and set(roles) == {""}
    assert all(float(kl) > 0 for kl in moved.values())
    assert "KL divergence from the aligned model" in (results / "report.html").read_text()


def test_attacked_models_say_that_they_are_weakened(attacked):
    for arm in ("lora", "resta-lora"):
        folder = attacked / f"work/smoke-attack/attack/crafts/{arm}/seed0"
        assert container.is_weakened(folder / "model.safetensors")
        assert "weakened" in (folder / "README.md").read_text()
    assert not container.is_weakened(attacked / "work/smoke-attack/crafts/full/seed0/model.safetensors")


def test_nothing_is_left_to_do_and_nothing_lies_around(attacked):
    assert planned(attacked, study="smoke-attack") == {}
    assert "0 missing, 0 stale, 0 corrupt, 0 orphan" in call(attacked, "holdfast", "audit", "smoke-attack")
    assert not [p for p in (attacked / "work/smoke-attack/checkpoints/attack").rglob("*") if p.is_file()]


def test_another_price_makes_the_table_again_and_no_trial(attacked):
    text = (attacked / "config/smoke-attack.yaml").read_text()
    (attacked / "config/dearer.yaml").write_text(text)
    path = attacked / "config/smoke-attack.yaml"
    path.write_text(text.replace("dollars_per_hour: 0.36", "dollars_per_hour: 0.72"))
    jobs = planned(attacked, study="smoke-attack")
    path.write_text(text)
    assert "compare_attacks" in jobs and not {"search_attack", "finetune", "respond"} & {*jobs}
