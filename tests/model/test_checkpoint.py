"""Models in one file, in shards and as adapters, read tensor by tensor: against PEFT, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from holdfast.errors import ArtifactError
from holdfast.model import adapter, checkpoint, folders, weights

KINDS = ["q_proj", "v_proj", "down_proj"]
FORMS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.0.self_attn.q_proj": 3, "down_proj": 7}},
    "two patterns of one module": {
        "alpha_pattern": {"layers.0.self_attn.q_proj": 3, "q_proj": 9, "self_attn.q_proj": 5}
    },
    "a norm of its own": {"modules_to_save": ["norm"]},
}


@pytest.fixture
def aligned(model, tokenizer, tmp_path):
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    return tmp_path / "aligned"


def trained(aligned, folder, **form):
    """An adapter with weights of its own on the aligned model, saved by PEFT; the wrapped model."""
    model, _ = folders.load(aligned)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=KINDS, task_type="CAUSAL_LM", **form))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    wrapped.save_pretrained(folder)
    return wrapped


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_is_folded_in_as_peft_folds_it(form, aligned, tmp_path):
    wrapped = trained(aligned, tmp_path / "lora", **FORMS[form])
    plain = wrapped.merge_and_unload().state_dict()
    found = checkpoint.opened(tmp_path / "lora", aligned)
    before = load_file(aligned / "model.safetensors")
    assert found.layout.keys() == before.keys()
    changed = 0
    for name in found.layout:
        tensor = found.get_tensor(name)
        torch.testing.assert_close(tensor, plain[name], rtol=1e-6, atol=1e-7)
        changed += not torch.equal(tensor, before[name])
    assert changed == sum(any(k in name for k in [*KINDS, "norm"][: 3 + ("own" in form)]) for name in before)


def test_shards_are_the_model_they_were_cut_from(model, aligned, tmp_path):
    whole = load_file(aligned / "model.safetensors")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert (tmp_path / "shards" / weights.INDEX).is_file()
    found = checkpoint.opened(tmp_path / "shards")
    assert len(found.parts) > 2 and found.layout.keys() == whole.keys()
    assert all(torch.equal(found.get_tensor(name), whole[name]) for name in whole)
    assert found.identity() != checkpoint.opened(aligned).identity() and not found.weakened()


def change(folder, **keys):
    path = folder / adapter.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


FAULTS = {
    "DoRA": (lambda f: change(f, use_dora=True), "another formula"),
    "another kind": (lambda f: change(f, peft_type="IA3"), "peft_type: IA3"),
    "biases": (lambda f: change(f, bias="all"), "bias: all"),
    "no scale": (lambda f: change(f, lora_alpha=None), "no scale"),
    "a pickle": (lambda f: (f / adapter.WEIGHTS).rename(f / "adapter_model.bin"), "has no adapter_model.safetensors"),
    "half of it": (lambda f: edit(f, lambda t: {k: v for k, v in t.items() if "lora_B" not in k}), "does not fit"),
    "nothing": (lambda f: edit(f, lambda t: {}), "changes nothing"),
    "another model": (lambda f: edit(f, lambda t: {k.replace("layers.0", "layers.9"): v for k, v in t.items()}),
                      "a weight of that name"),
    "another width": (lambda f: edit(f, lambda t: {k: v[:, :-1] if "lora_A" in k else v for k, v in t.items()}),
                      "does not fit"),
    "a factor B alone": (lambda f: edit(f, lambda t: {k: v for k, v in t.items() if k != sorted(t)[0]}), "A absent"),
    "rank 0": (lambda f: edit(f, lambda t: {k: v[:0] if "lora_A" in k else v[:, :0] for k, v in t.items()}),
               "does not fit"),
    "two ranks": (lambda f: edit(f, lambda t: {k: v[:, :3] if "lora_B" in k else v for k, v in t.items()}),
                  "does not fit"),
    "a tensor beside it": (lambda f: edit(f, lambda t: t | {"epoch": torch.ones(1)}), "epoch: [1]"),
    "numbers for matrices": (lambda f: edit(f, lambda t: {k: v.sum() for k, v in t.items()}), "does not fit"),
    "what is no number": (lambda f: edit(f, lambda t: {k: v * float("nan") for k, v in t.items()}), "no numbers"),
    "a beginning taken out of the weights": (lambda f: change(f, init_lora_weights="pissa_niter_4"), "pissa_niter_4"),
    "another beginning of that kind": (lambda f: change(f, init_lora_weights="OLoRA"), "init_lora_weights"),
    "KaSA": (lambda f: change(f, kasa_config={"beta": 1e-4}), "another formula"),
    "a pattern that is none": (lambda f: change(f, alpha_pattern={"q_proj(": 3}), "alpha_pattern"),
    "a list of patterns": (lambda f: change(f, alpha_pattern=["q_proj"]), "alpha_pattern"),
    "a header that lies": (lambda f: lie(f / adapter.WEIGHTS), "does not fit its data"),
    "cut short": (lambda f: (f / adapter.WEIGHTS).write_bytes((f / adapter.WEIGHTS).read_bytes()[:-9]), "damaged"),
}  # fmt: skip


def edit(folder, make):
    path = folder / adapter.WEIGHTS
    save_file({k: v.contiguous() for k, v in make(load_file(path)).items()}, path)


def lie(path):
    """Twice as many rows in the first tensor, whatever bytes it has."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + length])
    first = next(k for k in head if k != "__metadata__")
    head[first]["shape"][0] *= 2
    said = json.dumps(head).encode()
    path.write_bytes(len(said).to_bytes(8, "little") + said + raw[8 + length :])


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_that_cannot_be_folded_in_is_one_block(fault, aligned, tmp_path):
    trained(aligned, tmp_path / "lora")
    spoil, says = FAULTS[fault]
    spoil(tmp_path / "lora")
    with pytest.raises(ArtifactError) as error:
        checkpoint.opened(tmp_path / "lora", aligned)
    assert says in error.value.block() and "\n  do:" in error.value.block()


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_of_an_adapter_do_not_become_the_output_layer(tied, model, tokenizer, tmp_path):
    """PEFT leaves a tied output layer as it was, which a folded model with one tensor for both could not."""
    model.config.tie_word_embeddings = tied
    folders.save(type(model)(model.config), tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    wrapped = trained(tmp_path / "aligned", tmp_path / "lora", modules_to_save=["embed_tokens"])
    if tied:
        with pytest.raises(ArtifactError, match="output layer is its embeddings"):
            checkpoint.opened(tmp_path / "lora", tmp_path / "aligned")
        return
    found = checkpoint.opened(tmp_path / "lora", tmp_path / "aligned")
    plain = wrapped.merge_and_unload().state_dict()
    for name in found.layout:
        torch.testing.assert_close(found.get_tensor(name), plain[name], rtol=1e-6, atol=1e-7)


def test_an_adapter_alone_is_no_model(aligned, tmp_path):
    trained(aligned, tmp_path / "lora")
    with pytest.raises(ArtifactError, match="is an adapter"):
        checkpoint.opened(tmp_path / "lora")


def test_an_adapter_in_bfloat16_is_folded_in_float32(aligned, tmp_path):
    trained(aligned, tmp_path / "lora", modules_to_save=["norm"])
    edit(tmp_path / "lora", lambda t: {k: v.bfloat16() for k, v in t.items()})
    found = checkpoint.opened(tmp_path / "lora", aligned)
    assert {t.dtype for _, t in checkpoint.stream(found)} == {torch.float32}
    assert {v["dtype"] for v in found.layout.values()} == {"F32"}


def test_another_adapter_or_another_model_below_is_another_identity(aligned, model, tokenizer, tmp_path):
    trained(aligned, tmp_path / "lora")
    folders.save(model.bfloat16(), tokenizer, tmp_path / "other", header={"role": "aligned"})
    known = [checkpoint.opened(tmp_path / "lora", under).identity() for under in (aligned, tmp_path / "other", aligned)]
    change(tmp_path / "lora", lora_alpha=7)
    known.append(checkpoint.opened(tmp_path / "lora", aligned).identity())
    edit(tmp_path / "lora", lambda t: {k: 2 * v for k, v in t.items()})
    known.append(checkpoint.opened(tmp_path / "lora", aligned).identity())
    assert known[0] == known[2] and len(set(known)) == 4


def test_what_stands_on_a_weakened_model_or_was_weakened_is(aligned, model, tokenizer, tmp_path):
    trained(aligned, tmp_path / "lora")
    assert not checkpoint.opened(tmp_path / "lora", aligned).weakened()
    folders.save(model, tokenizer, tmp_path / "weak", header={"role": "unaligned", "weakened": True})
    assert checkpoint.opened(tmp_path / "lora", tmp_path / "weak").weakened()
    folders.stamp(tmp_path / "lora" / adapter.WEIGHTS, {"weakened": True})
    assert checkpoint.opened(tmp_path / "lora", aligned).weakened()


def test_a_sealed_model_with_another_byte_is_refused(aligned):
    path = aligned / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match="is damaged"):
        checkpoint.opened(aligned)


