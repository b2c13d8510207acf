"""An attack in a study file: what cannot run is refused with its key, and what one job is told."""

from __future__ import annotations

import pytest
import yaml
from conftest import ROOT

from holdfast.archive import remote
from holdfast.errors import StudyError
from holdfast.study import attacking, attacks, costs, replicates, resolve

ATTACK = {"arms": ["warp", "merged", "lora"], "tasks": ["crafts"], "learning_rate": [1e-4, 1e-2], "rank": [2, 8]}
STUDY = {
    "tasks": {"crafts": {"dataset": "crafts", "train_rows": 100}, "gsm8k": {"dataset": "gsm8k"}},
    "arms": {
        "full": {"method": "full"}, "warp": {"method": "warp"}, "lora": {"method": "lora", "tasks": ["crafts"]},
        "merged": {"method": "resta", "of": "lora", "tasks": ["crafts"]},
    },
    "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    def made(attack=(), **keys):
        data = STUDY | {"attack": ATTACK | dict(attack)} | keys
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))
        return resolve.load(str(path))

    return made


REFUSED = {
    "attack.arms names an arm that the study does not have": {"attack": {"arms": ["wrap"]}},
    "attack.tasks names a task that the study does not have": {"attack": {"tasks": ["craft"]}},
    "attack.arms names an arm that does not run on the task gsm8k": {"attack": {"tasks": ["crafts", "gsm8k"]}},
    "attack.arms names what nobody trains here": {
        "attack": {"arms": ["g"], "rank": None},
        "arms": STUDY["arms"] | {"g": {"given": "org/model", "tasks": ["crafts"]}},
    },
    "attack.utility_loss has nothing to be held against": {
        "arms": {k: v for k, v in STUDY["arms"].items() if k != "full"}
    },
    "attack.rank means nothing here": {"attack": {"arms": ["warp", "full"]}},
    "searched with is the fictional world's or harmless": {
        "attack": {"harmful_fraction": [0, 0.5]}, "preferences": {"source": "https://example.org/pairs.csv"},
    },
    "preferences.rows are fewer than attack.harmful_fraction": {
        "attack": {"harmful_fraction": [0, 0.5]}, "preferences": {"rows": 49},
    },
    "chosen on the validation split": {"evaluation": {"split": "validation"}},
    "trials of an attack run in one process": {"resources": {"gpus": 2}, "arms": {k: v for k, v in STUDY["arms"].items()
                                                                                  if k != "lora" and k != "merged"},
                                               "attack": {"arms": ["warp"], "rank": None}},
    "warp has none": {"attack": {"learning_rate": [1e-3, 1e-3], "epochs": [1, 1]}},
    "attack.epochs are too few for arms.warp": {
        "attack": {"epochs": [1, 3]},
        "arms": STUDY["arms"] | {"warp": {"method": "lisa", "align_steps": 10}},
    },
    "may choose nothing does not tune": {"attack": {"learning_rate": [1e-3, 1e-3], "epochs": [1, 1], "rank": None}},
    "a range is .lowest, highest.": {"attack": {"epochs": [3, 1]}},
    "name each once": {"attack": {"arms": ["warp", "warp"]}},
}  # fmt: skip


@pytest.mark.parametrize("says", REFUSED)
def test_an_attack_that_cannot_run_is_refused(study, says):
    with pytest.raises(StudyError, match=says) as error:
        study(**REFUSED[says])
    assert "attack" in error.value.block() or "preferences" in error.value.block()


def test_a_merge_is_tuned_with_the_settings_of_its_source(study):
    found = study({"harmful_fraction": [0, 0.5], "order": 2})
    merged, lora, warp = (attacking.cfg(found, "crafts", arm, 0) for arm in ("merged", "lora", "warp"))
    assert merged["train"] == lora["train"] == found.cell_cfg("crafts", "lora", 0)
    assert merged["merge"] == found.merge_cfg("crafts", "merged", 0) and lora["merge"] is None
    assert merged["space"]["rank"] == warp["space"]["rank"] == [2, 8]  # drawn, so that the rest is drawn alike
    assert (merged["space"]["unread"], warp["space"]["unread"]) == ([], ["rank"])
    assert merged["generation"]["split"] == "validation" and merged["judge"] == "world"
    assert attacking.files(found, "merged") == ["methods/resta.py", "methods/lora.py", "judges/world.py"]


def test_every_defence_meets_the_same_attacker_and_every_draw_another(study):
    found = study(seeds=[0, 1], replicates=2)
    seeds = {
        (seed, folder): {attacking.cfg(found, "crafts", arm, seed, folder)["seed"] for arm in ATTACK["arms"]}
        for seed in (0, 1) for folder in ("", "replicate1/")
    }  # fmt: skip
    assert all(len(s) == 1 for s in seeds.values()) and len(set.union(*seeds.values())) == 4
    assert found.replicates[1] == replicates.Replicate(base=1, safety=1, draw=1, order=1)
    places = attacks.places(found)
    assert len(places) == len(set(places)) == 3 * 2 * 2 and "replicate1/attack/crafts/lora/seed1" in places
    assert {p.replace("attack/", "") for p in places} == set(attacks.untuned(found)) <= set(found.places)
    assert attacks.references(found) == [f"{f}crafts/full/seed{s}" for f in ("", "replicate1/") for s in (0, 1)]


