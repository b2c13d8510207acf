"""A model that does not hold every tensor of its configuration, as it was trained, is never loaded."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

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
    "a prefix of torch.compile": lambda f: tensors(f, prefixed("_orig_mod.")),
    "a prefix of DDP": lambda f: tensors(f, prefixed("module.")),
    "a prefix of a wrapper on the blocks": lambda f: tensors(f, prefixed("base_model.", lambda k: "layers" in k)),
    "a block too few": lambda f: tensors(f, without("layers.1.")),
    "a block too many": lambda f: settings(f, num_hidden_layers=1),
    "one matrix missing": lambda f: tensors(f, without(Q)),
    "one norm missing": lambda f: tensors(f, without("model.norm")),
    "one more tensor": lambda f: tensors(f, lambda t: t | {"model.layers.0.mlp.extra_proj.weight": torch.zeros(2, 2)}),
    "an MLP of another width": lambda f: settings(f, intermediate_size=64),
    "a hidden size of another model": lambda f: settings(f, hidden_size=48),
    "a matrix of another size": lambda f: tensors(f, lambda t: t | {Q: torch.zeros(16, 32)}),
    "NaN in a matrix": lambda f: tensors(f, lambda t: t | {Q: torch.full_like(t[Q], float("nan"))}),
    "infinity in a norm": lambda f: tensors(f, lambda t: t | {"model.norm.weight": t["model.norm.weight"] + float("inf")}),
    "GPTQ": lambda f: settings(f, quantization_config={"quant_method": "gptq", "bits": 4}),
    "AWQ": lambda f: settings(f, quantization_config={"quant_method": "awq", "bits": 4}),
    "bitsandbytes": lambda f: settings(f, quantization_config={"load_in_4bit": True}),
    "a special token that the model does not know": lambda f: more_tokens(f),
    "a block missing in the middle": lambda f: (settings(f, num_hidden_layers=3), tensors(f, lambda t: {k.replace("layers.1", "layers.2"): v for k, v in t.items()})),
    "heads of another width": lambda f: settings(f, head_dim=16),
    "fewer key heads than the weights have": lambda f: settings(f, num_key_value_heads=1),
    "weights in eight-bit floats": lambda f: tensors(f, typed(torch.float8_e4m3fn)),
    "one matrix in eight-bit integers": lambda f: tensors(f, typed(torch.int8, Q)),
    "the last number of a matrix is none": lambda f: tensors(f, lambda t: t | {Q: spoiled(t[Q], -1)}),
    "infinity in half precision": lambda f: tensors(f, lambda t: {k: spoiled(v.half(), 7, float("-inf")) if k == Q else v.half() for k, v in t.items()}),
    "NaN in bfloat16": lambda f: tensors(f, lambda t: {k: spoiled(v.bfloat16(), 3) if k == Q else v.bfloat16() for k, v in t.items()}),
    "one more tensor in every block": lambda f: tensors(f, lambda t: t | {f"model.layers.{i}.mlp.extra_proj.weight": torch.zeros(2, 2) for i in (0, 1)}),
    "biases in the attention": lambda f: settings(f, attention_bias=True),
    "biases in the MLP": lambda f: settings(f, mlp_bias=True),
    "biases that the model has not": lambda f: tensors(f, lambda t: t | {Q.replace("weight", "bias"): torch.zeros(32)}),
    "a number that is none": lambda f: settings(f, rms_norm_eps=float("nan")),
    "an activation that nobody knows": lambda f: settings(f, hidden_act="wobble"),
    "positions stretched in a way that nobody knows": lambda f: settings(f, rope_scaling={"rope_type": "wobble", "factor": 2.0}),
    "another architecture of the same tensors' names": lambda f: settings(f, model_type="qwen3", architectures=["Qwen3ForCausalLM"]),
}  # fmt: skip


def test_a_whole_folder_is_planned_and_loaded(folder):
    contract.check(folder)
    folders.load(folder)
    settings(folder, time_step_limit=[0.0, float("inf")])  # as some have it, for no limit
    contract.check(folder)


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_folder_is_one_block_at_planning_and_at_loading(folder, break_it):
    break_it(folder)
    with pytest.raises(HoldfastError) as error:
        contract.check(folder)
    assert "\n  do:" in error.value.block() and str(folder) in error.value.block()
    if "quantised" in str(error.value):
        return  # whether another library could load it does not matter
    with pytest.raises(HoldfastError) as error:
        folders.load(folder)
    assert "Traceback" not in error.value.block() and error.value.found


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma2", "gpt_neox", "gpt2", "phi3", "olmo2", "mixtral"])
def test_other_architectures_are_looked_over_by_their_own_tensors(kind, tokenizer, tmp_path):
    """Biases here, norms there, names of their own, experts that a file holds one by one."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(tokenizer) + 8, "max_position_embeddings": 128,
             "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    made.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    contract.check(tmp_path / "m")
    folders.load(tmp_path / "m")
    found = sorted(load_file(tmp_path / "m/model.safetensors"))
    gone = next(name for name in found if "norm" in name or "ln_" in name)
    tensors(tmp_path / "m", without(gone))
    with pytest.raises(HoldfastError):
        contract.check(tmp_path / "m")


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
