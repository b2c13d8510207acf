"""What runs on a GPU, on one that is pretended: every stage gives there what it gives on the CPU, and a tensor that is
left on the host, or taken there too early, is found without a GPU."""

from __future__ import annotations

import copy

import numpy as np
import pretend
import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast import names, protect
from holdfast.evaluate import answers, divergence, stress
from holdfast.model import folders
from holdfast.model import layers as layering
from holdfast.record import tables
from holdfast.train import loop, neurons
from holdfast.warp import basis, families, gram, importance
from holdfast.warp.bits import BitMask
from holdfast.warp.optimizer import RotatedAdamW, Rotation

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def both(act, model, *, moved=copy.deepcopy):
    """What an act gives with a model on the CPU, and with a copy of it on the device."""
    there = moved(model)
    with pretend.plain():
        expected = act(model)
    with pretend.gpu():
        there = there.cuda()
        found = act(there)
        assert {p.device for p in there.parameters()} == {pretend.CUDA}
    return expected, found


def same(expected, found):
    """Whether a tensor on the device holds another's numbers, to the last bit."""
    return found.device == pretend.CUDA and found.dtype == expected.dtype and torch.equal(found.held, expected)


def loud(model):
    """Makes the blocks of a model that knows nothing speak up, so that answers hang on what is asked."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(5)


def test_tensors_of_two_devices_do_not_meet(model):
    with pretend.gpu():
        there, here = torch.ones(2, 2, device=pretend.CUDA), torch.ones(2, 2)
        with pytest.raises(RuntimeError, match="meet in aten.add"):
            there + here
        with pytest.raises(RuntimeError, match="meet in aten.mm"):
            here @ there
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there * 2.0 + torch.tensor(3.0)).cpu().tolist() == [[5, 5], [5, 5]]  # a number has no device
        assert there.cpu().device == torch.device("cpu") and there.sum().item() == 4
        with pytest.raises(RuntimeError, match="meet in"):
            model.cuda()(torch.zeros(1, 3, dtype=torch.long))
    assert not torch.cuda.is_available()


def test_an_index_may_be_on_the_host_where_what_is_indexed_is_on_the_device_and_not_the_other_way_round():
    with pretend.gpu():
        there, here = torch.arange(4.0, device=pretend.CUDA), torch.arange(4.0)
        i, i_there = torch.tensor([1, 3]), torch.tensor([1, 3], device=pretend.CUDA)
        for index in (i, i_there, [1, 3], here % 2 == 1, there % 2 == 1):
            found = there[index]
            assert found.device == pretend.CUDA and found.tolist() == [1, 3]
        for index in (i_there, here.to(pretend.CUDA) % 2 == 1):
            with pytest.raises(RuntimeError, match="meet in aten.index"):
                here[index]
            with pytest.raises(RuntimeError, match="meet in aten.index_put_"):
                here[index] = torch.ones(2)
            with pytest.raises(RuntimeError, match="meet in aten.index_put_"):
                there[index] = torch.ones(2)
        with pytest.raises(RuntimeError, match="meet in aten.index_put_"):
            there[i] = torch.ones(2)
        with pytest.raises(RuntimeError, match="meet in aten.index_put_"):
            here[i] = torch.ones(2, device=pretend.CUDA)
        with pytest.raises(RuntimeError, match="meet in aten.index_select"):
            there.index_select(0, i)
        with pytest.raises(RuntimeError, match="meet in aten.masked_fill"):
            there.masked_fill(here > 1, 0)
        # What CUDA allows: numbers, wherever they are, and slices, which are copies.
        there[i_there] = torch.tensor(4.0)
        there[i], there[[0]] = torch.tensor(5.0), 7
        there[2:3], here[i] = torch.ones(1), torch.tensor(6.0, device=pretend.CUDA)
        assert there.cpu().tolist() == [7, 5, 1, 5] and type(here) is torch.Tensor and here.tolist() == [0, 6, 2, 6]


def test_a_gradient_goes_back_through_an_index_on_the_host():
    with pretend.gpu():
        there = torch.arange(3.0).to(pretend.CUDA).requires_grad_()
        (there[torch.tensor([2, 2, 0])] ** 2).sum().backward()
        assert there.grad.device == pretend.CUDA and there.grad.tolist() == [0, 0, 8]


def test_only_a_number_may_come_from_the_host_and_nothing_is_written_there():
    with pretend.gpu():
        there, number, number_there = torch.ones(2, device=pretend.CUDA), torch.tensor(2.0), torch.tensor(3.0).cuda()
        assert (there + number).tolist() == [3, 3] and (number * number_there).device == pretend.CUDA
        for refused in (
            lambda: torch.stack([number, number_there]), lambda: torch.cat([there, torch.ones(1)]),
            lambda: number.add_(number_there), lambda: torch.add(there, there, out=torch.empty(2)),
            lambda: torch.ones(2) + number_there, lambda: there.add_(torch.ones(1)),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="meet in"):
                refused()
        with pytest.raises(RuntimeError, match="its generator is on cpu"):
            torch.rand(2, generator=torch.Generator(), device=pretend.CUDA)
        here = torch.zeros(2)
        assert here.copy_(there) is here and here.tolist() == [1, 1]


def test_capture_basis_and_importance(model, encoded):
    targets = layering.resolve(model, MODULES)

    def act(m):
        own = layering.resolve(m, MODULES)
        grams, count = gram.capture(m, own, encoded[:6], batch_size=4, pad_id=0)
        # As the stage has them: from a file, on the host.
        bases = {name: basis.from_gram(g.cpu())[0] for name, g in grams.items()}
        return grams, count, importance.score(m, own, bases, encoded[:6], batch_size=4, pad_id=0)

    (grams, count, scores), (grams_there, count_there, scores_there) = both(act, model)
    assert count == count_there and grams.keys() == grams_there.keys() and len(scores) == len(targets)
    for name in grams:
        assert same(grams[name], grams_there[name])
    for name in scores:
        assert same(scores[name], scores_there[name])


@pytest.mark.parametrize("kind", [k for k in names.GRAMS if k != "all"])
def test_gram_matrices_of_each_kind(kind, model, encoded):
    how = {"tokens": "all"} | names.GRAMS[kind]

    def act(m):
        return gram.capture(m, layering.resolve(m, MODULES), encoded[:6], batch_size=4, pad_id=0, **how)

    (grams, count), (grams_there, count_there) = both(act, model)
    assert count == count_there and grams.keys() == grams_there.keys()
    assert all(same(grams[name], grams_there[name]) for name in grams)


@pytest.mark.parametrize("detection", ["paper", "code"])
def test_neurons_are_found_on_the_device(detection, model, encoded):
    expected, found = both(lambda m: neurons.detect(m, encoded[:2], 0.2, detection=detection), model)
    assert expected.keys() == found.keys() and all(torch.equal(found[k], v) for k, v in expected.items())


def test_files_of_tensors_are_the_same_bytes_where_there_is_a_gpu(model, tokenizer, world, tmp_path):
    """From the aligned model to what `lead` and WaRP hold, as the stages make it."""
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    tables.write(world.safety(8, 4), tmp_path / "safety.parquet", "safety")
    aligned, cfg = tmp_path / "aligned/model.safetensors", {"modules": list(MODULES), "rows": 6}

    def made(out):
        out.mkdir()
        table, grams, basis = tmp_path / "safety.parquet", out / "gram", out / "basis"
        families.build_gram(aligned, table, cfg | {"tokens": "response", "unit": True}, grams, print)
        families.build_basis(grams, basis, print)
        families.build_output_basis(aligned, grams, cfg, out / "output")
        families.build_directions(grams, {"share": 0.3, "energy": None}, out / "share", print)
        families.build_directions(grams, {"share": None, "energy": 0.8}, out / "energy", print)
        families.build_importance(aligned, table, basis, cfg | {"batch_size": 4}, out / "importance", print)
        return {p.name: load_file(p) for p in out.iterdir()}

    with pretend.plain():
        expected = made(tmp_path / "here")
    with pretend.gpu():
        found = made(tmp_path / "there")
    assert len(expected) == 6 and expected.keys() == found.keys()
    for name, tensors in expected.items():
        assert tensors.keys() == found[name].keys() and all(torch.equal(found[name][k], v) for k, v in tensors.items())


def test_a_basis_is_computed_where_its_gram_is():
    x = torch.randn(40, 8)
    with pretend.gpu():
        u, values = basis.from_gram((x.T @ x).to(pretend.CUDA))
        assert u.device == values.device == pretend.CUDA
    expected, _ = basis.from_gram(x.T @ x)
    assert same(expected, u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["nothing", "original", "rotated", "both sides", "corrected"])
def test_the_optimizer(form, dtype):
    generator = torch.Generator().manual_seed(0)
    weight, gradient = (torch.randn(6, 8, generator=generator) for _ in range(2))
    mask = torch.rand(6, 8, generator=generator) < 0.4
    u, v = (basis.random_orthogonal(n, 1).to(dtype) for n in (8, 6))
    rotation = {
        "nothing": Rotation(), "original": Rotation(frozen=mask), "rotated": Rotation(u=u, frozen=mask),
        "both sides": Rotation(u=u, v=v, frozen=mask),
        "corrected": Rotation(u=u[:, :3].contiguous(), frozen=mask[:, :3].contiguous(), corrected=True),
    }[form]  # fmt: skip

    def steps(device):
        p = torch.nn.Parameter(weight.to(dtype, copy=True).to(device))
        own = {k: None if (x := getattr(rotation, k)) is None else x.to(device) for k in ("u", "v", "frozen")}
        rotations = {p: Rotation(**own, corrected=rotation.corrected)}
        optimizer = RotatedAdamW([p], rotations, lr=1e-2, weight_decay=0.1)
        before = {p: p.detach().clone()}
        for _ in range(3):
            p.grad = gradient.to(dtype).to(device)
            optimizer.step()
        return p.detach(), optimizer.grad_norm, optimizer.frozen_drift(before), optimizer.moved_fraction(before)

    expected = steps("cpu")
    with pretend.gpu():
        found = steps(pretend.CUDA)
    assert same(expected[0], found[0])
    assert found[1:] == expected[1:]


def test_bits_are_unpacked_on_the_device_as_on_the_host():
    mask = torch.rand(5, 7) < 0.3
    bits = BitMask.of(mask)
    with pretend.gpu():
        there = bits.to(pretend.CUDA)
        assert there.bools.device == pretend.CUDA and np.array_equal(there.bools.cpu(), mask)
        assert there.count == bits.count
        again = BitMask.of(there.bools)
        assert again.bits.device == pretend.CUDA and np.array_equal(again.bits.cpu(), bits.bits)


def test_answers_and_their_first_words(model, tokenizer, world):
    prompts = [r["prompt"] for r in world.safety(6, 0)]

    def act(m):
        ids = [answers.chat.encode_prompt(tokenizer, p) for p in prompts]
        return answers.complete(m, tokenizer, ids, max_new_tokens=6, batch_size=3, words=["I", "The"])

    expected, found = both(act, model)
    assert [(a.text, a.finish) for a in found] == [(a.text, a.finish) for a in expected]
    # Not to the last bit: in inference mode the CPU sums in another order.
    assert [a.first for a in found] == [pytest.approx(a.first, rel=1e-5) for a in expected]


@pytest.mark.parametrize("spec", [{"prune": 0.3}, {"bits": 4}, {"base": 0.5}, {"temperature": 1.0}, {"prefill": "Of"}])
def test_answers_under_a_stress(spec, model, tokenizer, world, tmp_path):
    prompts = [r["prompt"] for r in world.safety(3, 0)]
    loud(model)
    base = {k: v + 0.1 * torch.randn(v.shape) for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(base, tmp_path / "base")

    def act(m):
        stress.apply(m, spec, tmp_path / "base")
        torch.manual_seed(0)
        how = {"temperature": spec.get("temperature", 0.0), "opening": spec.get("prefill", "")}
        said = answers.answer(m, tokenizer, prompts, max_new_tokens=6, batch_size=3, **how)
        return m.state_dict(), said

    (expected, said), (found, said_there) = both(act, model)
    assert all(same(expected[k], found[k]) for k in expected) and said == said_there
    assert len({a.text for a in said}) > 1


def test_answers_that_end_leave_their_batch(model, tokenizer, world):
    ids = [answers.chat.encode_prompt(tokenizer, r["prompt"]) for r in world.safety(6, 0)]
    loud(model)

    def act(m):
        torch.manual_seed(0)
        how = {"stops": range(0, 700, 16), "pad_id": 0, "max_new_tokens": 18, "batch_size": 6, "temperature": 1.0}
        return answers.generate(m, ids, **how)

    expected, found = both(act, model)
    assert expected == found and {end for _, end in found} == {"stop", "length"}


def test_divergence(model, encoded, tokenizer):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.add_(0.1 * torch.randn_like(other.lm_head.weight))

    def act(m):
        aligned = other if m.device.type == "cpu" else copy.deepcopy(other).cuda()
        return divergence.per_answer(m, aligned, encoded[:5], pad_id=0, batch_size=2)

    expected, found = both(act, model)
    assert found == pytest.approx(expected, rel=1e-5) and min(expected) > 0  # in inference mode too


@pytest.mark.parametrize("how", [{"freeze_fraction": 0.2}, {"leading": 0.2}], ids=lambda x: next(iter(x)))
def test_a_protection_of_a_model_on_the_device(how, model, tokenizer, world):
    rows = world.safety(8, 0)

    def act(m):
        protection = protect.from_refusals(m, tokenizer, rows, batch_size=4, **how)
        optimizer = protection.optimizer(m.parameters(), lr=1e-2)
        batch = {k: v.to(m.device) for k, v in loop.chat.collate(
            [loop.chat.encode(tokenizer, r["prompt"], r["response"]) for r in rows[:3]], tokenizer.pad_token_id
        ).items()}  # fmt: skip
        before = {p: p.detach().clone() for p in m.parameters()}
        for _ in range(2):
            m(**batch).loss.backward()
            optimizer.step()
        return optimizer.frozen_drift(before), {n: p.detach().cpu() for n, p in m.named_parameters()}

    (drift, expected), (drift_there, found) = both(act, model)
    assert drift == drift_there < 1e-5 and all(torch.equal(found[k], v) for k, v in expected.items())


def test_training(model, tokenizer, encoded, tmp_path):
    """The whole loop: Trainer, accelerate, the optimizer that is given to them, and a step that is logged."""
    settings = loop.TrainSettings(epochs=2, batch_size=4, accumulation=2, learning_rate=1e-2, log_every_steps=1)

    def act(m):
        kind = m.device.type
        told = loop.train(m, tokenizer, encoded[:16], settings, seed=0, log_file=tmp_path / f"{kind}.jsonl",
                          checkpoints=tmp_path / kind, identity="x")  # fmt: skip
        return told["final_loss"], {n: p.detach().cpu() for n, p in m.named_parameters()}

    (loss, expected), (loss_there, found) = both(act, model)
    assert loss_there == loss < 6 and all(torch.equal(found[k], v) for k, v in expected.items())
