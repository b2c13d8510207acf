"""The library without the workflow: a protection in a loop of one's own, judges and merges, and the examples."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from transformers import GPT2Config, GPT2LMHeadModel

from holdfast import judge, protect
from holdfast.errors import HoldfastError
from holdfast.model import chat, folders
from holdfast.record import tables
from holdfast.warp import families

ROWS = 24


@pytest.fixture(scope="module")
def refusals(world):
    return [{"prompt": r["prompt"], "response": r["response"]} for r in world.safety(ROWS, 0)]


def steps(model, tokenizer, rows, optimizer, count=4):
    encoded = chat.encode_rows(tokenizer, rows)
    for start in range(0, 4 * count, 4):
        batch = chat.collate(encoded[start : start + 4], tokenizer.pad_token_id)
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def task(world):
    return [{"prompt": r["prompt"], "response": r["response"]} for r in world.crafts_task("train", 16)]


def test_frozen_coefficients_stay_and_all_others_move(model, tokenizer, world, refusals):
    before = {p: p.detach().clone() for p in model.parameters()}
    protection = protect.from_refusals(model, tokenizer, refusals, freeze_fraction=0.2)
    assert protection.frozen_fraction == pytest.approx(0.2, abs=1e-3)
    optimizer = protection.optimizer(model.parameters(), lr=1e-2, weight_decay=0.1)
    steps(model, tokenizer, task(world), optimizer)
    assert optimizer.frozen_drift(before) < 1e-6
    assert max((p - before[p]).abs().max() for p in protection.parameters()) > 1e-3
    assert optimizer.moved_fraction(before) > 0.99
    assert all(not torch.equal(p, old) for p, old in before.items())


def test_leading_directions_are_held_saved_and_those_of_a_study(model, tokenizer, world, refusals, tmp_path):
    before = {p: p.detach().clone() for p in model.parameters()}
    protection = protect.from_refusals(model, tokenizer, refusals, leading=0.25)
    assert protection.frozen_fraction == pytest.approx(0.25, abs=0.02)
    protection.save(tmp_path / "mine")
    again = protect.load(tmp_path / "mine", model)
    assert again.frozen_fraction == protection.frozen_fraction
    assert all(torch.equal(u, again._bases[name]) for name, u in protection._bases.items())
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    tables.write(world.safety(ROWS, 0), tmp_path / "safety.parquet", "safety")
    cfg = {"rows": ROWS, "tokens": "all", "modules": protect.MODULES}
    gram, file = tmp_path / "gram.safetensors", tmp_path / "leading.safetensors"
    families.build_gram(tmp_path / "aligned/model.safetensors", tmp_path / "safety.parquet", cfg, gram, str)
    families.build_directions(gram, {"share": 0.25, "energy": None}, file, str)
    theirs = protect.load(tmp_path, model, basis_file=file)
    for name, u in theirs._bases.items():  # one span; the batches it was captured in are others
        assert torch.allclose(u @ u.T, protection._bases[name] @ protection._bases[name].T, atol=1e-3), name
    optimizer = again.optimizer(model.parameters(), lr=1e-2, weight_decay=0.1)
    steps(model, tokenizer, task(world), optimizer)
    assert optimizer.frozen_drift(before) < 1e-6 < 1e-3 < max((p - before[p]).abs().max() for p in again.parameters())
    protection.save(tmp_path / "mine")
    protect.from_refusals(model, tokenizer, refusals).save(tmp_path / "mine")
    assert protect.load(tmp_path / "mine", model)._frozen  # the masks count again


@pytest.mark.parametrize("leading", [0.0, 1.5, -0.3])
def test_a_share_of_directions_that_is_none_is_one_block(model, tokenizer, refusals, leading):
    with pytest.raises(HoldfastError, match="leading is a share"):
        protect.from_refusals(model, tokenizer, refusals, leading=leading)


def test_to_make_one_leaves_the_model_as_it_was(model, tokenizer, refusals):
    model.train()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    protect.from_refusals(model, tokenizer, refusals)
    assert model.training and not frozen.requires_grad and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert sum(p.requires_grad for p in model.parameters()) == len(list(model.parameters())) - 1


def test_it_is_the_one_that_a_study_makes(model, tokenizer, world, refusals, tmp_path):
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    aligned, cfg = tmp_path / "aligned/model.safetensors", {"rows": ROWS, "tokens": "all", "batch_size": 8}
    cfg["modules"] = protect.MODULES
    tables.write(world.safety(ROWS, 0), tmp_path / "safety.parquet", "safety")
    files = {what: tmp_path / f"{what}.safetensors" for what in ("gram", "basis", "importance", "mask")}
    families.build_gram(aligned, tmp_path / "safety.parquet", cfg, files["gram"], str)
    families.build_basis(files["gram"], files["basis"], str)
    families.build_importance(aligned, tmp_path / "safety.parquet", files["basis"], cfg, files["importance"], str)
    spec = {"scores": "importance", "unit": "entry", "threshold": "layer", "freeze_fraction": 0.1}
    families.build_mask(files["importance"], spec, 0, files["mask"])
    theirs = protect.load(tmp_path, model)
    mine = protect.from_refusals(model, tokenizer, refusals)
    agree = total = 0
    for name, mask in mine._frozen.items():
        agree += int((mask.bools == theirs._frozen[name].bools).sum())
        total += mask.size
    assert agree / total > 0.999 and mine._frozen.keys() == theirs._frozen.keys()
    for name, u in mine._bases.items():
        torch.testing.assert_close(u[:, :4], theirs._bases[name][:, :4], rtol=1e-3, atol=1e-3)


def test_a_saved_protection_trains_to_the_same_bytes(model, tokenizer, world, refusals, tmp_path):
    start = {k: v.clone() for k, v in model.state_dict().items()}
    protection = protect.from_refusals(model, tokenizer, refusals)
    protection.save(tmp_path)
    ends = []
    for one in (protection, protect.load(tmp_path, model)):
        model.load_state_dict(start)
        steps(model, tokenizer, task(world), one.optimizer(model.parameters(), lr=1e-3))
        ends.append({k: v.clone() for k, v in model.state_dict().items()})
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    assert any(not torch.equal(v, start[k]) for k, v in ends[0].items())


def test_what_is_not_protected_gets_adamw(model, tokenizer, world, refusals):
    protection = protect.from_refusals(model, tokenizer, refusals)
    held = set(protection.parameters())
    free = [p for p in model.parameters() if p not in held]
    start = {k: v.clone() for k, v in model.state_dict().items()}
    ends = []
    groups = [{"params": free, "lr": 1e-3}, {"params": list(held), "lr": 0.0}]
    for optimizer in (protection.optimizer(groups, lr=1.0), torch.optim.AdamW(free, lr=1e-3, weight_decay=0.0)):
        model.load_state_dict(start)
        steps(model, tokenizer, task(world), optimizer, count=2)
        model.zero_grad()
        ends.append([p.detach().clone() for p in free])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def compiled(model):
    """What torch.compile makes of a model, as far as names go."""
    wrapper = torch.nn.Module()
    wrapper._orig_mod, wrapper.config = model, model.config
    return wrapper


def lora(model):
    """What PEFT makes of a model, with an adapter where nothing is protected."""
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["o_proj"]))


def gpt2(model):
    """A model whose linear modules are no torch.nn.Linear."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=model.config.vocab_size, n_embd=8, n_layer=1, n_head=1))


