"""A GGUF file is opened up once into the model that it was made from, as far as it was not rounded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from holdfast.errors import ChatTemplateError, HoldfastError
from holdfast.model import folders, gguf, hub
from holdfast.record import container
from holdfast.study import costs, preflight, resolve
from holdfast.study.keys import Base

library = pytest.importorskip("gguf", reason="pip install 'holdfast[gguf]'")


def permuted(weight, heads):
    """Rows of a head as llama.cpp keeps them: pairs of rotated coordinates beside each other."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def written(path, model, tokenizer, *, arch="llama", template=True, tokens=True, kind="F32"):
    """The model as a GGUF file, written by the library of llama.cpp."""
    c, types = model.config, library.GGMLQuantizationType
    writer = library.GGUFWriter(path, arch)
    writer.add_name("tiny")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if tokens:
        special = set(tokenizer.all_special_ids)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
        writer.add_token_types([3 if i in special else 1 for i in range(len(tokenizer))])
        writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in vocabulary["merges"]])
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_bos_token_id(tokenizer.bos_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(tokenizer.chat_template)
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            values = permuted(values, c.num_attention_heads if "q_proj" in name else c.num_key_value_heads)
        to = names.get_name(name, try_suffixes=(".weight",))
        blocks = values.ndim == 2 and values.shape[1] % 32 == 0 and "layers" in name
        wanted = types[kind] if blocks else types.F32
        if wanted != types.F32:
            values = library.quants.quantize(values, wanted)
        writer.add_tensor(to, np.ascontiguousarray(values), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HOLDFAST_LOOKED_OVER", raising=False)
    return tmp_path / "cache"


def test_an_exact_file_is_the_model_it_was_made_from(model, tokenizer, tmp_path, cache):
    file = written(tmp_path / "Tiny.F32.gguf", model, tokenizer)
    assert hub.known(str(file)) is None
    found, words = folders.load(str(file))
    assert all(torch.equal(a, found.state_dict()[n]) for n, a in model.state_dict().items())
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Count 1, 22 and 333!"}], tokenize=False)
    assert words.apply_chat_template([{"role": "user", "content": "Count 1, 22 and 333!"}], tokenize=False) == text
    assert words(text)["input_ids"] == tokenizer(text)["input_ids"] and words.eos_token_id == tokenizer.eos_token_id
    place = hub.known(str(file))
    assert place is not None and place.is_relative_to(cache)
    container.check_seal(place / "model.safetensors")
    facts = gguf.facts(str(file), None)
    assert facts["tensors"] == {"F32": len(model.state_dict()) - 1} and facts["file"] == "Tiny.F32.gguf"
    assert json.loads((place / "config.json").read_text()).get("quantization_config") is None


def test_a_file_is_opened_once_and_again_after_a_change(model, tokenizer, tmp_path, cache, monkeypatch):
    file = written(tmp_path / "m.gguf", model, tokenizer)
    folders.load(str(file))
    read, calls = gguf.read, []
    monkeypatch.setattr(gguf, "read", lambda source: calls.append(source) or read(source))
    folders.load(str(file))
    assert calls == []
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    written(file, model, tokenizer)
    found, _ = folders.load(str(file))
    assert len(calls) == 1 and torch.equal(found.model.norm.weight, model.model.norm.weight)


def test_rounded_numbers_stay_as_the_file_has_them(model, tokenizer, tmp_path, cache):
    file = written(tmp_path / "m.Q8_0.gguf", model, tokenizer, kind="Q8_0")
    found, _ = folders.load(str(file))
    name = "model.layers.0.mlp.gate_proj.weight"
    own = model.state_dict()[name].numpy()
    q8 = library.GGMLQuantizationType.Q8_0
    expected = library.quants.dequantize(library.quants.quantize(own, q8), q8)
    assert np.array_equal(found.state_dict()[name].numpy(), expected) and not np.array_equal(own, expected)
    assert gguf.facts(str(file), None)["tensors"]["Q8_0"] == 12  # all but the two whose rows are no multiple of 32


def test_its_shape_is_known_before_it_is_opened(model, tokenizer, tmp_path, cache):
    file = written(tmp_path / "m.gguf", model, tokenizer)
    shape = costs.shape_of(Base(source=str(file)))
    c = model.config
    assert (shape.hidden, shape.mlp, shape.blocks, shape.vocabulary) == (
        c.hidden_size, c.intermediate_size, c.num_hidden_layers, len(tokenizer)
    )  # fmt: skip
    assert not cache.exists()


def test_what_cannot_be_opened_is_one_block_at_planning_and_at_loading(model, tokenizer, tmp_path, cache):
    whole = written(tmp_path / "whole.gguf", model, tokenizer)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[: -whole.stat().st_size // 4])
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"not a model" * 99)
    empty = tmp_path / "empty.gguf"
    empty.touch()
    broken = {
        cut: "cut short|cannot be read", junk: "cannot be read as GGUF", empty: "cannot be read as GGUF",
        written(tmp_path / "kind.gguf", model, tokenizer, arch="wobble"): "does not open",
        written(tmp_path / "words.gguf", model, tokenizer, tokens=False): "has no tokenizer",
    }  # fmt: skip
    for file, says in broken.items():
        for act in (gguf.check, lambda f: folders.load(str(f))):
            with pytest.raises(HoldfastError, match=says) as error:
                act(file)
            assert "\n  do:" in error.value.block()
    with pytest.raises(ChatTemplateError, match="cannot render"):
        gguf.check(written(tmp_path / "chat.gguf", model, tokenizer, template=False))
    with pytest.raises(HoldfastError, match="There is no file"):
        folders.load(str(tmp_path / "nowhere.gguf"))
    assert not cache.exists()


def test_the_package_that_reads_them_is_named_where_it_is_missing(model, tokenizer, tmp_path, cache, monkeypatch):
    file = written(tmp_path / "m.gguf", model, tokenizer)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(HoldfastError, match="is not there") as error:
        gguf.check(file)
    assert "holdfast[gguf]" in error.value.block()


def test_planning_says_of_no_file_that_is_here_that_it_is_not(model, tokenizer, tmp_path, cache):
    file = written(tmp_path / "m.gguf", model, tokenizer)
    study = tmp_path / "mine.yaml"
    study.write_text(json.dumps({
        "base": {"source": str(file)}, "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}},
    }))  # fmt: skip
    said: list[str] = []
    preflight.check_files(resolve.load(str(study)), said.append)
    assert not [line for line in said if "not on this machine" in line]
