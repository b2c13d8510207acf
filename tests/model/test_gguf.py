"""A GGUF file is opened up once into the model that it was made from, as far as it was not rounded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from shipped import written

from holdfast.errors import ChatTemplateError, HoldfastError
from holdfast.model import folders, gguf, hub
from holdfast.record import container
from holdfast.study import costs, preflight, resolve
from holdfast.study.models import Base

library = pytest.importorskip("gguf", reason="pip install 'holdfast[gguf]'")


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