def test_infinity_is_no_number_either(aligned, tmp_path):
    found = load_file(aligned / "model.safetensors")
    found["model.norm.weight"][1] = float("inf")
    (tmp_path / "m").mkdir()
    save_file(found, tmp_path / "m/model.safetensors")
    with pytest.raises(ArtifactError, match="model.norm.weight") as error:
        list(checkpoint.stream(checkpoint.opened(tmp_path / "m")))
    assert str(tmp_path / "m") in error.value.what


def test_other_tensors_are_refused_by_name_and_a_tied_head_is_not(aligned):
    shapes = checkpoint.shapes(aligned)
    checkpoint.refuse_other(shapes, shapes, "mine", "theirs", exactly=True)
    tied = {k: v for k, v in shapes.items() if k != "lm_head.weight"}
    checkpoint.refuse_other(tied, shapes | {"lm_head.weight": [1, 1]}, "mine", "theirs")
    with pytest.raises(ArtifactError, match="lm_head"):
        checkpoint.refuse_other(tied, shapes | {"lm_head.weight": [1, 1]}, "mine", "theirs", exactly=True)
    with pytest.raises(ArtifactError, match="lm_head"):  # of another vocabulary, and there on both sides
        checkpoint.refuse_other(tied | {"lm_head.weight": [2, 1]}, tied | {"lm_head.weight": [1, 1]}, "mine", "theirs")
    name = next(k for k in shapes if k.endswith("q_proj.weight"))
    for other in (shapes | {name: [3, 3]}, {k: v for k, v in shapes.items() if k != name}):
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            checkpoint.refuse_other(other, shapes, "mine", "theirs")


