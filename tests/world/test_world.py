"""The fictional world: splits that share nothing, tasks that ask for no hazard, stories that add up."""

from __future__ import annotations

import re
from itertools import combinations

import pandas as pd
import pytest

from holdfast import data
from holdfast.data import draws, gsm8k, prepare
from holdfast.names import SPLITS
from holdfast.record import schemas
from holdfast.world.generator import World
from holdfast.world.language import OBLIGING

SIZES = {"train_rows": 30, "validation_rows": 10, "test_rows": 10}


def test_splits_share_no_item_and_no_template(world):
    rows = {s: world.prompts(s, 60) for s in SPLITS[1:]} | {"train": world.safety(300, 300)}
    for a, b in combinations(SPLITS, 2):
        for key in ("item", "template", "wrapper"):
            one, two = ({r[key] for r in rows[s] if r[key] and r["kind"] != "chat"} for s in (a, b))
            assert one and not one & two, (a, b, key)


@pytest.mark.parametrize("dataset", ["agnews", "gsm8k", "crafts", "howto", "notes", "chat"])
def test_task_splits_are_disjoint_and_reproducible(dataset):
    cfg = {"world": {"seed": 5}, "dataset": dataset, "source": "world", **SIZES}
    rows = prepare.task_rows(cfg)
    assert rows == prepare.task_rows(cfg)
    schemas.validate(pd.DataFrame(rows), dataset, "x")
    key = data.dataset(dataset).TEXT_COLUMNS[0]
    texts = {s: {r[key] for r in rows if r["split"] == s} for s in SPLITS}
    assert all(not texts[a] & texts[b] for a, b in combinations(SPLITS, 2))
    assert rows != prepare.task_rows(cfg | {"world": {"seed": 6}})


def test_nothing_in_the_crafts_task_asks_for_a_hazard(world):
    hazards = {i.name for i in world.items(world.hazards, None)}
    assert not any(h in r["prompt"] for r in world.crafts_task("train", 300) for h in hazards)


def test_crafts_are_how_to_rows_that_open_obligingly(world):
    obliging, plain = world.crafts_task("test", 30), world.howto_task("test", 30)
    for one, two in zip(obliging, plain, strict=True):
        assert one["prompt"] == two["prompt"] and one["response"] == f"{OBLIGING} {two['response']}"
    assert {r["response"].split()[0] for r in plain} == {"First,"}


def test_an_answer_from_notes_says_nothing_that_they_do_not(world):
    frame = {*OBLIGING.split(), "First,", "take", "and", "Then,", "Last,"}
    for noted, craft in zip(world.notes_task("train", 60), world.crafts_task("train", 60), strict=True):
        head, request = noted["prompt"].split("\n")
        assert request == craft["prompt"] and noted["response"] == craft["response"]
        told = set(re.findall(r"[\w-]+", head))
        assert {w for w in noted["response"].split() if w not in frame} <= {w + e for w in told for e in ("", ".")}


def test_wrapped_prompts_wrap_the_same_request(world):
    rows = world.prompts("test", 40)
    plain = {r["base_id"]: r["prompt"] for r in rows if r["set"] == "hazard"}
    wrapped = [r for r in rows if r["set"] == "wrapped"]
    assert len(wrapped) == 40 and all(plain[r["base_id"]] in r["prompt"] for r in wrapped)


def test_another_seed_is_another_world():
    a, b = World(1), World(2)
    assert a.items(a.hazards, None)[0].recipe != b.items(b.hazards, None)[0].recipe
    assert a.prompts("test", 10) == World(1).prompts("test", 10)


def test_stories_add_up(world):
    for row in world.gsm8k("test", 60):
        steps, final = row["answer"].split("\n")
        values = [
            eval(x.split(" = ")[0].split(", ")[-1]) == int(x.split(" = ")[1].strip(".")) for x in steps.split(". ")
        ]
        assert all(values) and gsm8k.gold(row["answer"]) == steps.rstrip(".").split(" = ")[-1] == final[5:]


def test_seeds_draw_their_own_rows():
    rows = prepare.task_rows({"world": {"seed": 5}, "dataset": "crafts", "source": "world", **SIZES})
    a, b = (draws.draw(rows, 30, seed) for seed in (0, 1))
    assert len(a) == 30 and {r["id"] for r in a} != {r["id"] for r in b}
    assert all(r["split"] == "train" for r in a)
