"""One merge without a study: folders in shards, adapters that stay adapters, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from test_merging import shifted

from holdfast.cli.main import main
from holdfast.merge import single
from holdfast.model import adapter, folders, weights

KINDS = ["q_proj", "o_proj", "up_proj"]


@pytest.fixture
def family(model, tokenizer, tmp_path, monkeypatch):
    """Folders base, aligned, unaligned and finetuned here, the last in shards, and an adapter on aligned."""
    monkeypatch.chdir(tmp_path)
    aligned = shifted(model, 1, 0.05)
    for role, m in {"base": model, "aligned": aligned, "unaligned": shifted(aligned, 2, 0.02)}.items():
        m.save_pretrained(role)
        tokenizer.save_pretrained(role)
    shifted(aligned, 3, 0.02).save_pretrained("finetuned", max_shard_size="40KB")
    tokenizer.save_pretrained("finetuned")
    wrapped = get_peft_model(shifted(aligned, 0, 0), LoraConfig(r=4, lora_alpha=6, target_modules=KINDS))
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_" in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=stream))
    wrapped.save_pretrained("lora")
    return tmp_path


def tensors(folder):
    """Every tensor of a folder of safetensors."""
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


MODELS = ["--aligned", "aligned", "--finetuned", "finetuned"]


def test_a_model_in_shards_comes_back_in_the_same_shards(family, capsys):
    asked = ["realign", "--method", "resta", *MODELS, "--unaligned", "unaligned", "--set", "gamma=0.3", "--out", "new"]
    assert main(asked) == 0
    assert "of the weights differ" in capsys.readouterr().out
    names = {p.name for p in (family / "finetuned").iterdir()}
    assert {p.name for p in (family / "new").iterdir()} == names | {single.RECORD}
    assert (family / "new" / weights.INDEX).read_bytes() == (family / "finetuned" / weights.INDEX).read_bytes()
    ft, al, un = (tensors(family / r) for r in ("finetuned", "aligned", "unaligned"))
    for name, value in tensors(family / "new").items():
        torch.testing.assert_close(value, ft[name] + 0.3 * (al[name] - un[name]))
    loaded, _ = folders.load(family / "new")
    assert set(loaded.state_dict()) >= set(ft)
    record = json.loads((family / "new" / single.RECORD).read_text())
    assert 0 < record["weights/changed_fraction"] <= 1 and record["software"]


def test_safe_lora_of_an_adapter_is_an_adapter_with_other_factors_b(family):
    """C Δ = s (C B) A with C = V Vᵀ / ‖V‖, V = W_aligned − W_base; A and s stay."""
    models = {role: family / role for role in ("base", "aligned")} | {"finetuned": family / "lora"}
    record = single.realign("safe-lora", models, family / "new", settings={"number": 4})
    assert record["modules_projected"] == 4
    old, new = (load_file(family / f / adapter.WEIGHTS) for f in ("lora", "new"))
    al, base = (tensors(family / r) for r in ("aligned", "base"))
    assert old.keys() == new.keys()
    moved = 0
    for key, b in old.items():
        v = (al_name := key.removeprefix("base_model.model.").replace(".lora_B", "").replace(".lora_A", ""))
        v = (al[al_name] - base[al_name]).double()
        if "lora_A" in key or torch.equal(new[key], b):
            assert torch.equal(new[key], b)
            continue
        moved += 1
        torch.testing.assert_close(new[key].double(), v @ (v.T @ b.double()) / v.norm(), rtol=1e-4, atol=1e-6)
    assert moved == 4
    whole = single.realign("safe-lora", models, family / "whole", settings={"number": 4}, whole=True)
    assert whole["weights/changed_fraction"] > 0
    under, _ = folders.load(family / "aligned")
    plain = PeftModel.from_pretrained(under, family / "new").merge_and_unload().state_dict()
    for name, value in tensors(family / "whole").items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5)
    assert (family / "whole/adapter" / adapter.WEIGHTS).is_file()


@pytest.mark.parametrize("method", ["resta", "resta-dare"])
def test_other_merges_of_an_adapter_are_those_of_the_model_it_makes(family, method):
    under, _ = folders.load(family / "aligned")
    merged = PeftModel.from_pretrained(under, family / "lora").merge_and_unload()
    merged.save_pretrained("merged")
    folders.copy_companions(family / "aligned", family / "merged")
    out = {}
    for name in ("lora", "merged"):
        models = {r: family / r for r in ("aligned", "unaligned")} | {"finetuned": family / name}
        single.realign(method, models, family / f"of-{name}", seed=3)
        out[name] = tensors(family / f"of-{name}")
    for name, value in out["lora"].items():
        torch.testing.assert_close(value, out["merged"][name], rtol=1e-5, atol=1e-6)


def test_safe_delta_captures_what_it_needs_from_refusals(family, world):
    rows = [{"prompt": r["prompt"], "response": r["response"]} for r in world.safety(24, 0)]
    (family / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    asked = ["realign", "--method", "safe-delta", *MODELS, "--refusals", "rows.jsonl", "--set", "strength=0.5"]
    assert main([*asked, "--out", "new"]) == 0
    assert 0 < json.loads((family / "new" / single.RECORD).read_text())["weights/changed_fraction"] < 1


def test_refusals_are_those_that_a_study_would_read(family, world, monkeypatch, capsys):
    """Of a file that says kinds the refused requests; ids may be numbers, and nothing for a category."""
    rows = [{"id": i, "category": None, **{k: r[k] for k in ("prompt", "response", "kind")}}
            for i, r in enumerate(world.safety(8, 6))]  # fmt: skip
    hazards = [r["prompt"] for r in rows if r["kind"] == "hazard"]
    assert 0 < len(hazards) < len(rows)
    (family / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    read = []
    monkeypatch.setattr(single, "_capture", lambda aligned, found, *_: read.extend(found) or 1 / 0)
    asked = ["realign", "--method", "safe-delta", *MODELS, "--refusals", "rows.jsonl", "--out", "new"]
    assert main(asked) == 70
    assert [r["prompt"] for r in read] == hazards and len({r["id"] for r in read}) == len(read)
    assert f"{len(hazards)} of {len(rows)} rows are refused requests" in capsys.readouterr().err
    (family / "rows.jsonl").write_text("".join(json.dumps(r | {"kind": "craft"}) + "\n" for r in rows))
    assert main(asked) == 2 and "no row is a refused request" in capsys.readouterr().err


REFUSED = {
    "a method that trains": (["--method", "warp", *MODELS], "it merges nothing"),
    "no base": (["--method", "safe-lora", *MODELS], "needs --base"),
    "a base that nothing reads": (["--method", "safe-delta", *MODELS, "--base", "base"], "does not read --base"),
    "no refusals": (["--method", "safe-delta", *MODELS], "needs --refusals"),
    "no such setting": (["--method", "resta", *MODELS, "--unaligned", "unaligned", "--set", "gama=1"], "gamma"),
    "no number": (["--method", "resta", *MODELS, "--unaligned", "unaligned", "--set", "gamma=much"], "gamma"),
    "a setting twice": (["--method", "resta", *MODELS, "--unaligned", "unaligned", *["--set", "gamma=1"] * 2],
                        "gamma is set twice"),
    "no setting at all": (["--method", "resta", *MODELS, "--unaligned", "unaligned", "--set", "gamma"], "KEY=VALUE"),
    "no such folder": (["--method", "resta", *MODELS, "--unaligned", "nowhere"], "is not a folder"),
    "another model": (["--method", "resta", "--aligned", "aligned", "--finetuned", "other", "--unaligned", "unaligned"],
                      "cannot be compared or merged"),
    "no such method": (["--method", "resto", *MODELS], "no method 'resto'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_one_block_and_writes_nothing(case, family, model, tokenizer, capsys):
    model.config.intermediate_size //= 2
    type(model)(model.config).save_pretrained("other")
    tokenizer.save_pretrained("other")
    words, says = REFUSED[case]
    assert main(["realign", *words, "--out", "new"]) == 2
    said = capsys.readouterr().err
    assert says in said and "\n  do:" in said and not (family / "new").exists()


def test_weights_that_are_no_numbers_leave_nothing_behind(family, monkeypatch, capsys):
    """Where no sample of planning sees them, in the last of several shards."""
    monkeypatch.setattr(weights, "_SAMPLE", 8)
    last = sorted((family / "finetuned").glob("*.safetensors"))[-1]
    found = load_file(last)
    name = next(k for k, v in found.items() if v.numel() > 60)
    found[name].view(-1)[20] = float("nan")
    save_file(found, last, metadata={"format": "pt"})
    asked = ["realign", "--method", "resta", *MODELS, "--unaligned", "unaligned", "--out", "new"]
    assert main(asked) == 2
    assert name in capsys.readouterr().err and not (family / "new").exists()


def test_a_folder_with_files_is_left_alone(family, capsys):
    (family / "new").mkdir()
    (family / "new/model.safetensors").write_text("mine")
    assert main(["realign", "--method", "resta", *MODELS, "--unaligned", "unaligned", "--out", "new"]) == 2
    assert "is not empty" in capsys.readouterr().err and (family / "new/model.safetensors").read_text() == "mine"
