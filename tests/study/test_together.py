"""What several processes can train is known at planning."""

from __future__ import annotations

import pytest
from bad_input import GOOD, changed, load

from holdfast.errors import StudyError
from holdfast.study import registry, together

TOGETHER = {"derta", "full", "lead", "lora", "safety-mix", "warp"}


def test_one_process_is_no_setting_of_anything_that_is_made(tmp_path):
    alone, one, two = (load(tmp_path, GOOD | r) for r in ({}, {"resources": {"gpus": 1}}, {"resources": {"gpus": 2}}))
    for made in (
        lambda s: s.cell_cfg("crafts", "warp", 0), lambda s: s.aligned_cfg(), lambda s: s.unaligned_cfg(),
    ):  # fmt: skip
        assert made(alone) == made(one) == {k: v for k, v in made(two).items() if k != "processes"}
        assert made(two)["processes"] == 2
    assert alone.dump() == one.dump() and two.dump()["resources"] == {"gpus": 2}
    assert "processes" not in two.base_cfg()


def test_a_method_says_itself_whether_several_can_train_it():
    names = [n for n in registry.method_names() if registry.header(n).kind == "train"]
    assert {n for n in names if not registry.load(n).Settings().alone()} == TOGETHER
    assert "does not say" in registry.MethodSettings().alone()


@pytest.mark.parametrize(("key", "value", "found"), [
    ("arms.a", {"method": "sn-tune"}, "arms.a: crafts: it trains twice"),
    ("arms.a", {"method": "warp", "basis": "output", "unit": "row"}, "arms.a: crafts: basis: output"),
    ("arms.a", {"method": "lora", "dropout": 0.1}, "arms.a: crafts: dropout"),
    ("tasks.crafts.training", {"batch_size": 1, "accumulation": 2}, "tasks.crafts.training: 2 rows in a step"),
    ("safety.training", {"batch_size": 2}, "safety.training: 2 rows"),
    ("tasks.crafts.training", {"precision": "pure_bf16"}, "tasks.crafts.training: pure_bf16"),
])  # fmt: skip
def test_what_one_process_has_to_train_is_refused(key, value, found, tmp_path):
    data = changed(key, value)
    assert together.why(load(tmp_path, data), 4) == found if found.endswith("step") else True
    with pytest.raises(StudyError) as error:
        load(tmp_path, data | {"resources": {"gpus": 4}})
    where, _, why = found.partition(": ")
    assert f": {where} cannot be trained on 4 GPUs together" in error.value.what and error.value.found.startswith(why)
    load(tmp_path, data)


def test_a_twin_that_is_trained_counts_and_one_that_is_given_does_not(tmp_path):
    twin = changed("unaligned.training", {"batch_size": 1, "accumulation": 1})
    load(tmp_path, twin | {"resources": {"gpus": 2}})
    needs = twin | {"arms": GOOD["arms"] | {"resta": {"method": "resta"}}, "resources": {"gpus": 2}}
    with pytest.raises(StudyError, match=r"unaligned\.training"):
        load(tmp_path, needs)
