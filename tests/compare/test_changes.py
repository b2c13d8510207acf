"""What changed in the weights: shares, norms, and the part inside the safety subspace."""

from __future__ import annotations

import pytest
import torch

from holdfast.compare import changes
from holdfast.errors import ArtifactError
from holdfast.model import folders
from holdfast.record import artifact, csvfiles
from holdfast.warp import basis


def test_the_subspace_is_the_fewest_directions_with_the_energy():
    values = torch.tensor([6.0, 3.0, 0.9, 0.1])
    assert [basis.subspace(values, e) for e in (0.5, 0.6, 0.9, 0.95, 1.0)] == [1, 1, 2, 3, 4]
    assert basis.subspace(torch.zeros(3), 0.9) == 3  # no energy: every direction
    assert basis.subspace(torch.tensor([1.0]), 0.9) == 1


def test_a_change_inside_and_one_outside():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    old = torch.randn(4, 6, generator=generator)
    within = torch.randn(4, 2, generator=generator) @ basis[:, :2].T
    beside = torch.randn(4, 4, generator=generator) @ basis[:, 2:].T
    assert changes.measure(old, old + within, basis, 2)["inside"] == pytest.approx(1, abs=1e-5)
    assert changes.measure(old, old + beside, basis, 2)["inside"] == pytest.approx(0, abs=1e-5)
    both = changes.measure(old, old + within + beside, basis, 2)
    energy = within.pow(2).sum() / (within + beside).pow(2).sum()
    assert both["inside"] == pytest.approx(float(energy), abs=1e-5) and both["directions"] == pytest.approx(2 / 6)
    assert both["relative_norm"] == pytest.approx(float((within + beside).norm() / old.norm()), abs=1e-5)
    assert both["changed"] == 1.0


def test_nothing_changed():
    old = torch.randn(3, 5)
    found = changes.measure(old, old.clone(), torch.eye(5), 2)
    assert (found["changed"], found["relative_norm"], found["inside"]) == (0.0, 0.0, "")
    assert changes.measure(old, old + 1, None, 0)["directions"] == ""


def test_every_linear_module_has_a_row(model, tokenizer, tmp_path):
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    folders.save(model, tokenizer, tmp_path / "tuned", header={"role": "finetuned"})
    n = model.config.hidden_size
    names = [f"blocks.{b}.mlp_input" for b in range(model.config.num_hidden_layers)]
    tensors = {k: torch.eye(n) for k in names} | {f"{k}.eigenvalues": torch.ones(n) for k in names}
    artifact.write(tmp_path / "b.safetensors", tensors, family="basis", header={"layers": names})
    files = {"aligned": tmp_path / "aligned/model.safetensors", "basis": tmp_path / "b.safetensors"}
    changes.build(tmp_path / "tuned/model.safetensors", **files, out=tmp_path / "c.csv")
    rows = csvfiles.read_csv(tmp_path / "c.csv")
    assert len(rows) == 7 * model.config.num_hidden_layers
    hit = [(r["block"], r["module"]) for r in rows if float(r["changed"]) > 0]
    assert hit == [("1", "up_proj")]
    assert all((r["directions"] != "") == (r["module"] in ("gate_proj", "up_proj")) for r in rows)
    (tmp_path / "tuned/model.safetensors").write_bytes(b"x")
    with pytest.raises(ArtifactError):
        changes.build(tmp_path / "tuned/model.safetensors", **files, out=tmp_path / "d.csv")
