"""Leading directions taken out of a finished update."""

from __future__ import annotations

import pytest
import torch

from holdfast.study import registry

METHOD = registry.load("lead-merge")
NAME = "model.layers.1.mlp.down_proj.weight"


class Weights(dict):
    """One tensor of every model, as the driver gives them."""

    def __getitem__(self, role):
        return super().__getitem__(role).clone()

    def stored(self, role):
        return super().__getitem__(role)

    def update(self):
        return self["finetuned"] - self["aligned"]


class Context:
    def __init__(self, gram):
        self.gram = gram


def _case(energy=1.0):
    g = torch.Generator().manual_seed(0)
    h = torch.randn(10, 40, generator=g) * torch.logspace(0, -2, 10)[:, None]
    pair = {role: torch.randn(6, 10, generator=g) for role in ("aligned", "finetuned")}
    return Weights(pair), {"blocks.1.mlp_product": h @ h.T}, h


def _merged(weights, gram, name=NAME, **settings):
    chosen = METHOD.Settings(**settings)
    return METHOD.merge(name, weights, chosen, METHOD.prepare(chosen, Context(gram)))


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999])
def test_the_update_loses_what_acts_on_the_span(energy):
    from holdfast.model.layers import of_weight

    weights, gram, _ = _case()
    reads = of_weight(NAME)[0]
    gram = {reads: next(iter(gram.values()))}
    values, u = torch.linalg.eigh(gram[reads].double())
    u, values = u.flip(1), values.flip(0)
    k = next(i for i in range(1, 11) if values[:i].sum() / values.sum() >= energy)
    out = _merged(weights, gram, energy=energy).double()
    delta = (weights.stored("finetuned") - weights.stored("aligned")).double()
    free = torch.eye(10, dtype=torch.float64) - u[:, :k] @ u[:, :k].T
    want = weights.stored("aligned").double() + delta @ free
    assert torch.allclose(out, want, atol=1e-5) and not torch.allclose(
        out, weights.stored("finetuned").double(), atol=1e-2
    )


def test_all_directions_give_the_aligned_module_and_other_tensors_follow_elsewhere():
    from holdfast.model.layers import of_weight

    weights, gram, _ = _case()
    gram = {of_weight(NAME)[0]: next(iter(gram.values()))}
    assert torch.allclose(_merged(weights, gram, rank_fraction=1.0), weights.stored("aligned"), atol=1e-5)
    for role in ("aligned", "finetuned"):
        assert torch.equal(_merged(weights, gram, "model.norm.weight", elsewhere=role), weights.stored(role))


def test_more_directions_leave_less_of_the_update():
    from holdfast.model.layers import of_weight

    weights, gram, h = _case()
    gram = {of_weight(NAME)[0]: next(iter(gram.values()))}
    moved = [
        float(((_merged(weights, gram, rank_fraction=r) - weights.stored("aligned")) @ h).norm())
        for r in (0.1, 0.3, 0.6)
    ]
    assert moved[0] > moved[1] > moved[2]


def test_every_input_has_directions_of_its_own():
    """One merge visits all modules in turn; those of another input are not projected by what the last one held."""
    from holdfast.model.layers import of_weight

    weights, gram, h = _case()
    first, second = (NAME.replace(".1.", f".{block}.") for block in (1, 2))
    grams = {of_weight(first)[0]: next(iter(gram.values())), of_weight(second)[0]: (h @ h.T).flip(0, 1)}
    chosen = METHOD.Settings(energy=0.9)
    state = METHOD.prepare(chosen, Context(grams))
    for name in (first, second, first):
        alone = _merged(weights, grams, name, energy=0.9)
        assert torch.equal(METHOD.merge(name, weights, chosen, state), alone), name
    assert not torch.allclose(_merged(weights, grams, first, energy=0.9), _merged(weights, grams, second, energy=0.9))


def test_it_asks_for_gram_matrices_of_all_tokens_and_with_all_directions_nothing_is_left_to_round():
    from holdfast.model.layers import of_weight

    assert METHOD.Settings().artifacts() == METHOD.Settings(energy=0.9).artifacts() == {"gram": "all"}
    weights, gram, _ = _case()
    gram = {of_weight(NAME)[0]: next(iter(gram.values()))}
    assert torch.equal(_merged(weights, gram, rank_fraction=1.0), weights.stored("aligned"))