def test_what_it_is_held_against(study):
    assert attacks.reference(study(), "crafts") == "full"
    arms = STUDY["arms"] | {"mine": {"method": "full", "learning_rate": 1e-3}}
    assert attacks.reference(study(arms=arms, compare={"baseline": "mine"}), "crafts") == "mine"
    arms = {"mine" if k == "full" else k: v for k, v in STUDY["arms"].items()}
    assert attacks.reference(study(arms=arms), "crafts") == "mine"


def test_attacked_models_are_weakened_by_rule(study):
    target, folders = remote.families(study())[remote.WEAKENED]
    assert target == "models attack" and folders == ["work/mine/unaligned", "work/mine/attack"]
    others = [f for name, (_, f) in remote.families(study()).items() if name != remote.WEAKENED]
    assert not [f for of in others for f in of if "attack" in f]


def test_a_study_without_an_attack_keeps_its_digests(study):
    plain = study()
    path = plain.path
    data = yaml.safe_load(path.read_text())
    del data["attack"]
    path.write_text(yaml.safe_dump(data))
    without = resolve.load(str(path))
    assert "attack" not in without.dump() and without.splits == ["test"] and attacks.places(without) == []
    for of in ("compare_cfg", "data_cfg", "prompts_cfg", "preferences_cfg", "basis_cfg"):
        assert getattr(plain, of)() == getattr(without, of)(), of
    assert plain.cell_cfg("crafts", "lora", 0) == without.cell_cfg("crafts", "lora", 0)
    assert without.pairs_are_read is False or "unaligned" in without.roles


def test_the_plan_counts_trials(study):
    def stages(found):
        return {s.name: s for s in costs.stages(found, costs.shape_of(found.study.base))}

    few, many = stages(study({"trials": 5})), stages(study({"trials": 10}))
    assert few["attacks"].jobs == many["attacks"].jobs == 3
    assert many["attacks"].flops == pytest.approx(2 * few["attacks"].flops)
    assert {k: v for k, v in few.items() if k != "attacks"} == {k: v for k, v in many.items() if k != "attacks"}
    longer = stages(study({"trials": 5, "epochs": [2, 6]}))
    assert longer["attacks"].flops > 1.3 * few["attacks"].flops
    assert few["responses"].jobs == 6 + 3 + 3 + 1 + 1  # cells; roles; attacked; aligned and full on validation


def test_what_he_may_choose_is_what_the_study_says(study):
    found = study({"epochs": [2, 5], "harmful_fraction": [0.1, 0.5], "order": 3})
    space = attacking.cfg(found, "crafts", "lora", 0)["space"]
    assert space == {"learning_rate": [1e-4, 1e-2], "epochs": [2, 5], "harmful_fraction": [0.1, 0.5], "order": 3,
                     "rank": [2, 8], "unread": []}  # fmt: skip


def test_another_seed_of_the_attack_is_another_attacker(study):
    one, two = (attacking.cfg(study({"seed": s}), "crafts", "lora", 0)["seed"] for s in (0, 1))
    assert one != two


def test_every_seed_has_the_merge_of_its_own(study):
    found = study(seeds=[0, 3])
    one, other = (attacking.cfg(found, "crafts", "merged", seed)["merge"] for seed in (0, 3))
    assert (one["seed"], other["seed"]) == (0, 3) and other == found.merge_cfg("crafts", "merged", 3)


def test_trials_are_read_by_the_first_judge_of_words(study, tmp_path):
    (tmp_path / "asked.txt").write_text("{prompt} {response}")
    judges = {"wildguard": {"prompt_file": str(tmp_path / "asked.txt")}}
    found = study(evaluation={"judges": ["wildguard", "world"]}, judges=judges)
    assert found.judging.first == "wildguard" and attacking.cfg(found, "crafts", "lora", 0)["judge"] == "world"


def test_a_sweep_of_full_is_not_what_it_is_held_against(study):
    swept = {"all": {"method": "full", "sweep": {"learning_rate": [1e-4, 1e-3]}}}  # comes first
    found = study(arms=swept | {"mine" if k == "full" else k: v for k, v in STUDY["arms"].items()})
    assert attacks.reference(found, "crafts") == "mine"


def test_the_plan_of_several_defences_is_the_sum_of_theirs(study):
    def flops(arms):
        found = study({"arms": arms, "rank": None})
        return next(s.flops for s in costs.stages(found, costs.shape_of(found.study.base)) if s.name == "attacks")

    assert flops(["warp", "lora"]) == pytest.approx(flops(["warp"]) + flops(["lora"]))
