"""A model that does not hold every tensor of its configuration, as it was trained, is never loaded."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast.errors import ArtifactError, HoldfastError
from holdfast.model import contract, folders, weights


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    """A model folder as others save it: no header of ours."""
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def tensors(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def settings(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def prefixed(prefix, only=lambda name: True):
    return lambda found: {prefix + k if only(k) else k: v for k, v in found.items()}


def without(part):
    return lambda found: {k: v for k, v in found.items() if part not in k}


Q = "model.layers.1.self_attn.q_proj.weight"


def typed(dtype, only=""):
    return lambda found: {k: v.to(dtype) if only in k else v for k, v in found.items()}


def spoiled(tensor, place, value=float("nan")):
    tensor = tensor.clone()
    tensor.view(-1)[place] = value
    return tensor


def more_tokens(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<|nobody-knows|>"}))


BROKEN = {
    "a prefix of torch.compile": (lambda f: tensors(f, prefixed("_orig_mod.")), True),
    "a prefix of DDP": (lambda f: tensors(f, prefixed("module.")), True),
    "a prefix of a wrapper on the blocks": (lambda f: tensors(f, prefixed("base_model.", lambda k: "layers" in k)), True),
    "a block too few": (lambda f: tensors(f, without("layers.1.")), True),
    "a block too many": (lambda f: settings(f, num_hidden_layers=1), True),
    "one matrix missing": (lambda f: tensors(f, without(Q)), True),
    "one norm missing": (lambda f: tensors(f, without("model.norm")), True),
    "one more tensor": (lambda f: tensors(f, lambda t: t | {"model.layers.0.mlp.extra_proj.weight": torch.zeros(2, 2)}), True),
    "an MLP of another width": (lambda f: settings(f, intermediate_size=64), True),
    "a hidden size of another model": (lambda f: settings(f, hidden_size=48), True),
    "a matrix of another size": (lambda f: tensors(f, lambda t: t | {Q: torch.zeros(16, 32)}), True),
    "NaN in a matrix": (lambda f: tensors(f, lambda t: t | {Q: torch.full_like(t[Q], float("nan"))}), True),
    "infinity in a norm": (lambda f: tensors(f, lambda t: t | {"model.norm.weight": t["model.norm.weight"] + float("inf")}), True),
    "GPTQ": (lambda f: settings(f, quantization_config={"quant_method": "gptq", "bits": 4}), True),
    "AWQ": (lambda f: settings(f, quantization_config={"quant_method": "awq", "bits": 4}), True),
    "bitsandbytes": (lambda f: settings(f, quantization_config={"load_in_4bit": True}), True),
    "a special token that the model does not know": (lambda f: more_tokens(f), True),
    "a block missing in the middle": (lambda f: (settings(f, num_hidden_layers=3), tensors(f, lambda t: {k.replace("layers.1", "layers.2"): v for k, v in t.items()})), True),
    "heads of another width": (lambda f: settings(f, head_dim=16), True),
    "fewer key heads than the weights have": (lambda f: settings(f, num_key_value_heads=1), True),
    "weights in eight-bit floats": (lambda f: tensors(f, typed(torch.float8_e4m3fn)), True),
    "one matrix in eight-bit integers": (lambda f: tensors(f, typed(torch.int8, Q)), True),
    "the last number of a matrix is none": (lambda f: tensors(f, lambda t: t | {Q: spoiled(t[Q], -1)}), True),
    "infinity in half precision": (lambda f: tensors(f, lambda t: {k: spoiled(v.half(), 7, float("-inf")) if k == Q else v.half() for k, v in t.items()}), True),
    "NaN in bfloat16": (lambda f: tensors(f, lambda t: {k: spoiled(v.bfloat16(), 3) if k == Q else v.bfloat16() for k, v in t.items()}), True),
    "one more tensor in every block": (lambda f: tensors(f, lambda t: t | {f"model.layers.{i}.mlp.extra_proj.weight": torch.zeros(2, 2) for i in (0, 1)}), False),
}  # fmt: skip


def test_a_whole_folder_is_planned_and_loaded(folder):
    contract.check(folder)
    folders.load(folder)


@pytest.mark.parametrize(("break_it", "at_planning"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_folder_is_one_block(folder, break_it, at_planning):
    break_it(folder)
    if at_planning:
        with pytest.raises(HoldfastError) as error:
            contract.check(folder)
        assert "\n  do:" in error.value.block() and str(folder) in error.value.block()
    if "quantised" in str(error.value if at_planning else ""):
        return  # whether another library could load it does not matter
    with pytest.raises(HoldfastError) as error:
        folders.load(folder)
    assert "Traceback" not in error.value.block() and error.value.found


def test_the_weight_that_is_tied_may_be_left_out(folder, model, tokenizer, tmp_path):
    assert model.config.tie_word_embeddings
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    folders.load(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_any_plain_type_passes(folder, dtype):
    tensors(folder, typed(dtype))
    contract.check(folder)
    assert folders.load(folder)[0].dtype == torch.float32


@pytest.mark.parametrize("place", [0, 70_000, -1])
@pytest.mark.parametrize("count", [140_001, 70_001])
def test_the_sample_is_of_the_beginning_the_middle_and_the_end(tmp_path, count, place):
    whole = torch.ones(count)
    for tensor, ends in ((whole, False), (spoiled(whole, count // 2 if place == 70_000 else place), True)):
        save_file({"w": tensor}, tmp_path / "model.safetensors")
        if ends:
            with pytest.raises(ArtifactError, match="no numbers"):
                weights.check_sample(tmp_path, weights.tensors(tmp_path))
        else:
            weights.check_sample(tmp_path, weights.tensors(tmp_path))
