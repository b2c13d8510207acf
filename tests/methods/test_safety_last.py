"""The task first and safety last: both trainings in the other order, to the last bit."""

from __future__ import annotations

import pytest
import torch
from conftest import save_roles

from holdfast.model import chat, folders
from holdfast.record import jsonfiles, tables
from holdfast.study import registry, resolve
from holdfast.train import finetune, loop

TRAINING = {"learning_rate": 5e-3, "epochs": 1, "batch_size": 4, "max_length": 128}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer, world):
    """A folder with base and aligned models, a task and safety rows."""
    folder = save_roles(tmp_path_factory.mktemp("order"), tokenizer)
    for name, rows in (("howto", world.howto_task("train", 12)), ("safety", world.safety(8, 4))):
        tables.write(rows, folder / f"{name}.parquet", name)
    return folder


def _cell(place, out, **settings):
    method = registry.load("safety-last")
    chosen = method.Settings(**settings)
    cfg = {"method": "safety-last", "settings": chosen.model_dump(mode="json"), "modules": ["q_proj"],
           "training": TRAINING, "task": "howto", "instruction": None, "train_rows": 10, "seed": 3}  # fmt: skip
    roles = {role: place / role / "model.safetensors" for role in chosen.artifacts().get("roles", ())}
    finetune.run(
        aligned=place / "aligned/model.safetensors", task_table=place / "howto.parquet",
        safety_table=place / "safety.parquet", artifacts=roles, cfg=cfg, folder=out / "cell",
        log_file=out / "train.jsonl", record_file=out / "train.json", checkpoints=out / "c",
    )  # fmt: skip
    return folders.load(out / "cell")[0].state_dict()


def _by_hand(place, start, out):
    """Plain AdamW on ten rows of the task, then on all of safety, each with a schedule of its own."""
    model, tokenizer = folders.load(place / start)
    task = finetune.draw(tables.read(place / "howto.parquet", "howto"), 10, 3, stratify=False)
    safety = tables.read(place / "safety.parquet", "safety")
    for i, rows in enumerate((task, safety)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, fused=True)
        loop.train(
            model, tokenizer, chat.encode_rows(tokenizer, rows, 128), loop.settings_of(TRAINING), seed=3,
            log_file=out / f"{i}.jsonl", checkpoints=out / f"c{i}", identity="x", optimizer=optimizer,
        )  # fmt: skip
    return model.state_dict()


def test_it_is_both_trainings_in_the_other_order(place, tmp_path):
    (tmp_path / "hand").mkdir()
    found, want = _cell(place, tmp_path), _by_hand(place, "base", tmp_path / "hand")
    assert all(torch.equal(found[k], want[k]) for k in want)
    assert (tmp_path / "prelude.jsonl").exists() and jsonfiles.read_json(tmp_path / "train.json")["rows"] == 12


def test_a_second_helping_starts_from_the_aligned_model(place, tmp_path):
    (tmp_path / "hand").mkdir()
    found, want = _cell(place, tmp_path, start="aligned"), _by_hand(place, "aligned", tmp_path / "hand")
    assert all(torch.equal(found[k], want[k]) for k in want)


def test_the_last_rows_are_those_of_safety(world):
    method, safety = registry.load("safety-last"), world.safety(8, 4)
    task = [{"id": "t", "prompt": "p", "response": "r"}]
    assert method.rows(task, method.Settings(), seed=0, safety=safety) == safety
    assert method.Settings().artifacts() == {"roles": ["base"]} and not method.Settings(start="aligned").artifacts()


def test_the_shipped_study_exchanges_the_order_and_nothing_else():
    study = resolve.load("order")
    safety = study.study.safety.training.model_dump(mode="json")
    assert not safety["weight_decay"]  # what decays does not matter where nothing does
    for task in study.study.tasks:
        for arm in ("full", "safety-last"):
            assert study.cell_cfg(task, arm, 0)["training"] | {"weight_decay_on": "all"} == safety


def test_rows_of_the_task_are_cut_as_everywhere(place, tmp_path, monkeypatch):
    monkeypatch.setitem(TRAINING, "max_length", 48)
    lengths, train = [], loop.train

    def spied(model, tokenizer, encoded, *more, **others):
        lengths.append(max(len(e["input_ids"]) for e in encoded))
        return train(model, tokenizer, encoded, *more, **others)

    monkeypatch.setattr(loop, "train", spied)
    _cell(place, tmp_path)
    assert lengths == [48, 48], lengths


def test_what_comes_first_is_asked_as_the_task_is_and_clips_as_its_optimizer_says(place, tmp_path, monkeypatch):
    """The instruction of the study stands before every row, and an optimizer that clips itself is left to."""
    rows, clipped, encode, train = [], [], chat.encode_rows, loop.train
    monkeypatch.setattr(chat, "encode_rows", lambda t, r, *a: rows.append(r) or encode(t, r, *a))
    monkeypatch.setattr(loop, "train", lambda *a, **k: clipped.append(k["clips_itself"]) or train(*a, **k))
    method = registry.load("safety-last")
    adamw = torch.optim.AdamW

    class Clips(adamw):
        clips_itself = True

    def prelude(model, layers, settings, *, rows, training, train, **needs):
        train(rows, training, Clips(model.parameters(), lr=1e-3), "first")

    monkeypatch.setattr(method, "prelude", prelude)
    cfg = {"method": "safety-last", "settings": method.Settings(start="aligned").model_dump(mode="json"),
           "modules": ["q_proj"], "training": TRAINING, "task": "howto", "instruction": "Say how.", "train_rows": 10,
           "seed": 3}  # fmt: skip
    finetune.run(
        aligned=place / "aligned/model.safetensors", task_table=place / "howto.parquet",
        safety_table=place / "safety.parquet", artifacts={}, cfg=cfg, folder=tmp_path / "cell",
        log_file=tmp_path / "train.jsonl", record_file=tmp_path / "train.json", checkpoints=tmp_path / "c",
    )  # fmt: skip
    first = next(r for r in rows if len(r) == 10)
    assert all(r["prompt"].startswith("Say how.\n") for r in first) and clipped == [True, False]
