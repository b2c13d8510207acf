"""Methods that change the loss, the rows of a step or its gradient, against float64 forms written here; every one of
them killed and resumed. Each test fails when the equation is changed."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
import shutil

import pytest
import torch
from test_methods import LATER, METHODS, _train, beside, cell  # noqa: F401 - a fixture

from holdfast import names
from holdfast.errors import ChatTemplateError, TrainingError
from holdfast.model import chat, folders
from holdfast.record import container, tables
from holdfast.study import registry
from holdfast.train import finetune, loop, progress
from holdfast.train.beside import Beside, Stream, predicted
from holdfast.warp import families
from holdfast.world.model import new_model

BESIDE = [m for m in METHODS if registry.header(m).kind == "train" and hasattr(registry.load(m), "beside")]
# In a run of a few steps what the defaults do is not seen.
SHORT = {"lisa": {"align_steps": 2, "task_steps": 3, "strength": 0.3}}


def _start(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def _full(cell, tokenizer, encoded, folder, **training):  # noqa: F811
    """The weights of plain training, from the model of the cell, which starts again."""
    model, start = cell[0], _start(cell[0])
    _train("full", cell, tokenizer, encoded, folder, **training)
    end = _start(model)
    model.load_state_dict(start)
    return end


def _apart(one, two):
    return max(float((one[k] - two[k]).abs().max()) for k in one)


@pytest.fixture(scope="module")
def tables_of_world(tmp_path_factory, tokenizer, world):
    """A folder with an aligned model and the tables that cells are trained from."""
    folder = tmp_path_factory.mktemp("beside")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, "kv_heads": 2, "max_positions": 256}
    folders.save(new_model(tokenizer, **sizes, seed=0), tokenizer, folder / "aligned", header={"role": "aligned"})
    for name, rows in (("howto", world.howto_task("train", 24)), ("safety", world.safety(16, 8)),
                       ("preferences", world.preferences(12))):  # fmt: skip
        tables.write(rows, folder / f"{name}.parquet", name)
    tables.write(world.preferences(11), folder / "fewer.parquet", "preferences")
    tables.write(world.howto_task("train", 60)[30:54], folder / "others.parquet", "howto")
    for seed, base in ((1, "base"), (2, "another")):
        folders.save(new_model(tokenizer, **sizes, seed=seed), tokenizer, folder / base, header={"role": "base"})
    for rows, place in ((1, "few"), (8, "many")):
        how = {"rows": rows, "tokens": "all", "modules": ["q_proj", "down_proj"]}
        start, quiet = folder / "aligned/model.safetensors", lambda *_: None
        families.build_gram(start, folder / "safety.parquet", how, folder / f"{place}-gram", quiet)
        families.build_directions(
            folder / f"{place}-gram", {"share": 0.3, "energy": None}, folder / f"{place}-basis", quiet
        )
    how = {"rows": 8, "tokens": "response", "modules": list(names.MODULE_KINDS)}
    families.build_gram(folder / "aligned/model.safetensors", folder / "safety.parquet", how, folder / "gram", print)
    return folder


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", [*BESIDE, "derta", "salora"])
def test_a_cell_killed_and_resumed_and_run_again_is_the_same(name, tables_of_world, tmp_path, monkeypatch):
    steps, last, kill_at = [], progress.Log.on_step_end, {"step": 0}
    monkeypatch.setattr(progress, "SAVING", 1e9)  # a checkpoint after every step

    def step(log, args, state, *more, **others):
        steps.append(state.global_step)
        if state.global_step == kill_at["step"]:
            raise Killed
        last(log, args, state, *more, **others)

    monkeypatch.setattr(progress.Log, "on_step_end", step)
    training = {"learning_rate": 5e-3, "epochs": 2, "batch_size": 4, "accumulation": 2, "max_length": 128,
                "log_every_steps": 1, "checkpoint_seconds": 0.0}  # fmt: skip
    chosen = registry.load(name).Settings(**SHORT.get(name, {}))
    places = {"base": "base/model.safetensors", "gram": "gram"}
    asked = {*chosen.artifacts().get("roles", ()), *({"gram"} if "gram" in chosen.artifacts() else ())}
    given, settings = {k: tables_of_world / places[k] for k in asked}, chosen.model_dump(mode="json")
    cfg = {"method": name, "settings": settings, "modules": ["q_proj"], "training": training, "task": "howto",
           "instruction": None, "train_rows": 22, "seed": 0}  # fmt: skip

    def run(pairs="preferences"):
        finetune.run(
            aligned=tables_of_world / "aligned/model.safetensors", task_table=tables_of_world / "howto.parquet",
            safety_table=tables_of_world / "safety.parquet", harmful_table=tables_of_world / f"{pairs}.parquet",
            artifacts=given, cfg=cfg, folder=tmp_path / "cell", log_file=tmp_path / "t.jsonl",
            record_file=tmp_path / "t.json", checkpoints=tmp_path / "c",
        )  # fmt: skip
        return (tmp_path / "cell/model.safetensors").read_bytes()

    whole, end = run(), steps[-1]
    assert (
        steps == list(range(1, end + 1)) and end >= 6 and not container.is_weakened(tmp_path / "cell/model.safetensors")
    )
    shutil.rmtree(tmp_path / "cell")
    kill_at["step"] = 4
    with pytest.raises(Killed):
        run()
    assert [p.name for p in (tmp_path / "c").glob("checkpoint-*")] == ["checkpoint-3"]
    kill_at["step"] = 0
    steps.clear()
    assert run() == whole and steps == list(range(4, end + 1))
    if "preferences" in registry.header(name).needs:
        for kill_at["step"], pairs in ((3, "preferences"), (1, "fewer")):  # of other rows no checkpoint is taken up
            with pytest.raises(Killed):
                run(pairs)


# Method -> what is exchanged after a kill: (file or role, before, after); a table of the task is exchanged too.
EXCHANGED = {
    "lead": ({"basis": "few-basis"}, {"basis": "many-basis"}, "howto", "howto"),
    "asft": ({"base": "base/model.safetensors"}, {"base": "another/model.safetensors"}, "howto", "howto"),
    "safety-last": ({"base": "base/model.safetensors"}, {"base": "base/model.safetensors"}, "howto", "others"),
}


@pytest.mark.parametrize("at", ["first half", "second half"])
@pytest.mark.parametrize("name", EXCHANGED)
def test_what_was_made_from_other_files_is_not_taken_up(name, at, tables_of_world, tmp_path, monkeypatch):
    """A run is killed, what it is made from is made anew, the run is started again: it begins at the beginning."""
    steps, last, kill = [], progress.Log.on_step_end, []
    monkeypatch.setattr(progress, "SAVING", 1e9)

    def step(log, args, state, *more, **others):
        steps.append(state.global_step)
        if kill and len(steps) == kill[0]:
            raise Killed
        last(log, args, state, *more, **others)

    monkeypatch.setattr(progress.Log, "on_step_end", step)
    training = {"learning_rate": 5e-3, "epochs": 2, "batch_size": 4, "accumulation": 2, "max_length": 128,
                "log_every_steps": 1, "checkpoint_seconds": 0.0}  # fmt: skip
    cfg = {"method": name, "settings": registry.load(name).Settings().model_dump(mode="json"), "training": training,
           "modules": ["q_proj", "down_proj"], "task": "howto", "instruction": None, "train_rows": 22,
           "seed": 0}  # fmt: skip

    def run(given, task, out):
        steps.clear()
        finetune.run(
            aligned=tables_of_world / "aligned/model.safetensors", task_table=tables_of_world / f"{task}.parquet",
            safety_table=tables_of_world / "safety.parquet", cfg=cfg, folder=tmp_path / out,
            artifacts={k: tables_of_world / v for k, v in given.items()}, log_file=tmp_path / f"{out}.jsonl",
            record_file=tmp_path / f"{out}.json", checkpoints=tmp_path / f"{out}-checkpoints",
        )  # fmt: skip
        return (tmp_path / out / "model.safetensors").read_bytes(), list(steps)

    before, after, task, then = EXCHANGED[name]
    clean, whole = run(after, then, "clean")
    kill.append(5 if at == "first half" else len(whole) - 1)
    with pytest.raises(Killed):
        run(before, task, "cell")
    kill.clear()
    assert run(after, then, "cell") == (clean, whole)


@pytest.mark.parametrize("name", ["kl-safety", "panacea"])
def test_every_step_has_other_rows_as_many_as_asked_for(name, model, tokenizer, encoded):
    method = registry.load(name)
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4, precision="bf16")
    made = beside(method, model, method.Settings(rows=3), training, tokenizer, encoded)
    asked, batch = [], made.stream.batch
    made.stream.batch = lambda i: asked.append(i) or batch(i)
    for step in range(3):
        made.before_step(model, step, 9)
    assert asked == [0, 1, 2] and made.stream.size == 3 and made.bf16


def test_a_spell_is_counted_in_the_micro_batches_of_the_run(model, tokenizer, encoded):
    method, training = registry.load("lisa"), loop.TrainSettings(1e-3, 1, 4, accumulation=2)
    made = beside(method, model, method.Settings(), training, tokenizer, encoded)
    task = [{"labels": i} for i in range(2)]
    found = [b["input_ids"] for step in (0, 10) for b in made.batches(task, step)]  # the first of two spells
    assert all(torch.equal(a, made.stream.batch(i)["input_ids"]) for i, a in enumerate(found)) and len(found) == 4


def test_other_rows_are_cut_and_drawn_as_those_of_the_cell(tables_of_world, tmp_path, monkeypatch):
    """Their order is of the seed, which rows are added of the draw, and none is longer than the task's may be."""
    streams, seeds, rows = [], [], registry.load("derta").rows

    class Spied(Stream):
        def __init__(self, encoded, size, pad, seed):
            streams.append((max(len(e["input_ids"]) for e in encoded), seed))
            super().__init__(encoded, size, pad, seed)

    monkeypatch.setattr(finetune, "Stream", Spied)
    derta = registry.load("derta")
    monkeypatch.setattr(derta, "rows", lambda *a, seed, **more: seeds.append(seed) or rows(*a, seed=seed, **more))
    for name in ("kl-safety", "derta"):
        chosen = registry.load(name).Settings().model_dump(mode="json")
        cfg = {"method": name, "settings": chosen, "modules": ["q_proj"],
               "training": {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "max_length": 48}, "task": "howto",
               "instruction": None, "train_rows": 8, "seed": 5, "draw": 2}  # fmt: skip
        finetune.run(
            aligned=tables_of_world / "aligned/model.safetensors", task_table=tables_of_world / "howto.parquet",
            safety_table=tables_of_world / "safety.parquet", harmful_table=tables_of_world / "preferences.parquet",
            artifacts={}, cfg=cfg, folder=tmp_path / name, log_file=tmp_path / f"{name}.jsonl",
            record_file=tmp_path / f"{name}.json", checkpoints=tmp_path / "c",
        )  # fmt: skip
    assert streams == [(48, 5)] and seeds == [2]


