"""The training loop: same seed same bytes, killed and resumed the same bytes, one answer per prompt."""

from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from holdfast.errors import TrainingError
from holdfast.evaluate import answers
from holdfast.model import chat, folders, layers, machine
from holdfast.record import container
from holdfast.train import loop, progress
from holdfast.train.beside import Beside
from holdfast.warp.basis import random_orthogonal
from holdfast.warp.optimizer import RotatedAdamW, Rotation

SETTINGS = loop.TrainSettings(learning_rate=3e-3, epochs=3, batch_size=4, log_every_steps=2)


def _optimizer(model, kind):
    if kind == "adamw":
        return None
    targets = layers.resolve(model, ("q_proj", "up_proj"))
    loop.restrict(model, targets, "all")
    rotations = {
        x.module.weight: Rotation(
            random_orthogonal(x.module.weight.shape[1], 0), torch.zeros_like(x.module.weight, dtype=torch.bool)
        )
        for x in targets
    }
    return RotatedAdamW(model.parameters(), rotations, lr=SETTINGS.learning_rate, max_grad_norm=1.0)


def _run(model, tokenizer, encoded, folder, kind, settings=SETTINGS, **more):
    optimizer = _optimizer(model, kind)
    return loop.train(
        model,
        tokenizer,
        encoded,
        settings,
        seed=1,
        log_file=folder / "train.jsonl",
        checkpoints=folder / "checkpoints",
        identity="a",
        optimizer=optimizer,
        clips_itself=optimizer is not None,
        **more,
    )


