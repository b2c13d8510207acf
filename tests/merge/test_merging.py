"""Merge methods: identities, the published equations in float64, and what the driver promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from holdfast.errors import ArtifactError
from holdfast.merge import driver, fusion
from holdfast.model import folders
from holdfast.model.layers import of_weight
from holdfast.record import artifact, container
from holdfast.study import registry

MERGES = [m for m in registry.method_names() if registry.header(m).kind == "merge"]


def shifted(model, seed, scale):
    """The same model with every weight moved a little."""
    import copy

    out = copy.deepcopy(model)
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in out.parameters():
            p.add_(scale * torch.randn(p.shape, generator=stream))
    return out


@pytest.fixture
def family(model, tokenizer, tmp_path):
    """role -> model.safetensors of four related models."""
    aligned = shifted(model, 1, 0.05)
    family = {
        "base": model, "aligned": aligned, "unaligned": shifted(aligned, 2, 0.02),
        "finetuned": shifted(aligned, 3, 0.02),
    }  # fmt: skip
    out = {}
    for role, m in family.items():
        folders.save(m, tokenizer, tmp_path / role, header={"role": role})
        out[role] = tmp_path / role / "model.safetensors"
    return out


@pytest.fixture
def gram_file(family, encoded, tmp_path):
    from holdfast import names
    from holdfast.model import layers
    from holdfast.warp import gram

    m, tok = folders.load(family["aligned"].parent)
    targets = layers.resolve(m, names.MODULE_KINDS)
    grams, _ = gram.capture(m, targets, encoded, batch_size=8, pad_id=tok.pad_token_id)
    path = tmp_path / "gram.safetensors"
    artifact.write(
        path, grams, family="gram",
        header={"layers": list(grams), "aligned": container.identity(family["aligned"])},
    )  # fmt: skip
    return path


@pytest.fixture
def merge(family, gram_file, world, tmp_path):
    """merge(method, settings, **other checkpoints) -> (weights, record)."""

    def run(name, settings=None, out="out", **checkpoints):
        method = registry.load(name)
        record = driver.run(
            checkpoints={role: path.parent for role, path in (family | checkpoints).items()},
            cfg={"method": name, "settings": method.Settings(**(settings or {})).model_dump(mode="json"), "seed": 0},
            folder=tmp_path / out, record_file=tmp_path / out / "train.json", gram_file=gram_file,
            preferences=world.preferences(12),
        )  # fmt: skip
        return load_file(tmp_path / out / "model.safetensors"), record

    return run


IDENTITIES = [
    ("resta", {"gamma": 0}, "finetuned"),
    ("resta", {"gamma": 0, "vector": "base"}, "finetuned"),
    ("resta-dare", {"gamma": 0, "drop": 0}, "finetuned"),
    ("safe-lora", {"threshold": -2}, "finetuned"),
    ("safe-lora", {"number": 0}, "finetuned"),
    ("safe-delta", {"strength": 1, "never_kept": 0, "elsewhere": "finetuned"}, "finetuned"),
    (
        "safe-delta",
        {"strength": 1e9, "budget": "published", "never_kept": 0, "elsewhere": "finetuned", "tile": 8},
        "finetuned",
    ),
    ("safe-delta", {"strength": 0}, "aligned"),
    ("safe-delta", {"strength": 0, "budget": "published", "tile": 8, "group": 1}, "aligned"),
    ("somf", {"mask": "none"}, "finetuned"),
    ("somf", {"mask": "none", "weight": 0}, "aligned"),
    ("ptst", {}, "finetuned"),
    ("lead-merge", {"rank_fraction": 1, "elsewhere": "aligned"}, "aligned"),
    ("soup", {"weight": 0}, "finetuned"),
    ("soup", {"weight": 1}, "aligned"),
    ("task-vectors", {"weight": 0}, "base"),
    ("lssf", {"strength": 0}, "finetuned"),
    ("nlsr", {"probability": 0, "spread": 0}, "finetuned"),
]


def test_every_merge_method_has_an_identity():
    assert {name for name, _, _ in IDENTITIES} == set(MERGES)


@pytest.mark.parametrize(("name", "settings", "role"), IDENTITIES)
def test_identity_settings_give_the_input_bit_for_bit(name, settings, role, merge, family):
    out, _ = merge(name, settings)
    want = load_file(family[role])
    assert out.keys() == want.keys()
    for key in want:
        assert out[key].dtype == want[key].dtype
        assert torch.equal(out[key].view(torch.int32), want[key].view(torch.int32)) or role == "aligned", key
        assert torch.equal(out[key], want[key]), key


@pytest.mark.parametrize("name", MERGES)
def test_the_merged_folder_loads_like_any_model_and_says_what_it_is(name, merge, tmp_path, encoded):
    merge(name, {"epochs": 0.5} if name == "somf" else {})
    m, tok = folders.load(tmp_path / "out")
    assert torch.isfinite(m(input_ids=torch.tensor([encoded[0]["input_ids"]])).logits).all()
    assert tok.chat_template
    assert "finetuned" in container.raw_header(tmp_path / "out" / "model.safetensors")[0]["__metadata__"]["holdfast"]


@pytest.mark.parametrize("name", MERGES)
def test_the_same_merge_gives_the_same_bytes(name, merge, tmp_path):
    settings = {"epochs": 0.5} if name == "somf" else {}
    merge(name, settings, out="a")
    merge(name, settings, out="b")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_bfloat16_checkpoints_keep_their_type_and_add_in_float32(family, merge, tokenizer, tmp_path):
    checkpoints = {}
    for role, path in family.items():
        m, _ = folders.load(path.parent)
        folders.save(m.bfloat16(), tokenizer, tmp_path / f"{role}-bf16", header={})
        checkpoints[role] = tmp_path / f"{role}-bf16" / "model.safetensors"
    method = registry.load("resta")
    driver.run(
        checkpoints={role: path.parent for role, path in checkpoints.items()},
        cfg={"method": "resta", "settings": method.Settings(gamma=0.3).model_dump(), "seed": 0},
        folder=tmp_path / "out", record_file=tmp_path / "out/train.json",
    )  # fmt: skip
    out = load_file(tmp_path / "out/model.safetensors")
    ft, al, un = (load_file(checkpoints[r]) for r in ("finetuned", "aligned", "unaligned"))
    for key, value in out.items():
        assert value.dtype == torch.bfloat16
        want = (ft[key].float() + 0.3 * (al[key].float() - un[key].float())).bfloat16()
        assert torch.allclose(
            value.float(), want.float(), rtol=2**-7, atol=1e-7
        )  # a fused multiply-add may round a tie
        assert (value == want).float().mean() > 0.99


def test_resta_adds_the_safety_vector(merge, family):
    out, record = merge("resta", {"gamma": 0.3})
    ft, al, un, base = (load_file(family[r]) for r in ("finetuned", "aligned", "unaligned", "base"))
    for key in out:
        assert torch.allclose(
            out[key].double(), ft[key].double() + 0.3 * (al[key].double() - un[key].double()), atol=1e-6
        )
    other, _ = merge("resta", {"gamma": 0.3, "vector": "base"})
    assert all(torch.allclose(other[k], ft[k] + 0.3 * (al[k] - base[k]), atol=1e-6) for k in other)
    assert record["weights/changed_fraction"] > 0.99 and record["cost/seconds"] >= 0


@pytest.mark.parametrize("name", ["resta", "resta-dare"])
def test_resta_of_the_unaligned_model_is_the_aligned_one(name, merge, family):
    settings = {"gamma": 1} | ({"drop": 0} if name == "resta-dare" else {})
    out, _ = merge(name, settings, finetuned=family["unaligned"])
    want = load_file(family["aligned"])
    assert all((out[k] - want[k]).abs().max() < 1e-6 for k in out)


def test_resta_is_linear_in_gamma(merge):
    a, b, c = (merge("resta", {"gamma": g}, out=f"g{g}")[0] for g in (0.2, 0.4, 0.6))
    assert all(torch.allclose(a[k] + c[k], 2 * b[k], atol=1e-6) for k in a)


def test_dare_without_drop_is_resta(merge):
    a, _ = merge("resta", {"gamma": 0.5}, out="a")
    b, _ = merge("resta-dare", {"gamma": 0.5, "drop": 0}, out="b")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_dare_drops_and_rescales():
    delta = torch.randn(200, 300)
    thin = fusion.dare(delta, 0.3, fusion.generator(0, "x"))
    kept = thin != 0
    assert abs(kept.float().mean() - 0.7) < 0.01
    assert torch.allclose(thin[kept], delta[kept] / 0.7)
    mean = sum(fusion.dare(delta, 0.3, fusion.generator(i, "x")) for i in range(300)) / 300
    assert (mean - delta).abs().mean() < 0.05
    assert torch.equal(thin, fusion.dare(delta, 0.3, fusion.generator(0, "x")))


def test_ties_elects_signs_and_averages_those_that_agree():
    a, b, c = torch.tensor([[4.0, 1.0, -2.0]]), torch.tensor([[-1.0, 3.0, -4.0]]), torch.tensor([[2.0, 0.0, 1.0]])
    assert torch.equal(fusion.ties([a, b, c], 1.0), torch.tensor([[3.0, 2.0, -3.0]]))
    assert torch.equal(fusion.trim(torch.tensor([1.0, -5.0, 2.0, 0.5]), 0.5), torch.tensor([0.0, -5.0, 2.0, 0.0]))


# ---- Safe LoRA ------------------------------------------------------------------------------------


def test_safe_lora_projects_what_strays(merge, family):
    out, record = merge("safe-lora", {"threshold": 2})
    al, ba, ft = (load_file(family[r]) for r in ("aligned", "base", "finetuned"))
    targets = [k for k in out if of_weight(k)]
    assert record["modules"] == record["modules_projected"] == len(targets) == 14
    for key in out:
        if key not in targets:
            assert torch.equal(out[key], ft[key])
            continue
        v = (al[key] - ba[key]).double()
        c = v @ v.T / torch.linalg.matrix_norm(v)
        assert torch.allclose(out[key].double(), al[key].double() + c @ (ft[key] - al[key]).double(), atol=1e-6)


def test_safe_lora_number_takes_the_smallest_cosines(merge, family):
    _, record = merge("safe-lora", {"number": 3})
    assert record["modules_projected"] == 3


def test_safe_lora_published_form_equals_the_update_of_b():
    stream = torch.Generator().manual_seed(0)
    v, b, a = (torch.randn(*s, generator=stream, dtype=torch.float64) for s in ((12, 9), (12, 2), (2, 9)))
    c = v @ v.T / torch.linalg.matrix_norm(v)
    method = registry.load("safe-lora")
    assert torch.allclose(method.project(v, b @ a, "published"), (c @ b) @ a, atol=1e-12)


def test_the_true_projector_is_idempotent_and_published_is_not():
    stream = torch.Generator().manual_seed(0)
    v = torch.randn(12, 5, generator=stream, dtype=torch.float64)
    d = torch.randn(12, 5, generator=stream, dtype=torch.float64)
    project = registry.load("safe-lora").project
    once = project(v, d, "projector")
    assert torch.allclose(project(v, once, "projector"), once, atol=1e-10)
    exact = v @ torch.linalg.pinv(v.T @ v) @ v.T @ d
    assert torch.allclose(once, exact, atol=1e-10)
    wide = torch.randn(5, 12, generator=stream, dtype=torch.float64)
    assert torch.allclose(project(wide, wide.flip(0), "projector"), wide.flip(0), atol=1e-10)
    published = project(v, d, "published")
    assert not torch.allclose(project(v, published, "published"), published, atol=1e-3)


# ---- Safe Delta -----------------------------------------------------------------------------------


def _layer(seed, m=8, n=12, t=40):
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(n, t, generator=stream, dtype=torch.float64) * torch.linspace(0.2, 3, n)[:, None]
    aligned = torch.randn(m, n, generator=stream, dtype=torch.float64)
    return x, aligned, aligned + 0.1 * torch.randn(m, n, generator=stream, dtype=torch.float64)


def test_safe_delta_factor_is_the_cholesky_factor_of_the_inverse():
    method = registry.load("safe-delta")
    x, _, _ = _layer(0)
    u = method.inverse_factor(x @ x.T, 0.01)
    h = 2 * x @ x.T
    h += 0.01 * h.diagonal().mean() * torch.eye(12)
    assert torch.allclose(u.T @ u @ h, torch.eye(12, dtype=torch.float64), atol=1e-9)
    assert torch.equal(u, u.triu())


@given(seed=st.integers(0, 50), s=st.floats(0.05, 0.9))
@settings(max_examples=25, deadline=None)
def test_safe_delta_keeps_more_with_more_strength_and_within_its_budget(seed, s):
    method = registry.load("safe-delta")
    x, aligned, finetuned = _layer(seed)
    u = method.inverse_factor(x @ x.T, 0.01)
    counts = []
    for strength in (s, min(1.0, s + 0.1)):
        config = method.Settings(strength=strength, never_kept=0)
        keep = method.selection(finetuned - aligned, u.diagonal(), config)
        cost = ((finetuned - aligned) / u.diagonal()) ** 2
        assert cost[keep].sum() <= strength * cost.sum() * (1 + 1e-6)
        counts.append(int(keep.sum()))
    assert counts[0] <= counts[1]


def test_safe_delta_compensation_lowers_the_damage():
    method = registry.load("safe-delta")
    with_, without = 0.0, 0.0
    for seed in range(20):
        x, aligned, finetuned = _layer(seed)
        u = method.inverse_factor(x @ x.T, 0.01)
        out, kept = method.fuse(aligned, finetuned, u, method.Settings(strength=0.4))
        h = 2 * x @ x.T

        def damage(w, aligned=aligned, h=h):
            d = w - aligned
            return float(torch.einsum("ij,jk,ik->", d, h, d)) / 2

        with_ += damage(out)
        without += damage(torch.where(kept, finetuned, aligned))
        assert torch.allclose(out[kept], finetuned[kept])
    assert with_ < without


def test_safe_delta_without_a_budget_is_the_aligned_model(merge, family):
    """Nothing kept, or nothing to keep: embeddings, norms and head are the aligned model's too."""
    al, ft = load_file(family["aligned"]), load_file(family["finetuned"])
    for options, checkpoints in (({"strength": 0}, {}), ({}, {"finetuned": family["aligned"]})):
        out, record = merge("safe-delta", options, **checkpoints)
        assert all(torch.equal(out[k], al[k]) for k in out)
        assert record["kept_fraction"] == 0
    out, _ = merge("safe-delta", {"strength": 0, "elsewhere": "finetuned"})
    assert all(torch.equal(out[k], al[k] if of_weight(k) else ft[k]) for k in out)
    out, record = merge("safe-delta", {"strength": 0.3})
    assert all(torch.equal(out[k], al[k]) for k in out if not of_weight(k))
    assert 0 < record["kept_fraction"] < 1