def test_a_stream_has_every_row_once_a_pass_and_any_batch_again(encoded):
    stream = Stream(encoded[:6], 4, 0, seed=1)
    rows = {tuple(e["input_ids"]): i for i, e in enumerate(encoded[:6])}

    def read(stream, i):
        batch = stream.batch(i)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        return [rows[tuple(ids[:n].tolist())] for ids, n in zip(batch["input_ids"], lengths, strict=True)]

    seen = [row for i in range(6) for row in read(stream, i)]
    assert all(sorted(seen[k : k + 6]) == list(range(6)) for k in (0, 6, 12, 18)) and len(set(map(tuple, (
        seen[k : k + 6] for k in (0, 6, 12, 18))))) > 1  # fmt: skip
    assert [read(stream, i) for i in (5, 0, 3)] == [seen[4 * i : 4 * i + 4] for i in (5, 0, 3)]
    assert [row for i in range(6) for row in read(Stream(encoded[:6], 4, 0, seed=2), i)] != seen


# ---- KL to the aligned model ----------------------------------------------------------------------


def _kl(model, aligned, batch):
    """Mean over answer tokens of Σ p_a (log p_a − log p), token by token in float64, with its graph."""
    with torch.no_grad():
        a = aligned(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    b = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    total, count = 0.0, 0
    for row, labels in enumerate(batch["labels"]):
        for place in range(1, len(labels)):
            if labels[place] != chat.IGNORE:
                p, q = a[row, place - 1].softmax(0), b[row, place - 1].softmax(0)
                total, count = total + (p * (p.log() - q.log())).sum(), count + 1
    return total / count


def test_the_penalty_is_the_mean_kl_over_answer_tokens_and_pulls_as_it_should(model, tokenizer, encoded):
    method, aligned, moved = registry.load("kl-safety"), copy.deepcopy(model), copy.deepcopy(model)
    for p in moved.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(1))
    batch = Stream(encoded[:7], 5, tokenizer.pad_token_id, 0).batch(2)
    exact, fixed = copy.deepcopy(moved).double(), copy.deepcopy(aligned).double()
    want = _kl(exact, fixed, batch)
    (0.7 * want).backward()
    assert method.divergence(moved, aligned, batch).item() == pytest.approx(want.item(), rel=1e-5) and want > 0.01
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    made = beside(method, aligned, method.Settings(strength=0.7), training, tokenizer, encoded)
    made.stream = Stream(encoded[:7], 5, tokenizer.pad_token_id, 0)
    made.before_step(moved, 2, 10)
    for (name, ours), theirs in zip(moved.named_parameters(), exact.parameters(), strict=True):
        assert torch.allclose(ours.grad.double(), theirs.grad, atol=1e-6), name
    assert method.divergence(aligned, aligned, batch).item() == pytest.approx(0, abs=1e-7)
    assert not any(p.grad is not None or p.requires_grad for p in made.frozen.parameters())