def test_training_returns_the_blocks_of_a_large_model(model, tokenizer, encoded, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(machine, "return_blocks", asked.append)
    monkeypatch.setattr(machine, "return_freed", lambda: asked.append("freed"))
    _run(model, tokenizer, encoded[:4], tmp_path, "adamw")
    assert asked == [model, "freed"]


@pytest.mark.parametrize(("kind", "more"), [
    ("adamw", {}), ("rotated", {}), ("adamw", {"alike": True}),
    ("adamw", {"by_length": True, "batch_size": 2, "accumulation": 2}),
])  # fmt: skip
def test_killed_and_resumed_is_the_same_as_uninterrupted(kind, more, model, tokenizer, encoded, tmp_path):
    settings = dataclasses.replace(SETTINGS, **more)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    whole = tmp_path / "whole"
    result = _run(model, tokenizer, encoded, whole, kind, settings)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    assert result["steps"] == 18
    model.load_state_dict(start)

    class Killed(BaseException):
        pass

    steps = []

    def kill(_):
        steps.append(1)
        if len(steps) == 11:
            raise Killed

    eager = dataclasses.replace(settings, checkpoint_seconds=0.0)
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        _run(model, tokenizer, encoded, broken, kind, eager, after_step=kill)
    assert list((broken / "checkpoints").glob("checkpoint-*")) and not (broken / "train.jsonl").exists()
    (state,) = (broken / "checkpoints").glob("checkpoint-*/trainer_state.json")
    earlier = json.loads(state.read_text())["log_history"][-1]["seconds"]
    model.load_state_dict(start)
    lines = []
    again = _run(model, tokenizer, encoded, broken, kind, settings, say=lines.append)
    assert any("resuming from checkpoint-" in x for x in lines)
    # What it took before it was killed is part of what it took.
    assert again["seconds"] > again["earlier_seconds"] == earlier > 0 == result["earlier_seconds"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    one, two = ([json.loads(x) for x in (d / "train.jsonl").read_text().splitlines()] for d in (whole, broken))
    assert [(r["step"], r["loss"]) for r in one] == [(r["step"], r["loss"]) for r in two]
    assert not (broken / "checkpoints").exists()


def test_rows_of_one_length_share_a_batch_where_that_is_asked(model, tokenizer, encoded, tmp_path, monkeypatch):
    """Among all rows (`alike`), or among those of a step (`by_length`), whose rows and result are then the same."""
    collate, batches, start = chat.collate, [], {k: v.clone() for k, v in model.state_dict().items()}

    def counted(rows, pad_id):
        batches[-1].append([tuple(r["input_ids"]) for r in rows])
        return collate(rows, pad_id)

    monkeypatch.setattr(chat, "collate", counted)
    ended = []
    for more in ({}, {"by_length": True}, {"alike": True}):
        batches.append([])
        model.load_state_dict(start)
        settings = dataclasses.replace(SETTINGS, epochs=2, batch_size=2, accumulation=4, **more)
        _run(model, tokenizer, encoded * 6, tmp_path / "-".join(more), "adamw", settings)  # of fewer there is no choice
        ended.append({k: v.clone() for k, v in model.state_dict().items()})
    padding = [sum(len(b) * max(map(len, b)) - sum(map(len, b)) for b in run) for run in batches]
    assert padding[1] < 0.75 * padding[0] and padding[2] < padding[0] / 2
    steps = [[sorted(sum(run[i : i + 4], [])) for i in range(0, len(run), 4)] for run in batches]
    assert steps[1] == steps[0] != steps[2] and batches[1] != batches[0]
    for key, value in ended[1].items():
        assert (value - ended[0][key]).abs().max() < 1e-5 < (value - start[key]).abs().max() + 1e-9, key


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_loop_equals_plain_torch(model, tokenizer, encoded, tmp_path, schedule):
    """Five full-batch steps against AdamW, clipping and the schedules written out here."""
    import copy
    import math

    from holdfast.model import chat

    plain = copy.deepcopy(model)
    settings = loop.TrainSettings(learning_rate=2e-3, epochs=5, batch_size=len(encoded), warmup_fraction=0.2,
                                      schedule=schedule)  # fmt: skip
    loop.train(
        model, tokenizer, encoded, settings, seed=0, log_file=tmp_path / "t.jsonl", checkpoints=tmp_path / "c",
        identity="x",
    )  # fmt: skip
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.0, weight_decay=0.0)
    batch = chat.collate(encoded, tokenizer.pad_token_id)
    for step in range(5):
        done = (step - 1) / 4
        falling = 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done
        optimizer.param_groups[0]["lr"] = 2e-3 * (step if step < 1 else falling)
        optimizer.zero_grad()
        plain(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        # Adam's quotient makes of a gradient near its eps what its last bits say, which differ between processors.
        assert torch.allclose(ours, theirs, atol=1e-5), name


@pytest.mark.parametrize("kind", ["adamw", "rotated"])
def test_forgotten_activations_change_nothing(kind, model, tokenizer, encoded, tmp_path):
    start = {k: v.clone() for k, v in model.state_dict().items()}
    short = dataclasses.replace(SETTINGS, epochs=1)
    _run(model, tokenizer, encoded, tmp_path / "kept", kind, short)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(start)
    _run(model, tokenizer, encoded, tmp_path / "again", kind, dataclasses.replace(short, activation_checkpointing=True))
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_bfloat16_products_leave_float32_masters(model, tokenizer, encoded, tmp_path):
    start, other = model.state_dict(), copy.deepcopy(model)
    start = {k: v.clone() for k, v in start.items()}
    small = dataclasses.replace(SETTINGS, learning_rate=1e-6, precision="bf16")
    _run(model, tokenizer, encoded, tmp_path / "bf16", "adamw", small)
    after = model.state_dict()
    assert {v.dtype for v in after.values()} == {torch.float32}
    assert folders.changed_fraction(start, after)["q_proj"] > 0.99
    _run(other, tokenizer, encoded, tmp_path / "fp32", "adamw", dataclasses.replace(small, precision="fp32"))
    assert folders.changed_fraction(other.state_dict(), after)["q_proj"] > 0.1  # the products were rounded


def test_pure_bfloat16_loses_small_updates(model, tokenizer, encoded, tmp_path):
    folders.save(model, tokenizer, tmp_path / "start", header={})
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-6, precision="pure_bf16")
    assert loop.weights_type(settings) == "bfloat16" and loop.weights_type(SETTINGS) == "float32"
    rounded, _ = folders.load(tmp_path / "start", dtype=loop.weights_type(settings))
    _run(rounded, tokenizer, encoded, tmp_path, "adamw", settings)
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    before = container.Stored(tmp_path / "start" / "model.safetensors", rounded="bfloat16")
    changed = folders.changed_fraction(before, rounded.float().state_dict())
    assert changed["q_proj"] < 0.1


@pytest.mark.parametrize("wrapped", [False, True])
def test_logits_only_where_supervised_change_no_gradient(model, tokenizer, encoded, wrapped):
    """Loss and gradients in float64 with and without the other positions' logits; an adapter around too."""
    from peft import LoraConfig, get_peft_model

    model = model.double()
    if wrapped:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    batch = chat.collate(encoded, tokenizer.pad_token_id)
    smaller = folders.supervised(model, batch)
    assert smaller["logits_to_keep"].sum() == (batch["labels"] != chat.IGNORE).sum()
    seen = []
    for inputs in (batch, smaller):
        model.zero_grad()
        out = model(**inputs)
        out.loss.backward()
        seen.append((out.logits.numel(), out.loss, [p.grad for p in model.parameters() if p.grad is not None]))
    (full, loss, gradients), (less, same_loss, same_gradients) = seen
    assert less < full
    torch.testing.assert_close(loss, same_loss)
    torch.testing.assert_close(gradients, same_gradients)


def test_a_model_that_cannot_leave_logits_out_gets_the_batch_itself(encoded, tokenizer):
    class Other(torch.nn.Module):
        def forward(self, input_ids, attention_mask, labels): ...

    batch = chat.collate(encoded[:2], tokenizer.pad_token_id)
    assert folders.supervised(Other(), batch) is batch


def test_checkpoints_that_take_long_are_written_seldom(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    log = progress.Log(tmp_path / "t.jsonl", 15, lambda _: None, "x", None)
    state, written = SimpleNamespace(global_step=1, max_steps=10**9), []
    while clock[0] < 20_000:
        clock[0] += 1
        control = SimpleNamespace(should_save=False, should_log=False)
        log.on_step_end(SimpleNamespace(logging_steps=1), state, control)
        if control.should_save:
            written.append(clock[0])
            clock[0] += 60  # a large model
            log.on_save(None, state, control)
    assert written[0] == 16 and 1100 < written[2] - written[1] < 1300 and 60 * len(written) / clock[0] < 0.06


def test_a_checkpoint_of_another_run_is_never_resumed(tmp_path):
    folder = tmp_path / "c"
    (folder / "checkpoint-5").mkdir(parents=True)
    (folder / "checkpoint-5" / "trainer_state.json").write_text("{}")
    (folder / "identity").write_text("other")
    assert progress.last_checkpoint(folder, "mine") is None
    assert not (folder / "checkpoint-5").exists()


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    folder = tmp_path / "c"
    for step, whole in ((5, True), (9, False)):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        if whole:
            (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (folder / "identity").write_text("mine")
    assert progress.last_checkpoint(folder, "mine").endswith("checkpoint-5")


def test_answers_do_not_depend_on_the_batch(model, tokenizer, world):
    prompts = [r["prompt"] for r in world.prompts("test", 12)]
    together = answers.answer(model, tokenizer, prompts, max_new_tokens=8, batch_size=16)
    alone = answers.answer(model, tokenizer, prompts, max_new_tokens=8, batch_size=1)
    assert together == alone
    ids = torch.tensor([chat.encode_prompt(tokenizer, prompts[0])])
    plain = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)[
        0, ids.shape[1] :
    ]
    text = tokenizer.decode(plain, skip_special_tokens=True).strip()
    assert alone[0].text == text


def test_saved_models_load_as_ordinary_folders_and_are_reproducible(model, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("a", "b"):
        folders.save(model, tokenizer, tmp_path / name, header={"role": "base"})
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(folders.FILES)
    for p in (tmp_path / "a").iterdir():
        assert p.read_bytes() == (tmp_path / "b" / p.name).read_bytes(), p.name
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert AutoTokenizer.from_pretrained(tmp_path / "a").chat_template == tokenizer.chat_template


def test_changed_fraction_counts_weights(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0] += 1
    changed = folders.changed_fraction(before, model.state_dict())
    total = sum(v.numel() for v in before.values())
    assert changed["all"] == pytest.approx(32 / total)
    assert changed["q_proj"] == pytest.approx(32 / (2 * 32 * 32))


def test_changed_fraction_reads_a_stored_start_and_counts_tied_weights_once(model, tokenizer, tmp_path):
    folders.save(model, tokenizer, tmp_path / "m", header={})
    start = container.Stored(tmp_path / "m" / "model.safetensors")
    assert folders.changed_fraction(start, model.state_dict())["all"] == 0
    with torch.no_grad():
        model.model.norm.weight += 1
    changed = folders.changed_fraction(start, model.state_dict())
    assert changed["norm"] == 1 and changed["all"] == pytest.approx(32 / sum(v.numel() for v in start.values()))
    tied = container.Stored(tmp_path / "m" / "model.safetensors", {"a": "model.norm.weight"})
    assert list(tied) == ["a"] and tied["a"].shape == (32,)
    shared = {"a": torch.ones(3)}
    assert folders.changed_fraction({"a": torch.ones(3)}, shared | {"b": shared["a"]}) == {"all": 0.0, "a": 0.0}


def test_a_loss_that_is_no_number_is_one_block_and_nothing_is_saved(model, tokenizer, encoded, tmp_path):
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="not a number") as error:
        loop.train(
            model, tokenizer, encoded, loop.TrainSettings(learning_rate=0.25, epochs=2, batch_size=8), seed=0,
            log_file=tmp_path / "train.jsonl", checkpoints=tmp_path / "c", identity="x", name="crafts/full",
        )  # fmt: skip
    assert "step" in error.value.found and "0.25" in error.value.do and "crafts/full" in error.value.what
    assert not (tmp_path / "train.jsonl").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_the_last_step_made_no_numbers_are_one_block(value, model, tokenizer, encoded, tmp_path):
    """Of which no loss tells any more: the loss of a step is that of the weights before it."""
    settings, done = loop.TrainSettings(learning_rate=0.25, epochs=1, batch_size=8), []
    last = -(-len(encoded) // 8)

    def spoil(m):
        done.append(1)
        if len(done) == last:
            m.model.norm.weight.data[0] = value

    with pytest.raises(TrainingError, match="crafts/full: the weights are no numbers") as error:
        loop.train(
            model, tokenizer, encoded, settings, seed=0, log_file=tmp_path / "train.jsonl",
            checkpoints=tmp_path / "c", identity="x", name="crafts/full", after_step=spoil,
        )  # fmt: skip
    assert "model.norm.weight" in error.value.found and "0.25" in error.value.do
    assert not (tmp_path / "train.jsonl").exists()


class Watched(torch.optim.SGD):
    """Notes the norm of what it is given, and the rates."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=1e-3)
        self.seen, self.rates = [], []

    def step(self, closure=None):
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        self.seen.append(float(torch.stack([g.norm() for g in grads]).norm()))
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def test_who_clips_itself_is_given_the_whole_gradient(model, tokenizer, encoded, tmp_path):
    found = []
    for itself in (False, True):
        watched = Watched(model.parameters())
        loop.train(
            model, tokenizer, encoded, dataclasses.replace(SETTINGS, epochs=1, max_grad_norm=1e-3), seed=0,
            log_file=tmp_path / "t.jsonl", checkpoints=tmp_path / "c", identity="x", optimizer=watched,
            clips_itself=itself,
        )  # fmt: skip
        found.append(max(watched.seen))
    assert found[0] <= 1.001e-3 < 0.1 < found[1]


def test_the_rate_rises_for_as_long_as_was_asked(model, tokenizer, encoded, tmp_path):
    watched = Watched(model.parameters())
    settings = dataclasses.replace(SETTINGS, epochs=8, batch_size=len(encoded), warmup_fraction=0.5)
    loop.train(model, tokenizer, encoded, settings, seed=0, log_file=tmp_path / "t.jsonl", checkpoints=tmp_path / "c",
               identity="x", optimizer=watched)  # fmt: skip
    assert watched.rates[:5] == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3])


class Looking(Beside):
    """What a method is given: the rows of every step, and whether the model trains."""

    def __init__(self):
        self.rows, self.training = [], []

    def batches(self, batches, step):
        self.rows.append([tuple(r) for b in batches for r in b["input_ids"].tolist()])
        return batches

    def before_step(self, model, step, steps):
        self.training.append(model.training)


def test_another_seed_is_another_order_and_a_model_trains_from_the_first_step_on(model, tokenizer, encoded, tmp_path):
    found = []
    for seed in (0, 0, 1):
        looking = Looking()
        loop.train(
            model.eval(), tokenizer, encoded, SETTINGS, seed=seed, log_file=tmp_path / "t.jsonl",
            checkpoints=tmp_path / "c", identity="x", beside=looking,
        )  # fmt: skip
        assert all(looking.training)
        found.append(looking.rows)
    assert found[0] == found[1] != found[2]