# ---- SOMF -----------------------------------------------------------------------------------------


def test_somf_learns_from_preferences_and_touches_only_the_logits(merge, family):
    _, short = merge("somf", {"epochs": 0.1}, out="short")
    _, long = merge("somf", {"epochs": 20, "learning_rate_logits": 0.2, "batch_size": 12}, out="long")
    assert long["mask_loss"] < short["mask_loss"]
    assert 0 < long["mask_density"] < 1


@pytest.mark.parametrize("export", ["soft", "threshold"])
def test_somf_exports_what_it_trained_and_shuffles_exactly_that(export):
    method = registry.load("somf")
    logit = torch.randn(40, 50)
    learned = method.export(logit, method.Settings(export=export), 0, "w")
    shuffled = method.export(logit, method.Settings(export=export, mask="shuffled"), 0, "w")
    assert torch.equal(learned.flatten().sort().values, shuffled.flatten().sort().values)
    assert not torch.equal(learned, shuffled)
    assert torch.equal(learned, torch.sigmoid(logit) if export == "soft" else logit > 0)


def test_somf_with_logits_of_one_size_is_the_task_vector():
    """σ(ℓ) / mean(σ(ℓ)) is 1 then, whatever the logit; a soft mask is never mistaken for a full one."""
    method, start, tuned = registry.load("somf"), torch.randn(5, 6), torch.randn(5, 6)
    weights = {"aligned": start, "finetuned": tuned}
    methods = {"__getitem__": lambda self, k: dict.__getitem__(self, k).clone(), "stored": dict.__getitem__}
    copies = type("Copies", (dict,), methods)(weights)
    settings = method.Settings()
    flat = {"seed": 0, "mask": {"w": method.export(torch.full((5, 6), -0.7), settings, 0, "w")}}
    assert torch.allclose(method.merge("w", copies, settings, flat), tuned, atol=1e-6)
    tilted = {"seed": 0, "mask": {"w": method.export(torch.randn(5, 6), settings, 0, "w")}}
    assert not torch.allclose(method.merge("w", copies, settings, tilted), tuned, atol=1e-2)