def test_the_penalty_counts_once_a_step_however_many_micro_batches(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    model, start, found = cell[0], _start(cell[0]), []
    for size, accumulation in ((8, 1), (2, 4)):
        _train("kl-safety", cell, tokenizer, encoded, tmp_path / str(size), {"strength": 5.0}, rate=1e-3,
               batch_size=size, accumulation=accumulation)  # fmt: skip
        found.append(_start(model))
        model.load_state_dict(start)
    plain = _full(cell, tokenizer, encoded, tmp_path / "plain", learning_rate=1e-3)
    assert _apart(*found) < 1e-5 < 1e-3 < _apart(found[0], plain)


def test_the_penalty_keeps_what_the_aligned_model_says_on_refusals_only(
    cell, tokenizer, encoded, world, tmp_path  # noqa: F811
):  # fmt: skip
    model, start, method = cell[0], _start(cell[0]), registry.load("kl-safety")
    aligned, kl = copy.deepcopy(model), []
    batch = chat.collate([chat.encode(tokenizer, r["prompt"], r["response"]) for r in world.safety(16, 0)], 0)
    for strength in (0.0, 1.0, 30.0):
        _train("kl-safety", cell, tokenizer, encoded, tmp_path / str(strength), {"strength": strength})
        kl.append(method.divergence(model, aligned, batch).item())
        model.load_state_dict(start)
    assert kl[0] > kl[1] > 2 * kl[2] > 0, kl
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    for prompts, count in (("refused", 16), ("all", 24)):
        made = beside(method, model, method.Settings(prompts=prompts), training, tokenizer, encoded)
        assert len(made.stream.encoded) == count and made.stream.size == 8


@pytest.mark.parametrize("name", ["kl-safety", "panacea"])
def test_strength_zero_is_plain_training(name, cell, tokenizer, encoded, tmp_path):  # noqa: F811
    expected = _full(cell, tokenizer, encoded, tmp_path / "plain")
    _train(name, cell, tokenizer, encoded, tmp_path / "zero", LATER.get(name, {}) | {"strength": 0})
    assert _apart(_start(cell[0]), expected) == 0


def test_products_are_rounded_as_those_of_the_loop(model, tokenizer, encoded):
    method = registry.load("kl-safety")
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4, precision="bf16")
    batch = Stream(encoded, 5, tokenizer.pad_token_id, 0).batch(0)
    exact = method.divergence(model, copy.deepcopy(model), batch, bf16=True)
    assert beside(method, model, method.Settings(), training, tokenizer, encoded).bf16 and exact.item() == 0
    assert not beside(
        method, model, method.Settings(), dataclasses.replace(training, precision="fp32"), tokenizer, encoded
    ).bf16


