"""Model folders of others: what could not be loaded is refused at planning, and no code of theirs is run."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast.errors import ArtifactError, ChatTemplateError, HoldfastError
from holdfast.model import contract, folders, template


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def edit(folder, name="config.json", **changes):
    path = folder / name
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({k: v for k, v in (data | changes).items() if v is not ...}))


def refused(folder, says=""):
    with pytest.raises(HoldfastError) as error:
        contract.check(folder)
    assert says in error.value.block() and "\n  do:" in error.value.block()


CONFIGS = {
    "no type": ({"model_type": ...}, "does not understand"),
    "an unknown type": ({"model_type": "foo"}, "does not understand"),
    "another text_config": ({"model_type": "foo", "text_config": "x"}, ""),
    "an encoder": ({"architectures": ["BertModel"]}, "no language model"),
    "an encoder and a decoder": ({"model_type": "t5", "architectures": ["T5Model"]}, ""),
    "code of its own": ({"model_type": "foo", "auto_map": {"AutoConfig": "x.C"}}, "no code"),
    "no sizes": ({"hidden_size": ..., "intermediate_size": ...}, ""),
    "an untied head by default": ({"tie_word_embeddings": ...}, "output layer"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "says"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_cannot_be_loaded_is_refused_at_planning(folder, change, says, monkeypatch):
    (folder / "x.py").write_text("raise SystemExit('code of the checkpoint ran')\n")
    monkeypatch.setattr("builtins.input", lambda *a: "y")
    edit(folder, **change)
    refused(folder, says)
    with pytest.raises(HoldfastError):
        folders.load(folder)


def test_code_of_a_known_type_is_not_run(folder, monkeypatch):
    """Some models bring code although transformers knows them."""
    (folder / "x.py").write_text("raise SystemExit('code of the checkpoint ran')\n")
    monkeypatch.setattr("builtins.input", lambda *a: "y")
    edit(folder, auto_map={"AutoConfig": "x.C", "AutoModelForCausalLM": "x.M"})
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.T", None]})
    contract.check(folder)
    assert type(folders.load(folder)[0]).__name__ == "LlamaForCausalLM"


def test_the_file_that_is_looked_at_is_the_one_that_is_loaded(folder):
    """Where one file and an index lie side by side transformers takes the file."""
    whole = load_file(folder / "model.safetensors")
    save_file({k: v * 3 for k, v in whole.items()}, folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(whole, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    contract.check(folder)
    model, _ = folders.load(folder)
    name = "model.norm.weight"
    assert torch.equal(model.state_dict()[name], whole[name])
    (folder / "model-00001-of-00001.safetensors").unlink()
    contract.check(folder)  # nobody reads the shard
    save_file({name: whole[name]}, folder / "model.safetensors")
    refused(folder)


def _in_two(folder):
    """The weights in two files, as an index names them: {tensor: file}."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    where = {n: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(where.values()):
        save_file({n: whole[n] for n in names if where[n] == file}, folder / file)
    return whole, where


def test_a_tensor_is_in_the_file_that_the_index_names_and_in_no_other(folder):
    """Of two copies the last file's was loaded, whichever the index named."""
    whole, where = _in_two(folder)
    index, name = folder / "model.safetensors.index.json", "model.norm.weight"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    contract.check(folder)
    other = next(f for f in where.values() if f != where[name])
    index.write_text(json.dumps({"metadata": {}, "weight_map": where | {name: other}}))
    refused(folder, "does not fit its files")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {k: v for k, v in where.items() if k != name}}))
    refused(folder, "no such tensor")
    index.write_text(json.dumps({"metadata": {}, "weight_map": where | {"model.extra.weight": other}}))
    refused(folder, "no model.extra.weight")
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    save_file({n: whole[n] + 1 for n in [*(k for k in whole if where[k] == other), name]}, folder / other)
    refused(folder, f"{name} in")


@pytest.mark.parametrize("place", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", 5, None, ["x"]])
def test_an_index_names_files_beside_it(folder, place):
    (folder / "model.safetensors").rename(folder / "w.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": "w.safetensors", "b": place}})
    )
    refused(folder, "weight_map")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {}}))
    refused(folder, "weight_map")


WRAPPED = {
    "an adapter inside": lambda k: k.replace("q_proj.weight", "q_proj.base_layer.weight"),
    "compiled inside": lambda k: k.replace("model.layers", "model._orig_mod.layers"),
    "compiled blocks": lambda k: k.replace("self_attn", "_orig_mod.self_attn"),
}


@pytest.mark.parametrize("rename", WRAPPED.values(), ids=WRAPPED)
def test_a_model_inside_a_wrapper_is_refused(folder, rename):
    found = load_file(folder / "model.safetensors")
    save_file({rename(k): v for k, v in found.items()}, folder / "model.safetensors")
    refused(folder, "wrapper")


def test_an_adapter_beside_a_model_would_be_loaded_into_it(folder):
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "adapter_config.json")


def entry(dtype, count, begin, end):
    return {"dtype": dtype, "shape": [count], "data_offsets": [begin, end]}


HEADERS = {
    "shorter than its type says": {"w": entry("F32", 4, 0, 8)},
    "a hole": {"a": entry("F32", 1, 0, 4), "b": entry("F32", 1, 8, 12)},
    "one over the other": {"a": entry("F32", 2, 0, 8), "b": entry("F32", 2, 4, 12)},
    "an unknown type": {"w": entry("Q4", 4, 0, 2)},
    "metadata as a list": {"__metadata__": ["x"]},
    "metadata with a number": {"__metadata__": {"a": 1}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_fit_its_data_is_damage(folder, header):
    raw = json.dumps(header).encode()
    size = max((e["data_offsets"][1] for e in header.values() if "data_offsets" in e), default=0)
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
    refused(folder)


@pytest.mark.parametrize("ends", ["128001", True, 2.5, [[2]], ["2"], {"a": 1}])
def test_end_tokens_that_are_no_ids_are_refused(folder, tokenizer, ends):
    with pytest.raises(ArtifactError, match="which tokens end an answer"):
        template.stop_ids(tokenizer, ends)
    edit(folder, "generation_config.json", eos_token_id=ends)
    refused(folder)


CLOCKS = [
    "{% set f = strftime_now %}{{ f('%d %b %Y') }}", "{{ strftime_now ('%A') | upper if false else strftime_now }}",
    "{% if strftime_now is defined %}{{ strftime_now(form) }}{% endif %}",
    "{% set now = [strftime_now] %}{{ now[0]('%Y') }}",
]  # fmt: skip


@pytest.mark.parametrize("text", CLOCKS)
def test_no_way_to_the_clock_is_left(text):
    with pytest.raises(ChatTemplateError, match="reads the clock"):
        template.dated(text)


def test_a_question_whether_there_is_a_clock_stays():
    for text in ("{% if strftime_now is defined %}a{% endif %}", "{% if strftime_now is not defined %}a{% endif %}"):
        assert template.dated(text) == text


@pytest.mark.parametrize("value", [{"a": "x", "b": "y"}, 5, ["x"]])
def test_a_template_that_is_none_is_one_block(tokenizer, value):
    other = copy.deepcopy(tokenizer)
    other.chat_template = value
    with pytest.raises(ChatTemplateError):
        template.render(other, [{"role": "user", "content": "x"}], generation=True)