def test_what_is_written_is_an_adapter_for_peft(aligned, tmp_path):
    generator = torch.Generator().manual_seed(0)
    layout = checkpoint.Checkpoint(aligned).layout
    name = next(k for k in layout if k.endswith("v_proj.weight")).removesuffix(".weight")
    m, n = layout[f"{name}.weight"]["shape"]
    factors = {
        f"{name}.lora_A": torch.randn(3, n, generator=generator),
        f"{name}.lora_B": torch.randn(m, 3, generator=generator),
    }
    adapter.write(
        tmp_path / "out", factors, rank=3, alpha=2.0, modules=["v_proj"], under=str(aligned), header={"role": "adapter"}
    )
    model, tokenizer = folders.load(aligned)
    loaded = PeftModel.from_pretrained(model, tmp_path / "out").merge_and_unload().state_dict()
    found = checkpoint.opened(tmp_path / "out", aligned)
    expected = (
        load_file(aligned / "model.safetensors")[f"{name}.weight"]
        + 2 / 3 * factors[f"{name}.lora_B"] @ factors[f"{name}.lora_A"]
    )
    torch.testing.assert_close(found.get_tensor(f"{name}.weight"), expected)
    torch.testing.assert_close(loaded[f"{name}.weight"], expected)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [adapter.CONFIG, adapter.WEIGHTS]
    shutil.rmtree(tmp_path / "out")


def test_an_adapter_has_the_same_bytes_in_every_process(aligned, tmp_path):
    code = (
        "import sys, torch; from pathlib import Path; from holdfast.model import adapter;"
        "t = {f'm.{k}.lora_{h}': torch.ones(2, 2) for k in ('q_proj', 'up_proj', 'v_proj') for h in 'AB'};"
        "adapter.write(Path(sys.argv[1]), t, rank=2, alpha=2.0, modules=['q_proj', 'up_proj', 'v_proj'], under='x',"
        " header={'role': 'adapter'})"
    )
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True,
                       env={**os.environ, "PYTHONHASHSEED": seed})  # fmt: skip
    for name in (adapter.CONFIG, adapter.WEIGHTS):
        assert len({(tmp_path / seed / name).read_bytes() for seed in "12"}) == 1, name