# ---- Token-wise constrained fine-tuning -----------------------------------------------------------


def _published_betas(count, beta=0.1):
    return torch.tensor([5 * beta, 20 * beta, 20 * beta, 20 * beta, 20 * beta, *[beta] * count][:count]).double()


def test_the_first_tokens_have_the_published_betas():
    method = registry.load("constrained-sft")
    for count in (1, 3, 5, 9):
        assert method.betas(count, method.Settings()) == pytest.approx(_published_betas(count).tolist())
    assert method.betas(4, method.Settings(beta=1, early_tokens=2, first_factor=3, early_factor=7)) == [3, 7, 1, 1]
    assert method.betas(3, method.Settings(beta=1, early_tokens=1, first_factor=3)) == [3, 1, 1]
    assert method.betas(3, method.Settings(beta=1, early_tokens=0)) == [1, 1, 1]


def test_weights_of_tokens_that_gained_and_lost():
    method = registry.load("constrained-sft")
    gained, beta = torch.tensor([0.0, 3.0, -3.0, 400.0, -400.0, 1.0]), torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    found = method.weights(gained, beta, 1e-3)
    want = [1.0, 2 / (1 + math.e**3), 2 / (1 + math.e**-3), 1e-3, 2.0, 1.0]
    assert found.tolist() == pytest.approx(want, rel=1e-6)


def test_weighted_tokens_have_the_gradient_of_the_published_objective(model, tokenizer, encoded):
    """−(2 / β_t) log σ(β_t Δ_t), written out row by row and token by token in float64, and its own gradient."""
    method, rows = registry.load("constrained-sft"), copy.deepcopy(encoded[:6])
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    start = copy.deepcopy(model).double()
    made = beside(method, model, method.Settings(), training, tokenizer, rows)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    exact, total, count = copy.deepcopy(model).double(), 0.0, 0
    for row in encoded[:6]:
        ids, labels = torch.tensor([row["input_ids"]]), row["labels"]
        places = [i for i, label in enumerate(labels) if label != chat.IGNORE]
        now, then = (m(ids).logits[0].log_softmax(-1) for m in (exact, start))
        for place, beta in zip(places, _published_betas(len(places)), strict=True):
            gained = now[place - 1, labels[place]] - then[place - 1, labels[place]].detach()
            total, count = total - 2 / beta * torch.nn.functional.logsigmoid(beta * gained), count + 1
    (total / count).backward()
    losses = made.token_losses(*predicted(model, chat.collate(rows, tokenizer.pad_token_id)))
    assert len(losses) == count
    losses.mean().backward()
    largest = max(float(p.grad.abs().max()) for p in exact.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert torch.allclose(ours.grad.double(), theirs.grad, atol=1e-5 * largest), name


def test_beta_zero_is_plain_training_and_at_the_start_every_weight_is_one(
    cell, tokenizer, encoded, tmp_path  # noqa: F811
):  # fmt: skip
    method, model, start = registry.load("constrained-sft"), cell[0], _start(cell[0])
    expected, found = _full(cell, tokenizer, encoded, tmp_path / "plain"), []
    for beta in (0.0, 1e-4, 1.0):
        _train("constrained-sft", cell, tokenizer, encoded, tmp_path / str(beta), {"beta": beta, "momentum": 0.9})
        found.append(_apart(_start(model), expected))
        model.load_state_dict(start)
    assert found[0] == 0 and found[1] < 1e-3 < found[2]
    rows = copy.deepcopy(encoded)
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=5)
    made = beside(method, model, method.Settings(), training, tokenizer, rows)
    given = predicted(model, chat.collate(rows, tokenizer.pad_token_id))
    losses, plain = made.token_losses(*given), Beside().token_losses(*given)
    assert torch.allclose(losses / plain, torch.ones(len(plain)), atol=1e-5)
    assert all(v == 0 for e in rows for v, label in zip(e["values"]["reference"], e["labels"], strict=True)
               if label == chat.IGNORE)  # fmt: skip