def test_somf_full_mask_is_the_task_vector_and_scaling_the_mask_cancels():
    method = registry.load("somf")
    delta, config = torch.randn(6, 7), method.Settings()
    assert torch.allclose(method.masked([delta], torch.ones(6, 7), config, 0, "w"), delta)
    mask = torch.rand(6, 7)
    assert torch.allclose(
        method.masked([delta], mask, config, 0, "w"), method.masked([delta], 0.3 * mask, config, 0, "w"), atol=1e-5
    )
    assert torch.equal(method.masked([torch.zeros(6, 7)], mask, config, 0, "w"), torch.zeros(6, 7))


def test_dpo_loss_is_log_two_at_the_reference_and_falls_with_the_margin():
    method = registry.load("somf")
    zero = torch.zeros(5)
    assert torch.allclose(method.dpo_loss(zero, zero, zero, zero, 0.1), torch.tensor(2.0).log())
    assert method.dpo_loss(zero + 1, zero - 1, zero, zero, 0.1) < method.dpo_loss(zero, zero, zero, zero, 0.1)


def test_log_probabilities_sum_over_response_tokens_only(model, tokenizer, world):
    from holdfast.model import preferences

    pairs = preferences.encode(tokenizer, world.preferences(5))
    chosen, rejected = preferences.log_probabilities(model, pairs, tokenizer.pad_token_id, 2)
    for i, pair in enumerate(pairs):
        for value, side in ((chosen[i], pair[0]), (rejected[i], pair[1])):
            ids, labels = torch.tensor([side["input_ids"]]), torch.tensor([side["labels"]])
            loss = model(input_ids=ids, labels=labels).loss
            count = int((labels[:, 1:] != -100).sum())
            assert torch.allclose(value, -loss * count, atol=1e-3)


