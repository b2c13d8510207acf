"""The merges anybody would try first with the aligned model, against forms written out here in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_merging import family, gram_file, merge  # noqa: F401 - fixtures

from holdfast.cli.main import main
from holdfast.errors import TrainingError
from holdfast.merge import fusion, single
from holdfast.study import registry


def _float64(family):  # noqa: F811
    return {role: {k: v.double().numpy() for k, v in load_file(path).items()} for role, path in family.items()}


def _far(out, want):
    return max(np.abs(out[k].double().numpy() - want[k]).max() for k in want)


@pytest.mark.parametrize("w", [0.2, 0.5, 0.9])
def test_a_soup_lies_on_the_line_between_the_models(w, merge, family):  # noqa: F811
    out, record = merge("soup", {"weight": w})
    of = _float64(family)
    assert _far(out, {k: w * of["aligned"][k] + (1 - w) * of["finetuned"][k] for k in out}) < 1e-6
    assert record["weights/changed_fraction"] > 0.99


def test_a_merge_that_makes_no_numbers_is_refused_and_writes_no_weights(merge, tmp_path, monkeypatch):  # noqa: F811
    whole = registry.load("soup").merge
    monkeypatch.setattr(registry.load("soup"), "merge", lambda *of: whole(*of) / 0)
    with pytest.raises(TrainingError, match="soup makes of .* is no number any more") as error:
        merge("soup", {"weight": 0.5}, out="beyond")
    assert "infinity in" in error.value.found and not [*tmp_path.rglob("beyond/*.safetensors*")]


@pytest.mark.parametrize("start", ["base", "aligned"])
def test_task_arithmetic_adds_both_vectors_to_the_base(start, merge, family):  # noqa: F811
    out, _ = merge("task-vectors", {"fusion": "sum", "weight": 0.3, "start": start})
    of = _float64(family)
    both = {k: of["aligned"][k] - of["base"][k] + of["finetuned"][k] - of[start][k] for k in out}
    assert _far(out, {k: of["base"][k] + 0.3 * both[k] for k in out}) < 1e-6


def test_task_arithmetic_has_soup_resta_and_the_model_itself_as_corners(merge, family):  # noqa: F811
    half, _ = merge("task-vectors", {"fusion": "sum", "weight": 0.5}, out="half")
    soup, _ = merge("soup", {"weight": 0.5}, out="soup")
    one, _ = merge("task-vectors", {"fusion": "sum"}, out="one")
    resta, _ = merge("resta", {"gamma": 1, "vector": "base"}, out="resta")
    itself, _ = merge("task-vectors", {"fusion": "sum", "start": "aligned"}, out="itself")
    for got, want in ((half, soup), (one, resta), (itself, load_file(family["finetuned"]))):
        assert all(torch.allclose(got[k], want[k], atol=1e-6) for k in got)
    assert not all(torch.allclose(half[k], one[k], atol=1e-3) for k in half)


def _ties(vectors, density):
    """Entry by entry, as the paper reads."""
    kept = []
    for v in vectors:
        order = np.argsort(-np.abs(v).ravel(), kind="stable")[: round(density * v.size)]
        flat = np.zeros(v.size)
        flat[order] = v.ravel()[order]
        kept.append(flat)
    out = np.zeros(vectors[0].size)
    for i, entries in enumerate(zip(*kept, strict=True)):
        sign = np.sign(sum(entries))
        agree = [e for e in entries if e and np.sign(e) == sign]
        out[i] = np.mean(agree) if agree else 0.0
    return out.reshape(vectors[0].shape)


@pytest.mark.parametrize(("start", "density"), [("base", 0.2), ("aligned", 0.5)])
def test_ties_with_the_aligned_model_is_the_published_rule(start, density, merge, family):  # noqa: F811
    out, _ = merge("task-vectors", {"weight": 0.7, "density": density, "start": start})
    of, close, n = _float64(family), 0, 0
    for k in out:
        vectors = [of["aligned"][k] - of["base"][k], of["finetuned"][k] - of[start][k]]
        want = of["base"][k] + 0.7 * _ties(vectors, density)
        close += (np.abs(out[k].double().numpy() - want) < 1e-6).sum()
        n += want.size
    assert close / n > 0.999  # float32 may trim another of two equal magnitudes


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5, 0.9])
def test_of_equal_magnitudes_no_more_than_the_share_are_kept(density):
    """Updates of bfloat16 weights are a few multiples of one unit, most of them equal."""
    a, b = (torch.randn(12, 20, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    deltas = [((x + 0.004 * b).bfloat16().float() - x.bfloat16().float()).T for x in (a, a.flip(0))]
    deltas.append(torch.tensor([[1.0, -1.0, 1.0, -1.0, 0.0, 0.0]]).repeat(4, 1))
    for delta in deltas:
        kept = fusion.trim(delta, density)
        order = np.argsort(-np.abs(delta.numpy()).ravel(), kind="stable")[: round(density * delta.numel())]
        want = np.zeros(delta.numel())
        want[order] = delta.numpy().ravel()[order]
        assert np.array_equal(kept.numpy(), want.reshape(delta.shape))
    assert len(deltas[0].abs().unique()) < 30  # equal ones there are


def test_dare_with_the_aligned_model_thins_each_vector_by_itself(merge, family):  # noqa: F811
    out, _ = merge("task-vectors", {"fusion": "dare", "drop": 0.4, "weight": 0.8})
    of = _float64(family)
    for k in out:
        want = of["base"][k].copy()
        for i, role in enumerate(("aligned", "finetuned")):
            kept = (torch.rand(out[k].shape, generator=fusion.generator(0, k, i)) >= 0.4).numpy()
            want += 0.8 * kept * (of[role][k] - of["base"][k]) / 0.6
        assert np.abs(out[k].double().numpy() - want).max() < 1e-6


def test_settings_of_another_fusion_are_unread():
    unread = {f: registry.load("task-vectors").Settings(fusion=f).unread() for f in ("sum", "ties", "dare")}
    assert unread == {"sum": {"density", "drop"}, "ties": {"drop"}, "dare": {"density"}}


def test_plain_merges_work_without_a_study(family, tmp_path, capsys):  # noqa: F811
    folder = {role: path.parent for role, path in family.items()}
    models = ["--aligned", str(folder["aligned"]), "--finetuned", str(folder["finetuned"])]
    asked = ["realign", *models, "--method", "soup", "--set", "weight=0.25", "--out", str(tmp_path / "soup")]
    assert main(asked) == 0
    assert "weights/changed_fraction" in json.loads((tmp_path / "soup" / single.RECORD).read_text())
    out, of = load_file(tmp_path / "soup/model.safetensors"), _float64(family)
    assert _far(out, {k: 0.25 * of["aligned"][k] + 0.75 * of["finetuned"][k] for k in out}) < 1e-6
    asked = ["realign", *models, "--method", "task-vectors", "--set", "fusion=sum", "--out", str(tmp_path / "sum")]
    assert main(asked) == 2 and "needs --base" in capsys.readouterr().err
    assert main([*asked, "--base", str(folder["base"])]) == 0
    out = load_file(tmp_path / "sum/model.safetensors")
    assert _far(out, {k: of["finetuned"][k] + of["aligned"][k] - of["base"][k] for k in out}) < 1e-6
