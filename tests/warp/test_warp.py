"""Gram, importance, masks and their files."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.errors import ArtifactError, LayerMismatch
from holdfast.model import chat, layers
from holdfast.record import artifact
from holdfast.warp import gram, importance, masks
from holdfast.warp.basis import from_gram

MODULES = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")


@pytest.fixture
def targets(model):
    return layers.resolve(model, MODULES)


def test_a_profile_counts_what_is_frozen_by_direction():
    mask = np.zeros((4, 10), dtype=bool)
    mask[:2, 0], mask[:, 1] = True, True
    found = masks.profile(mask, bins=5)
    assert [d for d, _ in found] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [f for _, f in found] == pytest.approx([0.75, 0, 0, 0, 0])
    assert len(masks.profile(mask)) == 10
    rng = np.random.default_rng(0)
    other = rng.random((7, 53)) < 0.3
    assert np.mean([f for _, f in masks.profile(other, bins=53)]) == pytest.approx(other.mean())


def test_one_gram_per_distinct_input_and_padding_never_counts(model, tokenizer, targets, encoded):
    together, count = gram.capture(model, targets, encoded, batch_size=8, pad_id=tokenizer.pad_token_id)
    alone, same = gram.capture(model, targets, encoded, batch_size=1, pad_id=tokenizer.pad_token_id)
    assert list(together) == list(layers.inputs(targets))
    assert len(together) == 3 * 2  # attention input, mlp input, mlp hidden in two blocks
    assert count == same == sum(len(e["input_ids"]) for e in encoded)
    for name in together:
        assert torch.allclose(together[name], alone[name], rtol=1e-4, atol=1e-3)
        assert torch.equal(together[name], together[name].T)


def test_prompt_tokens_only(model, tokenizer, targets, encoded):
    _, count = gram.capture(model, targets, encoded, batch_size=8, pad_id=tokenizer.pad_token_id, tokens="prompt")
    assert count == sum(e["labels"].count(chat.IGNORE) for e in encoded)


@pytest.mark.parametrize("rotated", [True, False])
def test_importance_equals_the_published_form(model, tokenizer, targets, encoded, rotated):
    """|dL/dC| summed over batches, against autograd on materialised coefficients in float64."""
    model = model.double()
    targets = layers.resolve(model, MODULES)
    grams, _ = gram.capture(model, targets, encoded, batch_size=8, pad_id=tokenizer.pad_token_id)
    bases = {k: from_gram(g)[0].double() for k, g in grams.items()} if rotated else None
    ours = importance.score(model, targets, bases, encoded, batch_size=6, pad_id=tokenizer.pad_token_id)
    expected = {x.name: torch.zeros_like(x.module.weight) for x in targets}
    for start in range(0, len(encoded), 6):
        batch = chat.collate(encoded[start : start + 6], tokenizer.pad_token_id)
        model.zero_grad()
        model(**batch).loss.backward()
        for x in targets:
            g = x.module.weight.grad
            expected[x.name] += (g if bases is None else g @ bases[x.input]).abs()
    for x in targets:
        scale = expected[x.name].max()
        assert scale > 0
        assert torch.allclose(ours[x.name].double() / scale, expected[x.name] / scale, atol=1e-6)
    assert all(p.requires_grad for p in model.parameters())


def test_importance_with_an_output_rotation_equals_the_published_form(model, tokenizer, encoded):
    model = model.double()
    targets = layers.resolve(model, MODULES)
    stream = torch.Generator().manual_seed(0)
    bases = {}
    for x in targets:
        for key, n in ((x.name, x.module.weight.shape[0]), (x.input, x.module.weight.shape[1])):
            bases[key] = torch.linalg.qr(torch.randn(n, n, generator=stream, dtype=torch.float64))[0]
    ours = importance.score(model, targets, bases, encoded, batch_size=24, pad_id=tokenizer.pad_token_id)
    model(**chat.collate(encoded, tokenizer.pad_token_id)).loss.backward()
    for x in targets:
        want = (bases[x.name].T @ x.module.weight.grad @ bases[x.input]).abs()
        assert torch.allclose(ours[x.name].double(), want, atol=1e-6 * want.max())


def test_output_gram_is_the_gram_of_the_outputs():
    from holdfast.warp.basis import output_gram

    w, h = torch.randn(5, 7, dtype=torch.float64), torch.randn(7, 50, dtype=torch.float64)
    assert torch.allclose(output_gram(w, h @ h.T), (w @ h) @ (w @ h).T)


def test_a_gram_of_a_file_meets_a_model_on_a_gpu():
    """As far as that can be seen without one: fake tensors refuse products across devices."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from holdfast.warp import basis

    with FakeTensorMode():
        w, gram = torch.empty(6, 4, device="cuda"), torch.empty(4, 4)
        assert basis.output_gram(w, gram).device.type == "cuda"