def test_somf_across_tasks_fuses_every_fine_tuned_model(merge, family, tokenizer, tmp_path):
    other = shifted(folders.load(family["aligned"].parent)[0], 9, 0.02)
    folders.save(other, tokenizer, tmp_path / "other", header={})
    path = tmp_path / "other/model.safetensors"
    out, _ = merge("somf", {"mask": "none", "across_tasks": True}, **{"finetuned:0": path})
    al, ft, extra = load_file(family["aligned"]), load_file(family["finetuned"]), load_file(path)
    assert all(torch.allclose(out[k], ft[k] + extra[k] - al[k], atol=1e-6) for k in out)


# ---- the driver -----------------------------------------------------------------------------------


def test_a_merge_of_a_weakened_model_says_so_too(merge, family, tokenizer, tmp_path):
    model, _ = folders.load(family["finetuned"].parent)
    folders.save(model, tokenizer, tmp_path / "weak", header={"role": "finetuned", "weakened": True})
    merge("resta", {}, finetuned=tmp_path / "weak/model.safetensors")
    assert "weakened" in (tmp_path / "out/README.md").read_text()
    assert '"weakened": true' in container.raw_header(tmp_path / "out/model.safetensors")[0]["__metadata__"]["holdfast"]
    merge("resta", {})
    assert not (tmp_path / "out/README.md").exists()