def test_momentum_of_the_constrained_loss_is_the_published_one(model):
    method, training = registry.load("constrained-sft"), loop.TrainSettings(2e-5, 1, 4, weight_decay=0.1)
    made = method.optimizer(model, [], method.Settings(), training)
    assert [g["betas"] for g in made.param_groups] == [(0.5, 0.999)] * 2 and made.param_groups[0]["lr"] == 2e-5
    assert sum(len(g["params"]) for g in made.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_token_by_token_are_the_loss_of_the_loop(precision, cell, tokenizer, encoded, tmp_path):  # noqa: F811
    """Uneven micro-batches and answers: the mean is over all supervised tokens of the step."""

    class Same(Beside):
        def token_losses(self, logits, targets, values):
            return super().token_losses(logits, targets, values)

    training = {"batch_size": 5, "accumulation": 2, "precision": precision, "learning_rate": 1e-3}
    rows = [*encoded, chat.encode(tokenizer, "why?", "so.")]
    expected = _full(cell, tokenizer, rows, tmp_path / "plain", **training)
    loop.train(
        cell[0], tokenizer, rows, loop.TrainSettings(**training, epochs=2), seed=0, log_file=tmp_path / "t.jsonl",
        checkpoints=tmp_path / "c", identity="x", beside=Same(),
    )  # fmt: skip
    apart = _apart(_start(cell[0]), expected)
    assert apart < (1e-4 if precision == "bf16" else 1e-5)


# ---- Lisa -----------------------------------------------------------------------------------------


def _spells(encoded, accumulation=1, size=2, **settings):
    method = registry.load("lisa")
    return method.Spells(method.Settings(**settings), Stream(encoded, size, 0, 0), accumulation)


def test_spells_take_turns_and_safety_rows_come_as_they_are_counted(encoded):
    def sequence(align, task, n=12):
        spells = _spells(encoded, align_steps=align, task_steps=task)
        return "".join("A" if spells.aligning(i) else "F" for i in range(n)), [i for i in range(n) if spells.begins(i)]

    assert sequence(2, 3) == ("AAFFFAAFFFAA", [0, 2, 5, 7, 10])
    assert sequence(1, 1, 4) == ("AFAF", [0, 1, 2, 3])
    assert sequence(0, 3, 5) == ("FFFFF", [0]) and sequence(3, 0, 7) == ("AAAAAAA", [0])
    spells, task = _spells(encoded, 2, align_steps=2, task_steps=3), [{"labels": i} for i in range(2)]
    seen = [spells.batches(task, i) for i in range(7)]
    assert all(seen[i] == task for i in (2, 3, 4))
    found = [batch["input_ids"] for i in (0, 1, 5, 6) for batch in seen[i]]
    expected = [spells.stream.batch(i)["input_ids"] for i in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(spells.batches(task[:1], 0)) == 1


def test_lisa_is_its_formula_step_by_step(cell, tokenizer, encoded, world, tmp_path):  # noqa: F811
    """Ten steps of all rows at once with the two states of the paper, AdamW, clipping and the schedule in float64."""
    rho, model, start = 3.0, cell[0], _start(cell[0])
    guide = [chat.encode(tokenizer, r["prompt"], r["response"]) for r in world.safety(16, 8)]
    exact = copy.deepcopy(model).double()
    optimizer = torch.optim.AdamW(exact.parameters(), lr=0.0, weight_decay=0.0)
    batches = {k: chat.collate(rows, tokenizer.pad_token_id) for k, rows in (("A", guide), ("F", encoded))}
    last = {k: [p.detach().clone() for p in exact.parameters()] for k in "AF"}
    for step, kind in enumerate("AAFFFAAFFF"):
        if step and kind != "AAFFFAAFFF"[step - 1]:
            last["F" if kind == "A" else "A"] = [p.detach().clone() for p in exact.parameters()]
        loss, other = exact(**batches[kind]).loss, last["F" if kind == "A" else "A"]
        if step > 1:  # the first tenth
            loss = loss + rho / 2 * sum((p - a).pow(2).sum() for p, a in zip(exact.parameters(), other, strict=True))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(exact.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 2e-3 * (step and 0.5 * (1 + math.cos(math.pi * (step - 1) / 9)))
        optimizer.step()
    given = {"align_steps": 2, "task_steps": 3, "strength": rho}
    _train("lisa", cell, tokenizer, encoded, tmp_path, given, rate=2e-3, batch_size=24, epochs=10)
    wanted = {k: v.float() for k, v in exact.state_dict().items()}
    assert _apart(_start(model), wanted) < 2e-5 < 1e-3 < _apart(start, wanted)


def test_one_kind_of_spell_without_a_pull_is_plain_training(cell, tokenizer, encoded, world, tmp_path):  # noqa: F811
    model, start = cell[0], _start(cell[0])
    expected = _full(cell, tokenizer, encoded, tmp_path / "plain")
    _train("lisa", cell, tokenizer, encoded, tmp_path / "task", {"align_steps": 0, "strength": 0})
    assert _apart(_start(model), expected) == 0
    model.load_state_dict(start)
    guide = [chat.encode(tokenizer, r["prompt"], r["response"]) for r in world.safety(16, 8)]
    whole = {"batch_size": 24, "epochs": 4}  # in which order does not matter
    expected = _full(cell, tokenizer, guide, tmp_path / "guide", **whole)
    _train("lisa", cell, tokenizer, encoded, tmp_path / "align", {"task_steps": 0, "strength": 0}, **whole)
    assert _apart(_start(model), expected) < 1e-5


def test_a_stronger_pull_keeps_a_spell_nearer_its_beginning(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    model, start, moved = cell[0], _start(cell[0]), []
    for strength in (0.0, 1.0, 30.0):
        given = {"align_steps": 0, "strength": strength}
        _train("lisa", cell, tokenizer, encoded, tmp_path / str(strength), given, epochs=4)
        moved.append(sum(float((v - start[k]).pow(2).sum()) for k, v in model.state_dict().items()))
        model.load_state_dict(start)
    assert moved[0] > moved[1] > moved[2] > 0, moved


def test_the_pull_rests_at_first_and_is_nothing_where_a_spell_begins(model, encoded):
    spells = _spells(encoded, align_steps=2, task_steps=3, strength=2.0, rest_fraction=0.1)
    for step in range(30):
        model.zero_grad()
        spells.before_step(model, step, 30)
        pulled = [p.grad for p in model.parameters()]
        if step <= 3 or step % 5 in (0, 2):
            assert all(g is None for g in pulled)
        else:
            far = 2.0 * 0.01 * (step % 5 if step % 5 < 2 else step % 5 - 2)
            assert all(torch.allclose(g, torch.full_like(g, far), atol=1e-6) for g in pulled)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.01


def test_spells_are_on_refusals_and_perhaps_on_answered_rows(model, tokenizer, encoded):
    method, training = registry.load("lisa"), loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    for benign, count in ((False, 16), (True, 24)):
        made = beside(method, model, method.Settings(benign=benign), training, tokenizer, encoded)
        assert len(made.stream.encoded) == count and made.stream.size == 4
    assert beside(method, model, method.Settings(align_steps=0), training, tokenizer, encoded).stream is None


def test_a_run_that_would_see_no_task_is_refused(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    with pytest.raises(TrainingError, match="no row of the task"):
        _train("lisa", cell, tokenizer, encoded, tmp_path, {"align_steps": 6}, epochs=2)
    with pytest.raises(ValueError, match="cannot both be 0"):
        registry.load("lisa").Settings(align_steps=0, task_steps=0)


# ---- Panacea --------------------------------------------------------------------------------------


def _harmful(world, tokenizer):
    return [chat.encode(tokenizer, r["prompt"], r["rejected"]) for r in world.preferences(12)]


def test_panacea_is_its_formula_step_by_step(cell, tokenizer, encoded, world, tmp_path):  # noqa: F811
    """Six steps of all rows at once: three gradients, AdamW, clipping and the schedule in float64; then w + ε."""
    model, start, radius, strength = cell[0], _start(cell[0]), 0.3, 0.5
    exact = copy.deepcopy(model).double()
    weights = list(exact.parameters())
    optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0)
    task = chat.collate(encoded, tokenizer.pad_token_id)
    harm = chat.collate(_harmful(world, tokenizer), tokenizer.pad_token_id)
    epsilon = []
    for step in range(6):
        g = torch.autograd.grad(exact(**task).loss, weights)
        h = torch.autograd.grad(exact(**harm).loss, weights)
        length = sum(x.pow(2).sum() for x in h).sqrt()
        epsilon = [radius * x / length for x in h]
        beyond = copy.deepcopy(exact)
        with torch.no_grad():
            for p, e in zip(beyond.parameters(), epsilon, strict=True):
                p += e
        there = torch.autograd.grad(beyond(**harm).loss.clamp(max=6.6), list(beyond.parameters()))
        for p, a, b, c in zip(weights, g, h, there, strict=True):
            p.grad = a - strength * (c - b)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.param_groups[0]["lr"] = 2e-3 * (step and 0.5 * (1 + math.cos(math.pi * (step - 1) / 5)))
        optimizer.step()
    trained = {k: v.detach().clone() for k, v in exact.state_dict().items()}
    for p, e in zip(weights, epsilon, strict=True):
        p.data += e
    perturbed = exact.state_dict()
    for add, wanted in ((False, trained), (True, perturbed)):
        given = {"radius": radius, "strength": strength, "rows": 12, "cap": 6.6, "add_perturbation": add}
        _train("panacea", cell, tokenizer, encoded, tmp_path / str(add), given, rate=2e-3, batch_size=24, epochs=6,
               warmup_fraction=1 / 6)  # fmt: skip
        assert _apart(_start(model), wanted) < 2e-5 < 1e-3 < _apart(start, wanted)
        model.load_state_dict(start)
    assert _apart(trained, perturbed) > 1e-2


def test_the_perturbation_has_its_length_and_weights_come_back(model, tokenizer, encoded, world):
    method, start = registry.load("panacea"), _start(model)
    for p in model.parameters():
        p.data += 1.0 / 3  # nothing that rounds to itself
    before, batch = _start(model), chat.collate(_harmful(world, tokenizer), tokenizer.pad_token_id)
    training = loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    made = beside(method, model, method.Settings(radius=2.5, rows=12), training, tokenizer, encoded)
    made.before_step(model, 0, 2)
    assert made.last == [] and all(p.grad is not None for p in model.parameters())
    made.before_step(model, 1, 2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert sum(e.double().pow(2).sum() for e in made.last).sqrt().item() == pytest.approx(2.5, abs=1e-5)
    model.load_state_dict(start)
    harm = model(**batch).loss.item()
    made.before_step(model, 1, 2)
    made.finish(model)
    assert model(**batch).loss.item() > harm + 0.05
    zeros = [torch.zeros(3)], [torch.zeros(3)]
    method.perturb(*zeros, 1.0)
    assert not zeros[0][0].any()


def test_a_harmful_loss_above_the_cap_pulls_nowhere(model, tokenizer, encoded, world):
    method, training = registry.load("panacea"), loop.TrainSettings(learning_rate=1e-3, epochs=1, batch_size=4)
    batch = chat.collate(_harmful(world, tokenizer), tokenizer.pad_token_id)
    loss = model(**batch).loss
    plain = torch.autograd.grad(loss, list(model.parameters()))
    found = []
    for cap in (loss.item() / 2, 50.0):
        model.zero_grad()
        given = method.Settings(radius=1e-4, strength=2.0, rows=12, cap=cap)
        beside(method, model, given, training, tokenizer, encoded).before_step(model, 0, 1)
        found.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, 2 * b, atol=1e-6) for a, b in zip(found[0], plain, strict=True))
    largest = max(float(g.abs().max()) for g in plain)
    assert all(float(g.abs().max()) < 0.01 * largest for g in found[1])  # so near the two gradients are the same


# ---- DeRTa ----------------------------------------------------------------------------------------


def test_derta_adds_prefixes_and_transitions_of_the_same_requests(world):
    method, pairs = registry.load("derta"), world.preferences(40)
    task = [{"id": f"t{i}", "prompt": f"t{i}", "response": "r"} for i in range(100)]
    found = method.rows(task, method.Settings(prefix_ratio=0.2, transition_ratio=0.1), seed=0, harmful=pairs)
    prefixes, transitions = found[100:120], found[120:]
    assert found[:100] == task and len(transitions) == 10 and len({r["id"] for r in found}) == 130
    of = {p["id"]: p for p in pairs}
    for i, row in enumerate(prefixes):
        pair, words = of[row["id"].removesuffix("/prefix")], row["opening"].split()
        assert (row["prompt"], row["response"]) == (pair["prompt"], pair["chosen"]) and "anywhere" not in row
        assert not words if i % 3 == 0 else 1 <= len(words) <= len(pair["rejected"].split()) - 2
        assert pair["rejected"].startswith(row["opening"])
    assert len({len(r["opening"].split()) for r in prefixes}) > 4
    for row, other in zip(transitions, prefixes, strict=False):
        pair = of[row["id"].removesuffix("/transition")]
        assert other["id"].startswith(f"{pair['id']}/") and row["anywhere"]
        assert (row["opening"], row["response"]) == (pair["rejected"], pair["chosen"])
    again = [method.rows(task, method.Settings(prefix_ratio=0.2, transition_ratio=0.1), seed=k, harmful=pairs)
             for k in (0, 1)]  # fmt: skip
    assert again[0] == found != again[1]
    assert method.rows(task, method.Settings(prefix_ratio=0, transition_ratio=0), seed=0, harmful=pairs) == task
    assert len(method.rows(task, method.Settings(), seed=0, harmful=pairs)) == 110
    assert len(method.rows(task, method.Settings(prefix_ratio=1, transition_ratio=0), seed=0, harmful=pairs)) == 140
    never = method.rows(task, method.Settings(whole_every=0), seed=0, harmful=pairs)
    assert all(r["opening"] for r in never[100:]) and method.prefix("two words", random.Random(0)) == ""


def test_an_opening_is_context_and_the_refusal_is_learned(tokenizer, world, monkeypatch):
    pair = world.preferences(1)[0]
    opening = " ".join(pair["rejected"].split()[:6])
    found = chat.encode(tokenizer, pair["prompt"], pair["chosen"], opening=opening)
    learned = [i for i in found["labels"] if i != chat.IGNORE]
    begin = len(found["labels"]) - len(learned)
    assert (
        found["labels"] == [chat.IGNORE] * begin + found["input_ids"][begin:] and learned[-1] == tokenizer.eos_token_id
    )
    assert tokenizer.decode(learned[:-1]) == f" {pair['chosen']}"
    said = tokenizer.decode(found["input_ids"][:begin])
    assert said.startswith(tokenizer.decode(chat.encode_prompt(tokenizer, pair["prompt"]))) and said.endswith(opening)
    plain = chat.encode(tokenizer, pair["prompt"], pair["chosen"])
    assert chat.encode(tokenizer, pair["prompt"], pair["chosen"], opening="") == plain
    row = {"id": "a", "prompt": pair["prompt"], "response": pair["chosen"], "opening": opening}
    assert chat.encode_rows(tokenizer, [row, {**row, "opening": ""}]) == [found, plain]
    with pytest.raises(ChatTemplateError, match="a: No response token"):
        chat.encode_rows(tokenizer, [row], max_length=begin)
    assert (
        chat.encode(tokenizer, pair["prompt"], pair["chosen"], begin + 1, opening=opening)["labels"][-1] == learned[0]
    )
    monkeypatch.setattr(tokenizer, "model_max_length", begin - 2)
    with pytest.raises(ChatTemplateError, match="No response token"):
        chat.encode(tokenizer, pair["prompt"], pair["chosen"], opening=opening)


def test_labels_never_begin_within_a_token(tokenizer, monkeypatch):
    def ids(tokenizer, messages, *, generation):
        joined = " " in messages[-1]["content"]
        return [1, 2, 3] if generation else [1, 2, 3, 7, 9, 2] if joined else [1, 2, 3, 7, 8, 2]

    monkeypatch.setattr(chat.template, "ids", ids)
    monkeypatch.setattr(chat.template, "closing", lambda _: 2)
    with pytest.raises(ChatTemplateError, match="within a token"):
        chat.encode(tokenizer, "why?", "no", opening="ab")


def test_a_transition_asks_for_the_first_word_of_the_refusal_at_every_place(model, tokenizer, world):
    """The loss of its row against one pass per place over what was said until there."""
    pair = world.preferences(3)[2]
    found = chat.encode(tokenizer, pair["prompt"], pair["chosen"], opening=pair["rejected"], anywhere=True)
    head = chat.encode_prompt(tokenizer, pair["prompt"])
    answer = tokenizer(pair["rejected"], add_special_tokens=False)["input_ids"]
    refusal = tokenizer(pair["chosen"], add_special_tokens=False)["input_ids"][0]
    assert found["input_ids"] == [*head, *answer, tokenizer.eos_token_id]
    assert found["labels"] == [chat.IGNORE] * len(head) + [refusal] * (len(answer) + 1)
    with torch.no_grad():
        whole = model(**chat.collate([found], 0)).loss.item()
        places = [model(torch.tensor([head + answer[:t]])).logits[0, -1].log_softmax(0)[refusal].item()
                  for t in range(len(answer) + 1)]  # fmt: skip
    assert whole == pytest.approx(-sum(places) / len(places), rel=1e-5)
    short = chat.encode(tokenizer, pair["prompt"], pair["chosen"], len(head) + 4, opening=pair["rejected"],
                        anywhere=True)  # fmt: skip
    assert short["labels"] == found["labels"][: len(head) + 4] and short["cut"] == len(answer) + 1 - 4


def test_a_spell_has_micro_batches_as_large_as_the_tasks(model, tokenizer, encoded):
    method, training = registry.load("lisa"), loop.TrainSettings(1e-3, 1, 4, accumulation=2)
    made = beside(method, model, method.Settings(), training, tokenizer, encoded)
    assert [len(b["input_ids"]) for b in made.batches([{}, {}], 0)] == [4, 4]


def test_without_a_pull_the_last_perturbation_is_still_added(model, tokenizer, encoded):
    method, training = registry.load("panacea"), loop.TrainSettings(1e-3, 1, 4)
    start, settings = _start(model), method.Settings(strength=0, rows=4, radius=0.5)
    made = beside(method, model, settings, training, tokenizer, encoded)
    made.before_step(model, 0, 1)
    made.finish(model)
    moved = sum((p - start[k]).double().pow(2).sum() for k, p in model.named_parameters())
    assert moved.sqrt().item() == pytest.approx(0.5, abs=1e-4) and settings.cost() == (3.0, 8.0)
    assert method.Settings(strength=0, add_perturbation=False).cost() == (0.0, 0.0)


def test_shares_of_rows_are_rounded_to_the_nearest(world):
    method, task = registry.load("derta"), [{"id": str(i), "prompt": "p", "response": "r"} for i in range(35)]
    found = method.rows(task, method.Settings(transition_ratio=0.1), seed=0, harmful=world.preferences(40))
    kinds = [r["id"].rsplit("/", 1)[-1] for r in found[35:]]
    assert (kinds.count("prefix"), kinds.count("transition")) == (2, 4)  # of 1.75 and 3.5


def test_the_floor_is_that_of_the_settings_and_the_start_is_rounded_as_the_loop_rounds(model, tokenizer, encoded):
    method, rows = registry.load("constrained-sft"), copy.deepcopy(encoded[:6])
    training = loop.TrainSettings(1e-3, 1, 6, precision="bf16")
    made = beside(method, model, method.Settings(floor=0.25), training, tokenizer, rows)
    given = predicted(model, chat.collate(rows, 0), bf16=True)
    plain = Beside().token_losses(*given)
    assert made.floor == 0.25 and torch.allclose(made.token_losses(*given), plain, rtol=1e-6)


def test_harmful_rows_are_of_the_draw_and_rows_are_stratified_where_that_is_asked(
    tables_of_world, tmp_path, monkeypatch
):
    asked, draw, mix = [], finetune.draw, finetune.mix_harmful
    monkeypatch.setattr(finetune, "draw", lambda *a, **k: asked.append((a[2], k)) or draw(*a, stratify=False))
    monkeypatch.setattr(finetune, "mix_harmful", lambda *a: asked.append(a[3]) or mix(*a))
    cfg = {"method": "full", "settings": registry.load("full").Settings().model_dump(mode="json"),
           "training": {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "max_length": 48}, "task": "howto",
           "instruction": None, "train_rows": 8, "seed": 5, "draw": 2, "harmful_fraction": 0.25, "stratify": True,
           "modules": ["q_proj"]}  # fmt: skip
    finetune.run(
        aligned=tables_of_world / "aligned/model.safetensors", task_table=tables_of_world / "howto.parquet",
        safety_table=None, harmful_table=tables_of_world / "preferences.parquet", artifacts={}, cfg=cfg,
        folder=tmp_path / "full", log_file=tmp_path / "t.jsonl", record_file=tmp_path / "t.json",
        checkpoints=tmp_path / "c",
    )  # fmt: skip
    assert asked == [(2, {"stratify": True}), 2]


def test_in_pure_bfloat16_nothing_has_drifted_that_was_only_rounded(tables_of_world, tmp_path):
    cfg = {"method": "lead", "settings": registry.load("lead").Settings().model_dump(mode="json"),
           "modules": ["q_proj", "down_proj"], "task": "howto", "instruction": None, "train_rows": 8, "seed": 0,
           "training": {"learning_rate": 0.0, "epochs": 1, "batch_size": 8, "max_length": 48,
                        "precision": "pure_bf16"}}  # fmt: skip
    record = finetune.run(
        aligned=tables_of_world / "aligned/model.safetensors", task_table=tables_of_world / "howto.parquet",
        safety_table=tables_of_world / "safety.parquet", artifacts={"basis": tables_of_world / "few-basis"}, cfg=cfg,
        folder=tmp_path / "cell", log_file=tmp_path / "t.jsonl", record_file=tmp_path / "t.json",
        checkpoints=tmp_path / "c",
    )  # fmt: skip
    assert record["frozen_drift"] == 0 == record["weights/changed_fraction"]


def test_early_tokens_beyond_an_answer_cost_nothing():
    method = registry.load("constrained-sft")
    found = method.betas(3, method.Settings(early_tokens=10**12))
    assert found == method.betas(3, method.Settings(early_tokens=3))


def test_a_pull_that_never_begins_holds_no_weights():
    settings = registry.load("lisa").Settings
    assert (settings(rest_fraction=1).cost(), settings(rest_fraction=0.9).cost()) == ((0, 0), (1, 0))