def test_one_threshold_for_the_model_spends_the_budget_where_scores_are_largest():
    rng = np.random.default_rng(0)
    scores = {"a": rng.random((4, 5)).astype(np.float32), "b": 10 + rng.random((3, 4)).astype(np.float32)}
    frozen = masks.top_overall(scores, 0.25)
    assert sum(m.sum() for m in frozen.values()) == 8 and frozen["b"].sum() == 8
    rows = masks.build(scores["b"], "row", 1 / 3)
    assert rows.sum() == 4 and (rows.all(axis=1) | ~rows.any(axis=1)).all()


@settings(max_examples=60, deadline=None)
@given(
    scores=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 9, width=32)
    ),
    fraction=st.floats(0.01, 0.99),
)
def test_masks_have_exactly_their_budget_and_hold_the_largest_scores(scores, fraction):
    mask = masks.top_entries(scores, fraction)
    assert mask.sum() == round(fraction * scores.size)
    if mask.any() and not mask.all():
        assert scores[mask].min() >= scores[~mask].max()
    columns = masks.top_columns(scores, fraction)
    assert (columns == columns[0]).all()
    assert columns[0].sum() == round(fraction * scores.shape[1])
    assert (masks.unpack(masks.pack(mask), mask.shape) == mask).all()
    assert masks.pack(mask).nbytes == -(-mask.size // 8)


def test_random_scores_differ_by_layer_and_seed():
    a = masks.random_scores((6, 7), "x", 0)
    assert np.array_equal(a, masks.random_scores((6, 7), "x", 0))
    assert not np.array_equal(a, masks.random_scores((6, 7), "y", 0))
    assert not np.array_equal(a, masks.random_scores((6, 7), "x", 1))


def test_modules_are_resolved_exactly(model):
    found = layers.resolve(model, MODULES)
    assert [x.kind for x in found[:5]] == list(MODULES)
    assert {x.input for x in found if x.kind in ("q_proj", "k_proj", "v_proj") and x.block == 1} == {
        "blocks.1.attention_input"
    }
    with pytest.raises(LayerMismatch):
        layers.resolve(model, ("c_attn",))


def test_files_refuse_what_they_are_not(tmp_path, model):
    names = [x.name for x in layers.resolve(model, MODULES)]
    path = tmp_path / "mask.safetensors"
    with pytest.raises(ArtifactError, match="missing"):
        artifact.read(path, family="mask")
    artifact.write(path, {"a": np.zeros(3, np.uint8)}, family="mask", header={"layers": names, "aligned": "x"})
    tensors, header = artifact.read(path, family="mask", layers=names, expect={"aligned": "x"}, torch=False)
    assert tensors["a"].tolist() == [0, 0, 0] and header["layers"] == names
    with pytest.raises(LayerMismatch, match="other layers"):
        artifact.read(path, family="mask", layers=names[:-1])
    with pytest.raises(ArtifactError, match="does not belong"):
        artifact.read(path, family="mask", expect={"aligned": "y"})
    with pytest.raises(ArtifactError, match="not what this step reads"):
        artifact.read(path, family="basis")
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\0" * 64):
        path.write_bytes(broken)
        with pytest.raises(ArtifactError):
            artifact.read(path, family="mask")


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    for i in range(2):
        artifact.write(tmp_path / f"{i}", {"b": torch.ones(2), "a": torch.zeros(2)}, family="x", header={"k": 1})
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_a_streamed_file_is_like_any_other_and_its_header_is_written_last(tmp_path):
    made = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}
    header = {"worst": 0.0}

    def each():
        for i, item in enumerate(made.items()):
            header["worst"] = (i + 1) / 3
            yield item

    path = tmp_path / "x"
    artifact.write_each(path, {k: v.shape for k, v in made.items()}, each(), family="x", header=lambda: header)
    for lazy in (False, True):
        tensors, found = artifact.read(path, family="x", lazy=lazy)
        assert found == {"worst": 2 / 3}
        assert all(torch.equal(tensors[k], v) for k, v in made.items()) and list(tensors) == list(made)
    assert tensors.shape("a") == (2, 3)
    for wrong in ({"a": (3, 2), "b": (4,)}, {"a": (2, 3)}, {"b": (4,), "a": (2, 3)}):
        with pytest.raises(ValueError):
            artifact.write_each(tmp_path / "y", wrong, iter(made.items()), family="x", header=dict)
        assert not (tmp_path / "y").exists()