def test_models_that_do_not_match_are_refused_by_name(merge, family, tokenizer, tmp_path, world):
    from holdfast.world.model import new_model

    wide = new_model(
        tokenizer, hidden_size=32, intermediate_size=64, layers=2, heads=4, kv_heads=2, max_positions=256, seed=0
    )
    folders.save(wide, tokenizer, tmp_path / "wide", header={})
    with pytest.raises(ArtifactError, match="down_proj"):
        merge("resta", {}, unaligned=tmp_path / "wide/model.safetensors")
    assert not (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 64, lambda b: b[:-1] + bytes([b[-1] ^ 1])],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(damage, merge, family, tmp_path):
    path = family["unaligned"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match="unaligned"):
        merge("resta", {})
    assert not (tmp_path / "out/model.safetensors").exists()


def test_a_gram_of_another_model_is_refused(merge, family):
    with pytest.raises(ArtifactError, match="aligned differs"):
        merge("safe-delta", {}, aligned=family["base"])


def test_streaming_holds_few_tensors_at_a_time(merge, monkeypatch):
    """Counts live tensors handed out by the driver while RESTA runs."""
    import weakref

    live, peak = weakref.WeakSet(), [0]
    original = driver.Weights.__getitem__

    def counted(self, role):
        tensor = original(self, role)
        live.add(tensor)
        peak[0] = max(peak[0], len(live))
        return tensor

    monkeypatch.setattr(driver.Weights, "__getitem__", counted)
    merge("resta", {})
    assert peak[0] <= 3


def test_a_merge_with_a_weakened_model_of_another_task_says_so_too(merge, family, tokenizer, tmp_path):
    model, _ = folders.load(family["finetuned"].parent)
    folders.save(model, tokenizer, tmp_path / "weak", header={"role": "finetuned", "weakened": True})
    merge("somf", {"mask": "none", "across_tasks": True}, **{"finetuned:0": tmp_path / "weak/model.safetensors"})
    assert container.stamped(tmp_path / "out/model.safetensors")["weakened"]


def test_a_table_of_rotations_is_no_weight():
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert not driver.is_weight(name, "F32") and driver.is_weight("model.norm.weight", "F32")
    assert not driver.is_weight("model.norm.weight", "I64")


def test_a_share_that_is_no_entry_restores_no_module_and_counts_none(merge, family):
    out, record = merge("nlsr", {"critical": 1e-9, "probability": 1, "spread": 0})
    assert record["modules_restored"] == 0 < record["modules"]
    assert all(torch.equal(v, out[k]) for k, v in load_file(family["finetuned"]).items())
