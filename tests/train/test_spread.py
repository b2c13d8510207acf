"""What is spread over processes: every method and precision that says so, on two gloo ranks, against one process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from holdfast.model import chat, folders, layers
from holdfast.study import registry
from holdfast.train import loop, spread, steps
from holdfast.warp.basis import random_orthogonal
from holdfast.warp.bits import BitMask
from holdfast.world.generator import World

MODULES = ("q_proj", "up_proj")
# Of 24 rows; steps of 9 are 4 and 5 rows, in two micro-batches each, and the last one 3 and 3, in one.
ODD = {"batch_size": 3, "accumulation": 3, "weight_decay": 0.1, "max_grad_norm": 0.5}
# case: method, its settings, training, and how far weights may differ: a few units in the last place of float32, since
# gradients are sums of what two processes have. Measured: at most 1.2e-7, where weights move by 6e-3 and more.
CASES = {
    "untied": ("full", {}, ODD, 1e-6),  # an output layer of its own, as large models have
    # The last step has one row: a process without any computes along.
    "one-row": ("full", {}, {"batch_size": 23}, 1e-6),
    "warp": ("warp", {"trainable": "all"}, ODD, 1e-6),
    "leading": ("warp", {"rank_fraction": 0.5}, ODD, 1e-6),
    "lora": ("lora", {"rank": 2}, ODD, 1e-6),
    "held": ("lead", {"trainable": "all"}, ODD, 1e-6),
    "held-late": ("lead", {"project": "update"}, ODD, 1e-6),
    "turned": ("derta", {"prefix_ratio": 0.25, "transition_ratio": 0.25}, ODD, 1e-6),
    # Whole micro-batches for each: what is rounded to bfloat16 is then the same, and summed in float32. One epoch:
    # later a weight that differs in its last place may round to the next bfloat16, as one does on some processors.
    "mixed": ("safety-mix", {}, {"batch_size": 4, "accumulation": 2, "precision": "bf16", "epochs": 1}, 1e-6),
    "by-length": ("full", {}, {"batch_size": 2, "accumulation": 3, "by_length": True}, 1e-6),
    "forgetful": ("warp", {}, ODD | {"activation_checkpointing": True}, 1e-6),
}


def start_of(case, folder):
    return folder / "untied" if case == "untied" else folder


class Killed(BaseException):
    pass


def trained(case, folder, kill_at=0):
    """The weights of one case after training, as a plain model, and what its optimizer says of them; or after as many
    steps nothing but checkpoints."""
    name, given, training, _ = CASES[case]
    method, settings = registry.load(name), registry.load(name).Settings(**given)
    phase = loop.TrainSettings(learning_rate=3e-3, log_every_steps=1, **({"epochs": 2} | training))
    model, tokenizer = folders.load(start_of(case, folder))
    encoded = pickle.loads((folder / "encoded").read_bytes())
    if name == "derta":
        rows = method.rows([{}] * len(encoded), settings, seed=1, harmful=World(3).preferences(12))
        encoded += chat.encode_rows(tokenizer, rows[len(encoded) :])
    targets = layers.resolve(model, MODULES)
    widths = {x.input: x.module.weight.shape[1] for x in targets}
    draw = torch.Generator().manual_seed(1)
    needs = {
        "basis": {name: random_orthogonal(n, 1) for name, n in widths.items()},
        "mask": {x.name: BitMask.of(torch.rand(x.module.weight.shape, generator=draw) < 0.3) for x in targets},
    }
    if name == "lead":
        needs = {"basis": {name: u[:, : len(u) // 3].contiguous() for name, u in needs["basis"].items()}}
    before = {x.name: x.module.weight.detach().clone() for x in targets}
    torch.manual_seed(0)
    if hasattr(method, "attach"):
        model = method.attach(model, targets, settings, **needs)
    optimizer = method.optimizer(model, targets, settings, phase, **needs) if hasattr(method, "optimizer") else None
    outline = spread.outline(model)
    steps = []

    def killed(_):
        steps.append(1)
        if len(steps) == kill_at:
            raise Killed

    if kill_at:
        phase = dataclasses.replace(phase, checkpoint_seconds=0.0)
    result = loop.train(
        model, tokenizer, encoded, phase, seed=1, log_file=folder / f"{case}.jsonl", identity="a", optimizer=optimizer,
        checkpoints=folder / f"{case}-checkpoints", clips_itself=optimizer is not None, after_step=killed,
    )  # fmt: skip
    said = {"final_loss": result["final_loss"], "steps": result["steps"], "ran": len(steps)}
    if optimizer is not None:
        start = {x.module.weight: before[x.name] for x in targets}
        said |= {"drift": optimizer.frozen_drift(start), "moved": optimizer.moved_fraction(start)}
    model = spread.gathered(model, outline)
    if os.environ.get("RANK", "0") == "0" and hasattr(method, "fold"):
        model = method.fold(model, settings)
    return model.state_dict(), said


def _rank(rank, port, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "HOLDFAST_PROCESSES": folder, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    }  # fmt: skip
    torch.set_num_threads(1)
    for case in CASES:
        found = trained(case, Path(folder))
        if rank == 0:
            torch.save(found, Path(folder) / f"{case}.pt")
    with contextlib.suppress(Killed):
        trained("untied", Path(folder), kill_at=4)
    whole = any((Path(folder) / "untied-checkpoints").glob("checkpoint-*/shards-1.safetensors"))
    found = trained("untied", Path(folder))
    if rank == 0:
        torch.save((whole, found), Path(folder) / "resumed.pt")
    spread.disband()


@pytest.fixture(scope="module")
def together(tmp_path_factory, tokenizer, encoded):
    """The folder of a model, and of what two processes made of it in every case."""
    from holdfast.world.model import new_model

    folder = tmp_path_factory.mktemp("together")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, "kv_heads": 2, "max_positions": 256}
    model = new_model(tokenizer, **sizes, seed=0)
    folders.save(model, tokenizer, folder, header={"role": "aligned"})
    model.lm_head.weight = torch.nn.Parameter(0.9 * model.lm_head.weight.detach())
    model.config.tie_word_embeddings = False
    folders.save(model, tokenizer, folder / "untied", header={"role": "aligned"})
    (folder / "encoded").write_bytes(pickle.dumps(encoded))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_rank, args=(port, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_trajectory_of_one(case, together):
    found, said = torch.load(together / f"{case}.pt")
    start = folders.load(start_of(case, together))[0].state_dict()
    expected, alone = trained(case, together)
    assert found.keys() == expected.keys() and said["steps"] == alone["steps"]
    moved, apart = (max(float((x[k] - expected[k]).abs().max()) for k in expected) for x in (start, found))
    assert apart < CASES[case][3] < 0.1 * moved
    print(case, moved, apart)
    assert said["final_loss"] == pytest.approx(alone["final_loss"], rel=1e-6)
    if "drift" in alone:
        assert said["drift"] < 1e-6 > alone["drift"] and said["moved"] == pytest.approx(alone["moved"], abs=1e-3)


def test_every_method_that_says_it_can_is_among_them():
    trained = [m for m in registry.method_names() if registry.header(m).kind == "train"]
    assert {m for m in trained if not registry.load(m).Settings().alone()} == {method for method, *_ in CASES.values()}


def test_a_sharded_adamw_killed_and_resumed_is_the_same_bit_by_bit(together):
    had_checkpoints, (found, said) = torch.load(together / "resumed.pt")
    expected, undisturbed = torch.load(together / "untied.pt")
    assert had_checkpoints and said["ran"] < undisturbed["ran"] == said["steps"] == undisturbed["steps"]
    assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize(("rows", "batch_size", "accumulation", "processes"), [
    (22, 4, 2, 2), (24, 3, 3, 2), (24, 23, 1, 2), (16, 4, 4, 8), (17, 4, 4, 8), (5, 2, 1, 2), (30, 4, 4, 3),
])  # fmt: skip
def test_every_row_is_in_one_share_of_the_step_that_it_has_in_one_process(rows, batch_size, accumulation, processes):
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
    shares = [steps.Shares(order, batch_size, accumulation, processes, r) for r in range(processes)]
    batches = [list(s) for s in shares]
    assert {len(b) for b in batches} == {len(shares[0])}, "all compute together"
    assert max(len(m) for b in batches for m in b) <= batch_size
    step, per_step = batch_size * accumulation, steps.passes(batch_size * accumulation, batch_size, processes)
    for i in range(0, rows, step):
        at = i // step * per_step
        mine = [[x for m in b[at : at + per_step] for x in m] for b in batches]
        assert [x for part in mine for x in part] == order[i : i + step]
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
    if accumulation % processes == 0:  # whole micro-batches
        whole = [order[i : i + batch_size] for i in range(0, rows // step * step, batch_size)]
        assert [
            m for i in range(0, rows // step * per_step, per_step) for b in batches for m in b[i : i + per_step]
        ] == whole


@pytest.mark.parametrize(("rows", "batch_size", "accumulation", "processes"), [
    (22, 4, 2, 2), (24, 3, 3, 2), (17, 4, 4, 1), (5, 2, 1, 2), (64, 4, 4, 3), (3, 8, 1, 1),
])  # fmt: skip
def test_by_length_every_step_keeps_its_rows_and_pads_less(rows, batch_size, accumulation, processes):
    draw = torch.Generator().manual_seed(1)
    order = torch.randperm(rows, generator=draw).tolist()
    lengths = torch.randint(5, 200, (rows,), generator=draw).tolist()
    step, per_step = batch_size * accumulation, steps.passes(batch_size * accumulation, batch_size, processes)

    def batches(*given):
        return [list(steps.Shares(order, batch_size, accumulation, processes, r, *given)) for r in range(processes)]

    def padded(dealt):
        return sum(len(m) * max(lengths[i] for i in m) for b in dealt for m in b if m)

    plain, sorted_ = batches(), batches(lengths)
    assert [[len(m) for m in b] for b in sorted_] == [[len(m) for m in b] for b in plain]
    for i in range(0, rows, step):
        at = i // step * per_step
        mine = [x for b in sorted_ for m in b[at : at + per_step] for x in m]
        assert sorted(mine) == sorted(order[i : i + step]) and [lengths[x] for x in mine] == sorted(
            lengths[x] for x in mine
        )
    assert padded(sorted_) <= padded(plain) and (rows < 10 or padded(sorted_) < padded(plain))