def test_the_bases_of_a_model_are_never_held_together(files, monkeypatch):
    from holdfast.warp import basis, families

    whole, made = basis.from_gram, []

    def watched(gram):
        assert not any(old() is not None for old in made)
        out = whole(gram)
        made.append(weakref.ref(out[0]))
        return out

    monkeypatch.setattr(basis, "from_gram", watched)
    families.build_basis(files[2] / "gram", files[2] / "again", lambda _: None)
    assert len(made) == 6 and (files[2] / "again").read_bytes() == (files[2] / "safety").read_bytes()


def test_the_round_trip_through_a_basis_is_measured(files):
    _, _ = _mask(files, "safety", freeze_fraction=0.2)
    header = artifact.header(files[2] / "importance-safety", family="importance")
    assert 0 < header["round_trip_float32"] < 1e-6 < 1e-3 < header["round_trip_bfloat16"] < 1e-2


@pytest.fixture
def files(model, tokenizer, world, tmp_path):
    """An aligned model, its safety and task tables, and the families built from them."""
    from holdfast.model import folders
    from holdfast.record import tables
    from holdfast.warp import families

    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    aligned = tmp_path / "aligned/model.safetensors"
    tables.write(world.safety(24, 8), tmp_path / "safety.parquet", "safety")
    tables.write(world.agnews("train", 24), tmp_path / "agnews.parquet", "agnews")
    cfg = {"modules": list(MODULES), "rows": 16, "batch_size": 8, "tokens": "all"}
    families.build_gram(aligned, tmp_path / "safety.parquet", cfg, tmp_path / "gram", print)
    families.build_basis(tmp_path / "gram", tmp_path / "safety", print)
    families.build_output_basis(aligned, tmp_path / "gram", cfg, tmp_path / "output")
    families.build_permuted_basis(aligned, tmp_path / "safety", cfg, tmp_path / "permuted")
    return aligned, cfg, tmp_path


def _mask(files, basis, **spec):
    from holdfast.study.arms import MaskSpec
    from holdfast.warp import families

    aligned, cfg, folder = files
    scores = folder / f"importance-{basis}"
    families.build_importance(aligned, folder / "safety.parquet", folder / basis, cfg, scores, print)
    spec = MaskSpec(basis=basis, **spec)
    families.build_mask(scores, spec.model_dump(), 0, folder / spec.name)
    bits, header = artifact.read(folder / spec.name, family="mask", torch=False)
    return {k: masks.unpack(bits[k], header["shapes"][k]) for k in header["layers"]}, header


def test_the_permuted_basis_freezes_the_same_entries_in_other_rows(files):
    plain, _ = _mask(files, "safety", freeze_fraction=0.2)
    permuted, header = _mask(files, "permuted", freeze_fraction=0.2)
    bases, _ = artifact.read(files[2] / "permuted", family="basis")
    for name, mask in plain.items():
        back = (bases[name].abs() @ torch.from_numpy(permuted[name]).float()).bool().numpy()
        assert (back == mask).mean() > 0.999  # sums in another order may swap a tie
    assert header["frozen_fraction"] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("spec", [{}, {"unit": "column"}, {"threshold": "model"}, {"scores": "random"}])
def test_a_rank_fraction_spends_the_same_budget_among_the_leading_directions(files, spec):
    plain, header = _mask(files, "safety", freeze_fraction=0.2, **spec)
    leading, other = _mask(files, "safety", freeze_fraction=0.2, rank_fraction=0.5, **spec)
    assert other["frozen_fraction"] == pytest.approx(header["frozen_fraction"], abs=0.02)
    for name, mask in leading.items():
        assert mask.shape == plain[name].shape and not mask[:, mask.shape[1] // 2 :].any()
    assert sum(m.sum() for m in leading.values()) > 0
    whole, _ = _mask(files, "safety", freeze_fraction=0.2, rank_fraction=1.0, **spec)
    assert all((whole[k] == plain[k]).all() for k in plain)


def test_two_masks_free_what_the_task_needs(files):
    from holdfast.study.arms import MaskSpec
    from holdfast.warp import families

    aligned, cfg, folder = files
    safety, _ = _mask(files, "safety", freeze_fraction=0.3)
    task = folder / "importance-safety-agnews"
    families.build_importance(
        aligned,
        folder / "agnews.parquet",
        folder / "safety",
        cfg | {"task": "agnews", "instruction": None},
        task,
        print,
    )
    spec = MaskSpec(freeze_fraction=0.3, minus_task="agnews")
    families.build_mask(folder / "importance-safety", spec.model_dump(), 0, folder / spec.name, task_file=task)
    bits, header = artifact.read(folder / spec.name, family="mask", torch=False)
    wanted, _ = artifact.read(task, family="importance", torch=False)
    for name in header["layers"]:
        both = masks.unpack(bits[name], header["shapes"][name])
        assert (both == (safety[name] & ~masks.top_entries(wanted[name], 0.3))).all()
    assert 0 < header["frozen_fraction"] < 0.3
