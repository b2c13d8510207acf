"""A GGUF file is opened up once into the model that it was made from, as far as it was not rounded."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from shipped import written
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    Qwen3Config,
    Qwen3ForCausalLM,
    StableLmConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from holdfast.cli.main import main
from holdfast.errors import ChatTemplateError, HoldfastError, StudyError
from holdfast.model import folders, gguf, gguf_header, gguf_words, hub, package
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
    byte = tmp_path / "byte.gguf"
    byte.write_bytes(whole.read_bytes()[:-1])
    head = tmp_path / "head.gguf"
    head.write_bytes(whole.read_bytes()[:200])
    turned = tmp_path / "turned.gguf"
    turned.write_bytes(whole.read_bytes()[:4] + whole.read_bytes()[7:3:-1] + whole.read_bytes()[8:])
    text = tmp_path / "text.gguf"
    text.write_bytes(whole.read_bytes().replace(b"<|assistant|>", b"<|\xff\xfe\xfdistant|>"))
    rows = len(tokenizer) - 1
    broken = {
        cut: "cut short", junk: "cannot be read as GGUF", empty: "cannot be read as GGUF",
        byte: "cut short", head: "cut short", turned: "other order of bytes",
        text: "has a header that cannot be read",
        written(tmp_path / "rows.gguf", model, tokenizer, more={"token_embd.weight": np.ones((rows, 32), np.float32)},
                without="embed_tokens"): "more tokens than its model has rows for",
        written(tmp_path / "kind.gguf", model, tokenizer, arch="wobble"): "does not open",
        written(tmp_path / "words.gguf", model, tokenizer, tokens=False): "has no tokenizer",
        written(tmp_path / "deep.gguf", model, tokenizer, facts={"llama.block_count": None}): "not say the shape",
        written(tmp_path / "wide.gguf", model, tokenizer, facts={"llama.embedding_length": 0}): "not say the shape",
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


@pytest.mark.parametrize(("facts", "says"), [
    ({"llama.attention.head_count": 0}, "could not be opened up"),
    ({"general.architecture": None}, "holds a kind of model that transformers does not open"),
    ({"tokenizer.ggml.tokens": None}, "has no tokenizer"),
])  # fmt: skip
def test_a_plan_looks_a_file_over_before_it_reads_its_shape(model, tokenizer, tmp_path, cache, capsys, facts, says):
    file = written(tmp_path / "m.gguf", model, tokenizer, facts=facts)
    study = tmp_path / "mine.yaml"
    study.write_text(json.dumps({
        "base": {"source": str(file)}, "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}},
    }))  # fmt: skip
    assert main(["plan", str(study), "--tflops", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ArtifactError: {file} {says}") and "\n  do:" in said


@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers"])
def test_a_shape_that_nothing_can_be_reckoned_from_is_one_block(tmp_path, key):
    config = tmp_path / "config.json"
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    config.write_text(json.dumps({"model_type": "llama", **sizes, key: 0}))
    with pytest.raises(StudyError, match="does not say the shape of a decoder"):
        costs.shape_of(Base(source=str(tmp_path)))


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


@pytest.mark.parametrize(
    ("how", "says"),
    [({"without": "layers.1.self_attn.q_proj"}, "missing: model.layers.1.self_attn.q_proj.weight"),
     ({"without": "embed_tokens"}, "model.embed_tokens.weight (2)"),
     ({"without": "layers.1."}, "(9)"),
     ({"more": {"blk.0.attn_q.bias": np.ones(32, np.float32)}}, "unknown: blk.0.attn_q.bias"),
     ({"facts": {"split.count": 2, "split.no": 0}}, "2 parts"),
     ({"facts": {"llama.rope.scaling.type": "longrope"}}, "rope.scaling.type longrope"),
     ({"facts": {"llama.rope.scaling.attn_factor": 0.5}}, "rope.scaling.attn_factor 0.5"),
     ({"more": {"rope_freqs.weight": np.array([1, 1, 1, 7], np.float32)}}, "rope_freqs.weight["),
     ({"eos": False}, "no tokenizer.ggml.eos_token_id"),
     ({"pre": "deepseek-llm"}, "tokenizer.ggml.pre deepseek-llm")],
)  # fmt: skip
def test_a_file_that_would_open_as_another_model_is_one_block(model, tokenizer, tmp_path, cache, how, says):
    file = written(tmp_path / "m.gguf", model, tokenizer, **how)
    with pytest.raises(HoldfastError) as error:
        folders.load(str(file))
    assert says in error.value.block() and "\n  do:" in error.value.block()
    assert not cache.exists()


def test_a_tensor_of_another_size_is_named(model, tokenizer, tmp_path, cache):
    file = written(tmp_path / "m.gguf", model, tokenizer, facts={"llama.vocab_size": len(tokenizer) + 1})
    with pytest.raises(HoldfastError, match="not the whole of a model") as error:
        folders.load(str(file))
    assert "of another size: model.embed_tokens.weight" in error.value.found


def stretched(factor, width, theta):
    """What llama.cpp keeps of Llama 3's way to stretch positions: a divisor for each frequency."""
    config = LlamaConfig(
        hidden_size=width, num_attention_heads=1, max_position_embeddings=131072,
        rope_parameters={"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    )  # fmt: skip
    plain = 1 / theta ** (torch.arange(0, width, 2) / width)
    return config.rope_parameters, (plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]).numpy()


@pytest.mark.parametrize("how", ["llama3", "linear", "yarn", "of 2023"])
def test_positions_are_stretched_as_the_file_says(model, tokenizer, tmp_path, cache, how):
    theta = 500000.0
    rope, divisors = stretched(32.0, model.config.head_dim, theta)
    if how == "llama3":
        told = {"more": {"rope_freqs.weight": divisors}}
    else:
        told = {"facts": {"llama.rope.scaling.type": how, "llama.rope.scaling.factor": 4.0}}
        rope = {"rope_type": how, "rope_theta": theta, "factor": 4.0}
    if how == "yarn":
        told["facts"] |= {"llama.rope.scaling.original_context_length": 64, "llama.rope.scaling.yarn_beta_fast": 8.0,
                          "llama.rope.scaling.attn_factor": 1.0}  # fmt: skip
        rope |= {"original_max_position_embeddings": 64, "beta_fast": 8.0}
    if how == "of 2023":
        told, rope = {"facts": {"llama.rope.scale_linear": 4.0}}, rope | {"rope_type": "linear"}
    config = type(model.config).from_dict(model.config.to_dict() | {"rope_parameters": rope})
    original = type(model)(config).eval()
    found, _ = folders.load(str(written(tmp_path / "m.gguf", original, tokenizer, **told)))
    ids = torch.arange(5, 105)[None]
    with torch.no_grad():
        assert torch.equal(found(ids).logits, original(ids).logits)
        assert not torch.allclose(original(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [(None, ["a", "\n", "\n", "12", "."]), ("smollm", ["a", "\n\n", "1", "2", "."]),
     ("qwen2", ["a", "\n\n", "1", "2", "."]), ("llama-bpe", ["a", "\n\n", "12", "."])],
)  # fmt: skip
def test_texts_are_split_as_the_file_says(model, tokenizer, tmp_path, cache, pre, pieces):
    _, words = folders.load(str(written(tmp_path / "m.gguf", model, tokenizer, pre=pre)))
    found = [piece for piece, _ in words.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n12.")]
    assert [piece.replace("\u010a", "\n") for piece in found] == pieces
    assert words.backend_tokenizer.model.ignore_merges == (pre == "llama-bpe")
    assert (words.tokenize("e\u0301") == words.tokenize("\u00e9")) == (pre == "qwen2")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [({}, ["\u2581a", "\u2581\u2581", "a", "\u2581\u2581", "\u2581a"]),
     ({"tokenizer.ggml.add_space_prefix": False}, ["a", "\u2581a", "\u2581\u2581", "a"])],
)  # fmt: skip
def test_spaces_before_a_text_are_those_of_llama_cpp(model, tokenizer, tmp_path, cache, facts, expected):
    """Before every text, after special tokens, and before spaces; or nowhere, where the file says so."""
    special, end = set(tokenizer.all_special_ids), tokenizer.eos_token
    spelled = ["\u2581", "a", "\u2581\u2581", "\u2581a"]
    pieces = {f"[{i}]": -1e4 for i in range(max(special) + 1)} | {word: -float(i) for i, word in enumerate(spelled)}
    _, words = folders.load(str(written(tmp_path / "m.gguf", model, tokenizer, pieces=pieces, facts=facts)))
    found = words.convert_ids_to_tokens(words(f"a{end} a{end}  a", add_special_tokens=False)["input_ids"])
    assert [word for word in found if word != end] == expected and found.count(end) == 2


def test_runs_of_spaces_that_are_words_of_their_own_stay_whole(model, tokenizer, tmp_path, cache):
    last = len(tokenizer) - 1
    _, words = folders.load(str(written(tmp_path / "m.gguf", model, tokenizer, words={last: ("   ", 4)})))
    ids = words("a   a", add_special_tokens=False)["input_ids"]
    assert len(words) == len(tokenizer) and last in ids and words.decode(ids) == "a   a"
    assert last not in words("a  a", add_special_tokens=False)["input_ids"]


def test_texts_are_the_tokens_that_llama_cpp_says(tmp_path):
    """Its vocabularies, each with texts and the tokens it makes of them: models/ggml-vocab-*.gguf of its repository."""
    folder = os.environ.get("HOLDFAST_LLAMA_CPP", "")
    files = sorted(Path(folder).glob("ggml-vocab-*.gguf")) if folder else []
    if not files:
        pytest.skip("HOLDFAST_LLAMA_CPP names no folder with llama.cpp's vocabularies (models/ of its repository)")
    compared = 0
    for file in files:
        reader, texts = gguf._reader(file), Path(f"{file}.inp")
        of, way = (gguf._field(reader, f"tokenizer.ggml.{k}") for k in ("model", "pre"))
        split = of == "llama" or of == "gpt2" and way in gguf_words.known()
        if not texts.exists() or not split or gguf._field(reader, "general.architecture") not in gguf._kinds():
            continue
        words = gguf._words(file, reader)
        told = Path(f"{file}.out").read_text(encoding="utf-8").split("\n")
        for text, ids in zip(texts.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n"), told, strict=True):
            assert words(text, add_special_tokens=False)["input_ids"] == [int(i) for i in ids.split()], (
                file.name,
                text,
            )
            compared += 1
    assert compared


def test_what_transformers_leaves_at_its_defaults_is_what_the_header_says(model, tokenizer, tmp_path):
    model.config.rope_parameters["rope_theta"] = 50000.0
    file = written(tmp_path / "s.gguf", model, tokenizer, arch="stablelm")
    config = StableLmConfig(hidden_size=32, num_attention_heads=4)
    gguf_header.tell(file, library.GGUFReader(file), config)
    assert config.rope_parameters["rope_theta"] == 50000.0
    assert config.rope_parameters["partial_rotary_factor"] == 1.0  # all 8 dimensions of a head, not a quarter
    file = written(tmp_path / "p.gguf", model, tokenizer, arch="phi3", facts={"phi3.attention.sliding_window": 16})
    config = Phi3Config(hidden_size=32, num_attention_heads=4)
    gguf_header.tell(file, library.GGUFReader(file), config)
    assert config.sliding_window == 16
    told = {"gemma2.attn_logit_softcapping": 5.0, "gemma2.final_logit_softcapping": 2.0}
    file = written(tmp_path / "2.gguf", model, tokenizer, arch="gemma2", facts=told)
    config = Gemma2Config(hidden_size=32, num_attention_heads=4, head_dim=8)
    gguf_header.tell(file, library.GGUFReader(file), config)
    assert (config.attn_logit_softcapping, config.final_logit_softcapping) == (5.0, 2.0)
    file = written(tmp_path / "3.gguf", model, tokenizer, arch="gemma3", facts={"gemma3.rope.freq_base_swa": 20000.0})
    config = Gemma3TextConfig(hidden_size=32, num_attention_heads=4, head_dim=8)
    gguf_header.tell(file, library.GGUFReader(file), config)
    assert [config.rope_parameters[k]["rope_theta"] for k in ("full_attention", "sliding_attention")] == [5e4, 2e4]


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_layer_of_its_own_is_known_from_the_header_and_opened(model, tokenizer, tmp_path, cache, tied):
    config = type(model.config).from_dict(model.config.to_dict() | {"tie_word_embeddings": tied})
    original = type(model)(config)
    file = written(tmp_path / "m.gguf", original, tokenizer)
    assert gguf.config(file)["tie_word_embeddings"] == tied
    found, _ = folders.load(str(file))
    assert torch.equal(found.lm_head.weight, original.lm_head.weight)
    assert torch.equal(found.lm_head.weight, found.model.embed_tokens.weight) == tied


def test_heads_of_another_width_than_transformers_takes_for_granted(model, tokenizer, tmp_path, cache):
    shape = {
        k: getattr(model.config, k) for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    }
    config = Qwen3Config(**shape, head_dim=16, num_attention_heads=4, num_key_value_heads=2, pad_token_id=None,
                         max_position_embeddings=128)  # fmt: skip
    original = Qwen3ForCausalLM(config)
    file = written(tmp_path / "m.gguf", original, tokenizer, arch="qwen3", pre="qwen2")
    found, _ = folders.load(str(file))
    assert found.config.head_dim == 16 and gguf.config(file)["head_dim"] == 16
    ids = torch.tensor([[5, 7, 11, 2]])
    assert torch.equal(found(ids).logits, original(ids).logits)


def test_a_folder_may_be_called_like_a_file(model, tokenizer, tmp_path, cache):
    place = tmp_path / "tiny.gguf"
    folders.save(model, tokenizer, place, header={})
    assert hub.known(str(place)) == place
    found, _ = folders.load(str(place))
    assert torch.equal(found.model.norm.weight, model.model.norm.weight)


def test_a_special_token_that_the_model_has_no_row_for_is_none(model, tokenizer, tmp_path):
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"mask_token": "<mask>"})
    own = gguf._own_tokens(more, gguf._reader(written(tmp_path / "m.gguf", model, tokenizer)))
    assert len(own) == len(tokenizer) and own.mask_token is None and own.eos_token == tokenizer.eos_token


def test_a_folder_that_was_killed_while_it_was_made_is_made_again(model, tokenizer, tmp_path, cache):
    file = written(tmp_path / "m.gguf", model, tokenizer)
    half = gguf.folder(file)
    (half / ".saving-killed").mkdir(parents=True)
    (half / gguf.FACTS).write_text("{}")
    assert hub.known(str(file)) is None
    found, _ = folders.load(str(file))
    assert torch.equal(found.model.norm.weight, model.model.norm.weight)
    assert gguf.facts(str(file), None)["file"] == "m.gguf" and not list(half.glob(".saving-*"))


def test_a_cache_that_cannot_be_written_is_one_block(model, tokenizer, tmp_path, monkeypatch):
    file = written(tmp_path / "m.gguf", model, tokenizer)
    monkeypatch.setattr(package.subprocess, "run", lambda *args, **more: pytest.fail("fetched"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "file"))
    for source, revision in ((str(file), None), ("pypi:tiny-model==1.0", "0" * 64)):
        with pytest.raises(HoldfastError, match="cache .* cannot be written") as error:
            folders.load(source, revision=revision)
        assert "HOLDFAST_CACHE" in error.value.block()


def not_a_number(model, tokenizer):
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan


def speechless(model, tokenizer):
    tokenizer.chat_template = "{{ raise_exception('nobody talks') }}"


def dividing(model, tokenizer):
    tokenizer.chat_template = "{{ 1 // 0 }}"


@pytest.mark.parametrize("how", [not_a_number, speechless, dividing])
def test_what_is_refused_as_it_is_opened_is_told_of_the_file_and_nothing_is_kept(
    model, tokenizer, tmp_path, cache, how
):
    model, tokenizer = copy.deepcopy(model), copy.deepcopy(tokenizer)  # others have the same
    how(model, tokenizer)
    file = written(tmp_path / "m.gguf", model, tokenizer)
    for _ in range(2):
        with pytest.raises(HoldfastError) as error:
            folders.load(str(file))
        assert str(file) in error.value.what and str(cache) not in error.value.block()
        assert str(file) in str(error.value) and not gguf.folder(file).exists()
