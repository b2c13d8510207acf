"""Replicates: which seeds they have, whose models they share, and where their files lie."""

from __future__ import annotations

import pytest
import yaml

from holdfast.errors import StudyError
from holdfast.study import replicates, resolve, unread
from holdfast.study.checked import LARGEST_SEED

STUDY = {
    "tasks": {"news": {"dataset": "agnews"}, "crafts": {"dataset": "crafts"}},
    "arms": {"full": {"method": "full"}, "mine": {"method": "warp", "tasks": ["crafts"]}, "back": {"method": "resta"}},
    "seeds": [0, 1],
}


def load(tmp_path, **more):
    guidelines = tmp_path / "guidelines.txt"
    guidelines.write_text("Refuse what is forbidden.\n")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"constitution": {"guidelines_file": str(guidelines)}} | more))
    return resolve.load(str(path))


def test_one_replicate_is_the_study_as_it_was(tmp_path):
    alone, first = load(tmp_path), load(tmp_path, replicates=3)
    assert alone.folders == [""] and alone.places == [f"{t}/{a}/seed{s}" for t, a, s in alone.cells]
    for cfg in ("base_cfg", "aligned_cfg", "unaligned_cfg", "safety_data_cfg"):
        assert getattr(first, cfg)("") == getattr(alone, cfg)()
    assert first.cell_cfg("news", "full", 1, "") == alone.cell_cfg("news", "full", 1)
    assert "replicate" not in alone.judge_cfg("news", "full", 0, "m")["cell"]
    assert first.judge_cfg("news", "full", 0, "m", "replicate2/")["cell"]["replicate"] == 2


def test_every_replicate_is_another_draw_of_everything(tmp_path):
    study = load(tmp_path, replicates=4)
    assert study.folders == ["", "replicate1/", "replicate2/", "replicate3/"]
    assert len(study.places) == 4 * len(study.cells) == len(set(study.places))
    assert study.homes("base") == study.homes("aligned") == study.folders
    for what in (
        lambda f: study.base_cfg(f)["seed"],
        lambda f: study.aligned_cfg(f)["seed"],
        lambda f: study.unaligned_cfg(f)["seed"],
        lambda f: study.safety_data_cfg(f).get("draw", 0),
        study.control_seed,
        lambda f: study.merge_cfg("news", "back", 0, f)["seed"],
    ):
        assert len({what(f) for f in study.folders}) == 4
    # No seed of one replicate is one of another.
    seeds = [study.cell_cfg("news", "full", s, f)["seed"] for f in study.folders for s in (0, 1)]
    assert len(set(seeds)) == 8


@pytest.mark.parametrize(
    ("listed", "bases", "aligned", "units"),
    [
        ([{}, {"base": 1}, {"safety": 1}, {"base": 1, "safety": 1}], [0, 1, 0, 1], [0, 1, 2, 3], [0, 1, 0, 1]),
        ([{}, {"safety": 1}, {"safety": 1, "draw": 1}], [0, 0, 0], [0, 1, 1], [0, 1, 1]),
        ([{}, {"draw": 1}, {"draw": 2}, {"draw": 2, "order": 1}], [0] * 4, [0] * 4, [0, 1, 2, 2]),
        ([{}, {"order": 4}], [0, 0], [0, 0], [0, 1]),
    ],
)  # fmt: skip
def test_replicates_share_what_is_drawn_alike(tmp_path, listed, bases, aligned, units):
    study = load(tmp_path, replicates=listed)
    assert [replicates.number(study.home("base", f)) for f in study.folders] == bases
    assert [replicates.number(study.home("aligned", f)) for f in study.folders] == aligned
    cells = [study.judge_cfg("news", "full", 0, "m", f)["cell"] for f in study.folders]
    assert [c["unit"] for c in cells] == units and [c["aligned"] for c in cells] == aligned


def test_rows_and_order_are_drawn_apart(tmp_path):
    study = load(tmp_path, replicates=[{}, {"draw": 1}, {"order": 1}])
    own, drawn, ordered = (study.cell_cfg("news", "full", 0, f) for f in study.folders)
    assert "draw" not in own and drawn["seed"] == own["seed"] and drawn["draw"] != own["seed"]
    assert ordered["seed"] != own["seed"] and ordered["draw"] == own["seed"]


def test_rounding_is_no_draw(tmp_path):
    """The same draw on other instructions: the same models to start from, one unit, and said to the jobs."""
    study = load(tmp_path, replicates=[{}, {"instructions": "common"}])
    own, other = (study.cell_cfg("news", "full", 0, f) for f in study.folders)
    assert other == own | {"instructions": "common"} and "instructions" not in own
    assert study.merge_cfg("crafts", "back", 0, study.folders[1])["instructions"] == "common"
    assert study.homes("aligned") == [""] and replicates.units(study.replicates) == [0, 0]
    cells = [study.judge_cfg("news", "full", 0, "m", f)["cell"] for f in study.folders]
    assert [c["instructions"] for c in cells] == ["native", "common"] and {c["unit"] for c in cells} == {0}
    assert study.judge_cfg(None, "aligned", 0, "m", study.folders[1])["cell"]["instructions"] == "native"
    both = load(tmp_path, replicates=[{}, {"base": 1}, {"base": 1, "instructions": "common"}])
    assert replicates.units(both.replicates) == [0, 1, 1]


def test_rounding_that_all_jobs_have_is_said(tmp_path, monkeypatch):
    study = load(tmp_path, replicates=[{}, {"instructions": "common"}])
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert not [line for line in unread.lines(study) if "instructions" in line]
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert any("nothing rounds otherwise" in line for line in unread.lines(study))


def test_a_base_that_is_given_is_the_base_of_all(tmp_path):
    study = load(tmp_path, base={"source": "some/model"}, replicates=3)
    assert study.homes("base") == [""] and study.homes("aligned") == study.folders
    assert study.role_places == [
        ("", "base"), *((f, "aligned") for f in study.folders), *((f, "unaligned") for f in study.folders)
    ]  # fmt: skip
    with pytest.raises(StudyError, match="replicates 0 and 1 are the same") as error:
        load(tmp_path, base={"source": "some/model"}, replicates=[{}, {"base": 1}])
    assert "all start from some/model" in str(error.value)


@pytest.mark.parametrize("value", [0, -1, True, "3", 1.5, None, {}, [], [{"bases": 1}], [{"base": -1}], [{}, {}]])
def test_what_are_no_replicates_is_refused(tmp_path, value):
    if value is None:  # which a YAML file may say for "as it is"
        value = "null"
    with pytest.raises(StudyError, match="replicates"):
        load(tmp_path, replicates=value)


def test_a_task_cannot_have_the_folder_of_a_replicate(tmp_path):
    with pytest.raises(StudyError, match="cannot name a task"):
        load(tmp_path, tasks={"replicate2": {"dataset": "agnews"}}, arms={"full": {"method": "full"}})


def test_a_seed_stays_a_seed():
    assert replicates.seed(LARGEST_SEED, 0) == LARGEST_SEED
    found = {replicates.seed(own, offset) for own in (0, 1, 1_000_003, LARGEST_SEED) for offset in range(250)}
    assert len(found) == 1000 and min(found) >= 0 and max(found) <= LARGEST_SEED