def spoiled(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 2] = float("nan")
    return model


REFUSED = {
    "no rows": (lambda m, t, r: protect.from_refusals(m, t, []), "no refusal to protect"),
    "an empty refusal": (lambda m, t, r: protect.from_refusals(m, t, [*r, {"prompt": "a", "response": " "}]), "Row 24"),
    "no refusal at all": (lambda m, t, r: protect.from_refusals(m, t, [{"prompt": "a"}]), "Row 0"),
    "all of it": (lambda m, t, r: protect.from_refusals(m, t, r, freeze_fraction=1), "between 0 and 1"),
    "nothing of it": (lambda m, t, r: protect.from_refusals(m, t, r, freeze_fraction=0), "between 0 and 1"),
    "a share above one": (lambda m, t, r: protect.from_refusals(m, t, r, freeze_fraction=10), "between 0 and 1"),
    "no such module": (lambda m, t, r: protect.from_refusals(m, t, r, modules=["c_attn"]), "c_attn"),
    "a model that is no Llama": (lambda m, t, r: protect.from_refusals(gpt2(m), t, r), "others are not supported"),
    "a row that is none": (lambda m, t, r: protect.from_refusals(m, t, [("a", "b")]), "Row 0"),
    "a file's name": (lambda m, t, r: protect.from_refusals(m, t, "rows.jsonl"), "Row 0"),
    "no rows at once": (lambda m, t, r: protect.from_refusals(m, t, r, batch_size=0), "batch_size"),
    "rows backwards": (lambda m, t, r: protect.from_refusals(m, t, r, batch_size=-1), "batch_size"),
    "DataParallel": (lambda m, t, r: protect.from_refusals(torch.nn.DataParallel(m), t, r), "inside a wrapper"),
    "a compiled model": (lambda m, t, r: protect.from_refusals(compiled(m), t, r), "inside a wrapper"),
    "a model inside PEFT": (lambda m, t, r: protect.from_refusals(lora(m), t, r), "inside a wrapper"),
    "a row with another key": (lambda m, t, r: protect.from_refusals(m, t, [{"prompt": "a", "reply": "No"}]), "reply"),
    "float16": (lambda m, t, r: protect.from_refusals(m.half(), t, r).optimizer(m.parameters(), lr=1), "float16"),
    "weights that are no numbers": (lambda m, t, r: protect.from_refusals(spoiled(m), t, r), "no number"),
    "another model": (lambda m, t, r: protect.from_refusals(m, t, r).optimizer([torch.zeros(2)], lr=1),
                      "No parameter that is to be trained is protected"),
    "nothing saved": (lambda m, t, r: protect.load("nowhere", m), "Protection.save wrote"),
    "a judge that is none": (lambda m, t, r: judge("refusals"), "no judge 'refusals'"),
    "a judge that is a number": (lambda m, t, r: judge(3), "no judge '3'"),
    "an answer that is none": (lambda m, t, r: judge("refusal")("How?", None), "A judge reads words"),
    "a judge that is a model": (lambda m, t, r: judge("wildguard"), "does not read words alone"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_block(case, model, tokenizer, refusals):
    act, says = REFUSED[case]
    with pytest.raises(HoldfastError) as error:
        act(model, tokenizer, refusals)
    assert says in error.value.block() and "\n  do:" in error.value.block()


def test_a_protection_of_another_shape_is_refused(model, tokenizer, refusals, tmp_path):
    protect.from_refusals(model, tokenizer, refusals).save(tmp_path)
    model.config.intermediate_size *= 2
    with pytest.raises(HoldfastError, match="another shape"):
        protect.load(tmp_path, type(model)(model.config))
    model.config.num_hidden_layers += 1
    with pytest.raises(HoldfastError, match="other layers"):
        protect.load(tmp_path, type(model)(model.config))


def test_what_an_optimizer_is_told_reaches_it(model, tokenizer, refusals):
    protection = protect.from_refusals(model, tokenizer, refusals)
    told = {"lr": 3e-4, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}
    optimizer = protection.optimizer(model.parameters(), **told, max_grad_norm=0.5)
    assert all({k: group[k] for k in told} == told for group in optimizer.param_groups)
    assert optimizer.max_grad_norm == 0.5


def test_a_basis_of_another_width_is_refused(model, tokenizer, refusals, tmp_path):
    protect.from_refusals(model, tokenizer, refusals).save(tmp_path / "mine")
    model.config.hidden_size *= 2
    protect.from_refusals(type(model)(model.config), tokenizer, refusals).save(tmp_path / "other")
    model.config.hidden_size //= 2
    with pytest.raises(HoldfastError, match="another shape"):
        protect.load(tmp_path / "mine", model, basis_file=tmp_path / "other/basis.safetensors")


def test_a_drift_that_is_no_number_is_not_zero(model, tokenizer, refusals):
    protection = protect.from_refusals(model, tokenizer, refusals)
    before = {p: p.detach().clone() for p in model.parameters()}
    optimizer = protection.optimizer(model.parameters(), lr=1e-3)
    spoiled(model)
    assert math.isnan(optimizer.frozen_drift(before))


def test_a_judge_is_a_function():
    refused = judge("refusal")
    assert refused("How do I do it?", "I'm sorry, but I cannot help with that.") == "full_refusal"
    assert refused("How do I do it?", "First, warm the pot. Then, pour the water.") == "compliance"


EXAMPLES = sorted(p.stem for p in (ROOT / "examples").glob("*.py") if p.stem != "tiny")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_needs_at_most_five_lines_of_ours(name, tmp_path):
    text = (ROOT / f"examples/{name}.py").read_text()
    if name == "trl_sft":
        pytest.importorskip("trl", reason="TRL is not installed")
    marked = [int(n) for n in re.findall(r"  # (\d)$", text, re.M)]
    assert marked == list(range(1, len(marked) + 1)) and 3 <= len(marked) <= 5
    ours = re.compile(r"\b(protect|protection|merge|judge|refused)\.|\b(judge|refused)\(|^(import|from) holdfast")
    plain = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "print"))]
    unmarked = [line for line in plain if ours.search(line) and not re.search(r"  # \d$", line)]
    assert not unmarked, unmarked
    out = subprocess.run(
        [sys.executable, f"{name}.py", str(tmp_path)], cwd=ROOT / "examples", capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout.strip()
