"""Merge methods against plain float64 forms of what was published, written here from the papers and from what the
authors' code does, without our library. Each fails when the equation is changed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_merging import family, gram_file, merge  # noqa: F401 - fixtures

from holdfast.merge import driver, fusion
from holdfast.model import chat, folders
from holdfast.model.layers import of_weight
from holdfast.record import artifact, container
from holdfast.study import registry


def _float64(path):
    return {k: v.double().numpy() for k, v in load_file(path).items()}


def _random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- Safe Delta -----------------------------------------------------------------------------------


def _safe_delta(aligned, finetuned, gram, s, *, budget, never_kept=0.15, tile=2048, group=4, damping=0.01):
    """Entry by entry, as the paper's rule and the authors' code read."""
    m, n = aligned.shape
    h = 2 * gram
    h = h + damping * np.trace(h) / n * np.eye(n)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    w = aligned.copy()
    for left in range(0, n, tile):
        columns = range(left, min(left + tile, n))
        cost = {(i, j): (finetuned[i, j] - w[i, j]) ** 2 / u[j, j] ** 2 for i in range(m) for j in columns}
        order = sorted(cost, key=lambda entry: (1 / u[entry[1], entry[1]] ** 2, entry[1], entry[0]))
        if budget == "published":
            allowed = np.mean([1 / u[j, j] ** 2 for j in columns]) * s / 2 * m / 4096
        else:
            allowed = s * sum(cost.values())
        kept, spent = set(), 0.0
        for entry in order[: len(order) - int(never_kept * len(order))]:
            spent += cost[entry]
            if spent > allowed * (1 + 1e-9):
                break
            kept.add(entry)
        for j in columns:
            end_of_group = min(left + ((j - left) // group + 1) * group, columns[-1] + 1)
            for i in range(m):
                if (i, j) in kept:
                    error = (w[i, j] - finetuned[i, j]) / u[j, j]
                    w[i, end_of_group:] -= error * u[j, end_of_group:]
                    w[i, j] = finetuned[i, j]
    return w


def _layer(seed, m=6, n=13, t=60):
    x = _random(n, t, seed=seed) * np.linspace(0.3, 2.5, n)[np.random.default_rng(seed).permutation(n), None]
    x = x + 0.5 * x[::-1]  # correlated, so that compensation matters
    aligned = _random(m, n, seed=seed + 100)
    return x @ x.T, aligned, aligned + 0.1 * _random(m, n, seed=seed + 200)


@pytest.mark.parametrize("tile", [2048, 5])
@pytest.mark.parametrize("group", [4, 1])
@pytest.mark.parametrize(("budget", "s"), [("relative", 0.4), ("relative", 0.9), ("published", 25.0)])
@pytest.mark.parametrize("never_kept", [0.15, 0.0, 0.33])
def test_safe_delta_is_the_published_rule_on_compensated_tiles(tile, group, budget, s, never_kept):
    method = registry.load("safe-delta")
    settings = method.Settings(strength=s, budget=budget, tile=tile, group=group, never_kept=never_kept)
    for seed in range(4):
        gram, aligned, finetuned = _layer(seed)
        want = _safe_delta(aligned, finetuned, gram, s, budget=budget, never_kept=never_kept, tile=tile, group=group)
        factor = method.inverse_factor(torch.from_numpy(gram), settings.damping)
        out, kept = method.fuse(torch.from_numpy(aligned), torch.from_numpy(finetuned), factor, settings)
        assert np.abs(out.numpy() - want).max() < 1e-9
        assert 0.05 < kept.double().mean() < 0.99


def test_safe_delta_counts_what_it_keeps_among_the_entries_that_changed():
    """An entry without an update costs nothing and is no part of the share that was kept."""
    aligned, x = torch.from_numpy(_random(6, 8)), _random(8, 40, seed=1)
    finetuned = aligned.clone()
    finetuned[:, :3] += 0.1
    method = registry.load("safe-delta")
    u = method.inverse_factor(torch.from_numpy(x @ x.T), 0.01)
    out, kept = method.fuse(aligned, finetuned, u, method.Settings(strength=1.0, never_kept=0.0))
    assert torch.equal(kept, finetuned != aligned) and torch.allclose(out, finetuned)
    assert not method.fuse(aligned, finetuned, u, method.Settings(strength=0.0))[1].any()


def test_tiles_are_selected_on_what_earlier_tiles_left():
    """The reference tells compensated from original selection apart, or the test above would say nothing."""
    method, seen = registry.load("safe-delta"), 0
    settings = method.Settings(strength=0.5, tile=5)
    for seed in range(4):
        gram, aligned, finetuned = (torch.from_numpy(x) for x in _layer(seed))
        factor = method.inverse_factor(gram, settings.damping)
        _, kept = method.fuse(aligned, finetuned, factor, settings)
        alone = method.selection((finetuned - aligned)[:, 5:10], factor.diagonal()[5:10], settings)
        seen += int((kept[:, 5:10] != alone).sum())
    assert seen


def test_safe_delta_merges_with_the_gram_matrices_of_the_study(merge, family, gram_file):  # noqa: F811
    out, _ = merge("safe-delta", {"strength": 0.5})
    aligned, finetuned = _float64(family["aligned"]), _float64(family["finetuned"])
    grams, _ = artifact.read(gram_file, family="gram")
    looked = 0
    for name in (k for k in out if of_weight(k) and ".layers.1." in k):
        gram = grams[of_weight(name)[0]].double().numpy()
        want = _safe_delta(aligned[name], finetuned[name], gram, 0.5, budget="relative")
        close = np.isclose(out[name].double().numpy(), want, atol=1e-5)
        assert close.mean() > 0.995, name  # a float32 sum may move the last kept entry
        looked += 1
    assert looked == 7


# ---- RESTA and RESTA_d ----------------------------------------------------------------------------


@pytest.mark.parametrize("vector", ["unaligned", "base"])
@pytest.mark.parametrize("start", ["aligned", "base"])
def test_resta_d_thins_the_task_vector_from_its_start_and_adds_the_safety_vector(vector, start, merge, family):  # noqa: F811
    settings = {"gamma": 0.7, "drop": 0.4, "vector": vector, "start": start}
    out, _ = merge("resta-dare", settings)
    w = {role: _float64(path) for role, path in family.items()}
    for name in out:
        kept = (torch.rand(out[name].shape, generator=fusion.generator(0, name)) >= 0.4).double().numpy()
        delta = kept * (w["finetuned"][name] - w[start][name]) / 0.6
        want = w[start][name] + delta + 0.7 * (w["aligned"][name] - w[vector][name])
        assert np.abs(out[name].double().numpy() - want).max() < 1e-6
        assert 0.2 < kept.mean() < 0.9
    assert registry.load("resta-dare").Settings(**settings).artifacts()["roles"] == sorted(
        {vector, start} - {"aligned"}
    )


# ---- Safe LoRA ------------------------------------------------------------------------------------


def _cosines(family):  # noqa: F811
    w = {role: _float64(path) for role, path in family.items()}
    cosines, pulled = {}, {}
    for name in (k for k in w["aligned"] if of_weight(k)):
        v, delta = w["aligned"][name] - w["base"][name], w["finetuned"][name] - w["aligned"][name]
        c = v @ v.T / np.sqrt((v**2).sum())
        cosines[name] = ((c @ delta) * delta).sum() / np.sqrt(((c @ delta) ** 2).sum() * (delta**2).sum())
        pulled[name] = w["aligned"][name] + c @ delta
    return cosines, pulled, w["finetuned"]


@pytest.mark.parametrize("by", ["number", "threshold"])
def test_safe_lora_projects_the_modules_that_stray_most(by, merge, family):  # noqa: F811
    cosines, pulled, finetuned = _cosines(family)
    ranked = sorted(cosines, key=cosines.get)
    settings = {"number": 5} if by == "number" else {"threshold": (cosines[ranked[4]] + cosines[ranked[5]]) / 2}
    out, record = merge("safe-lora", settings)
    for name in out:
        want = pulled[name] if name in ranked[:5] else finetuned[name]
        assert np.abs(out[name].double().numpy() - want).max() < 1e-6, name
        assert name not in cosines or np.abs(pulled[name] - finetuned[name]).max() > 1e-3
    assert record["modules_projected"] == 5


def test_the_true_projector_of_a_direction_of_low_rank_is_that_of_its_range():
    """Singular values that are rounding only are no directions."""
    range_, delta = _random(12, 3), _random(12, 7, seed=1)
    q, _ = np.linalg.qr(range_)
    v = torch.from_numpy(range_ @ _random(3, 7, seed=2))
    out = registry.load("safe-lora").project(v, torch.from_numpy(delta), "projector")
    assert np.allclose(out.numpy(), q @ (q.T @ delta), atol=1e-9)


def test_safe_lora_looks_at_the_named_modules_only(merge, family):  # noqa: F811
    _, pulled, finetuned = _cosines(family)
    out, record = merge("safe-lora", {"threshold": 2, "modules": ["q_proj", "down_proj"]})
    for name in out:
        want = pulled[name] if "q_proj" in name or "down_proj" in name else finetuned[name]
        assert np.abs(out[name].double().numpy() - want).max() < 1e-6, name
    assert record["modules"] == 4


def test_a_module_without_an_update_strays_from_nothing(merge, family, tmp_path):  # noqa: F811
    """Its cosine is not defined: it is not projected, and takes no other one's place among the smallest."""
    finetuned, aligned = (load_file(family[role]) for role in ("finetuned", "aligned"))
    cosines, _, _ = _cosines(family)
    still = min(cosines, key=cosines.get)
    shutil.copytree(family["finetuned"].parent, tmp_path / "still")
    path = tmp_path / "still/model.safetensors"
    save_file(finetuned | {still: aligned[still]}, path, container.metadata({"role": "finetuned"}))
    container.seal(path)
    for settings, count in (({"threshold": 0.99}, 13), ({"number": 13}, 13), ({"number": 14}, 14)):
        out, record = merge("safe-lora", settings, finetuned=path)
        assert torch.equal(out[still], aligned[still]) and record["modules_projected"] == count
        assert all(not torch.equal(out[k], finetuned[k]) for k in cosines)


# ---- SOMF -----------------------------------------------------------------------------------------


def test_somf_draws_a_relaxed_bernoulli_mask():
    somf, logit = registry.load("somf"), torch.linspace(-3, 3, 2000).reshape(40, 50)
    u = torch.rand(40, 50, generator=torch.Generator().manual_seed(4)).double().clamp(1e-6, 1 - 1e-6).numpy()
    for temperature in (0.5, 2.0):
        mask = somf.relaxed(logit, temperature, torch.Generator().manual_seed(4))
        want = 1 / (1 + np.exp(-(logit.double().numpy() + np.log(u) - np.log(1 - u)) / temperature))
        assert np.abs(mask.double().numpy() - want).max() < 1e-5
    many = sum((somf.relaxed(logit, 0.5, fusion.generator(0, i)) > 0.5).double() for i in range(2000)) / 2000
    assert (many - torch.sigmoid(logit.double())).abs().max() < 0.06


def test_somf_prefers_the_chosen_answer_by_beta():
    policy_chosen, policy_rejected, chosen, rejected = (_random(9, seed=i) * 4 for i in range(4))
    for beta in (0.1, 0.7):
        got = registry.load("somf").dpo_loss(
            *(torch.from_numpy(x) for x in (policy_chosen, policy_rejected, chosen, rejected)), beta
        )
        margin = beta * ((policy_chosen - chosen) - (policy_rejected - rejected))
        assert float(got) == pytest.approx(np.log1p(np.exp(-margin)).mean(), abs=1e-12)


def _context(family, preferences):  # noqa: F811
    files = {role: safe_open(path, framework="pt") for role, path in family.items()}
    return driver.Context(
        names=list(files["finetuned"].keys()), weights=lambda name: driver.Weights(files, name),
        model=lambda role: folders.load(family[role].parent), preferences=preferences, seed=3,
    )  # fmt: skip


def _learned(family, rows, steps, size, options):  # noqa: F811
    """DPO on the logits, in float64 and with AdamW written out: (logits, last loss)."""
    model, tokenizer = folders.load(family["aligned"].parent)
    model = model.double()
    model.config._attn_implementation = "eager"
    weights = {role: {k: v.double() for k, v in load_file(family[role]).items()} for role in ("aligned", "finetuned")}
    start = {k: weights["aligned"][k] for k in weights["finetuned"]}
    tau = {k: v - start[k] for k, v in weights["finetuned"].items()}
    logits = {k: torch.zeros_like(v, requires_grad=True) for k, v in tau.items()}

    def answer(parameters, row, side):
        ids = chat.encode(tokenizer, row["prompt"], row[side])
        out = torch.func.functional_call(model, parameters, (torch.tensor([ids["input_ids"]]),)).logits[0, :-1]
        labels = torch.tensor(ids["labels"])[1:]
        return sum(out[i].log_softmax(-1)[t] for i, t in enumerate(labels) if t != chat.IGNORE)

    def fused(stream, learned):
        parameters = {}
        for k, logit in logits.items():
            u = torch.rand(logit.shape, generator=stream).clamp(1e-6, 1 - 1e-6).double()
            m = torch.sigmoid(((logit if learned else 0) + torch.log(u / (1 - u))) / options["temperature"])
            parameters[k] = start[k] + options["weight"] * tau[k] * m / m.mean()
        return parameters

    stream, other = fusion.generator(3, "somf"), fusion.generator(3, "somf", "reference")
    moments, queue = {k: [torch.zeros_like(v), torch.zeros_like(v)] for k, v in logits.items()}, []
    for step in range(steps):
        while len(queue) < size:
            queue += torch.randperm(len(rows), generator=stream).tolist()
        batch, queue = [rows[i] for i in queue[:size]], queue[size:]
        policy = fused(stream, True)
        reference = fused(other, False) if options["reference"] == "mask" else start
        margins = []
        for row in batch:
            with torch.no_grad():
                reference_margin = answer(reference, row, "chosen") - answer(reference, row, "rejected")
            margins.append(answer(policy, row, "chosen") - answer(policy, row, "rejected") - reference_margin)
        loss = torch.log1p(torch.exp(-options["beta"] * torch.stack(margins))).mean()
        gradients = torch.autograd.grad(loss, list(logits.values()))
        rate = options["learning_rate_logits"] * min(1, step / 2)  # two steps of warm-up, then the cosine
        if step >= 2:
            rate *= 0.5 * (1 + np.cos(np.pi * (step - 2) / (steps - 2)))
        for (k, logit), g in zip(logits.items(), gradients, strict=True):
            first, second = moments[k] = [0.9 * moments[k][0] + 0.1 * g, 0.999 * moments[k][1] + 0.001 * g**2]
            update = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            logits[k] = (logit.detach() - rate * update).requires_grad_()
    return logits, float(loss.detach())


@pytest.mark.parametrize(("reference", "pairs", "steps"), [("aligned", 4, 8), ("mask", 4, 8), ("aligned", 12, 4)])
def test_somf_learns_as_the_published_form_does(reference, pairs, steps, family, world):  # noqa: F811
    options = {"temperature": 0.7, "weight": 0.8, "beta": 0.3, "learning_rate_logits": 0.3, "reference": reference}
    somf, rows = registry.load("somf"), world.preferences(pairs)
    context = _context(family, rows)
    settings = somf.Settings(**options, epochs=2 * steps / len(rows), batch_size=2, schedule="cosine", warmup_steps=2)
    ours = somf.learn(settings, context)
    want, loss = _learned(family, rows, steps, 2, options)
    assert context.record["mask_steps"] == steps and context.record["mask_loss"] == pytest.approx(loss, rel=2e-3)
    far = torch.cat([(ours[k].detach() - want[k]).abs().flatten() for k in want])
    assert (far < 0.02).double().mean() > 0.97  # AdamW makes large steps of gradients that are almost zero
    moved = torch.cat([v.detach().abs().flatten() for v in want.values()])
    assert moved.median() > 0.1


def test_somf_compares_only_the_pairs_it_learns_from(family, world, monkeypatch):  # noqa: F811
    from holdfast.model import preferences

    compared, own = [], preferences.log_probabilities

    def counted(model, pairs, *more):
        compared.append(len(pairs))
        return own(model, pairs, *more)

    monkeypatch.setattr(preferences, "log_probabilities", counted)
    somf, rows = registry.load("somf"), world.preferences(8)
    somf.learn(somf.Settings(epochs=4 / len(rows), batch_size=2), _context(family, rows))
    assert compared == [4, 2, 2]


@pytest.mark.parametrize("fusion_of", ["sum", "ties_merging", "dare_redrawn"])
def test_somf_learns_the_same_from_pairs_one_by_one(fusion_of, family, world):  # noqa: F811
    somf, learned = registry.load("somf"), []
    for at_once in (None, 1):
        context = _context(family, world.preferences(4))
        settings = somf.Settings(epochs=4, batch_size=3, fusion=fusion_of, pairs_at_once=at_once)
        learned.append(somf.learn(settings, context))
        assert context.record["mask_steps"] == 5
    whole, parts = (torch.cat([v.detach().flatten() for v in each.values()]) for each in learned)
    assert whole.abs().median() > 0.05 and ((whole - parts).abs() < 0.02).double().mean() > 0.97


@pytest.mark.parametrize("size", [1.0, 1e-7])
def test_the_gradient_of_a_rescaled_task_vector_is_that_of_its_formula(size):
    tau, mask, along = (torch.from_numpy(_random(7, 5, seed=i)) for i in range(3))
    mask = size * mask.abs()
    leaf, other = (mask.clone().requires_grad_() for _ in range(2))
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = fusion.rescaled([tau, 2 * tau], leaf)
    # A mean below 1e-6 is taken as 1e-6, whatever the mask.
    formula = tau * other / (other.mean() if size == 1 else 1e-6)
    assert torch.allclose(found[0], formula, rtol=1e-5) and torch.allclose(found[1], 2 * formula, rtol=1e-5)
    (found[0] * along).sum().backward()
    (formula * along).sum().backward()
    assert torch.allclose(leaf.grad, other.grad, rtol=1e-5)
    assert sum(t.numel() for t in kept) == 4 * tau.numel()  # of each δ itself and m, nothing as large that is made


def _two_tasks():
    return {name: [_random(7, 5, seed=i), 3 * _random(7, 5, seed=i + 10)] for i, name in enumerate(("a", "b"))}


def test_somf_fuses_tasks_as_the_authors_do_where_asked():
    somf, tensors = registry.load("somf"), _two_tasks()
    masks = {"a": np.abs(_random(7, 5, seed=20)) % 1, "b": np.abs(_random(7, 5, seed=21)) % 1}
    scaled = {k: [v * masks[k] / masks[k].mean() for v in values] for k, values in tensors.items()}
    flat = [np.sort(np.abs(np.concatenate([scaled[k][i].ravel() for k in scaled]))) for i in range(2)]
    least = [f[70 - int(0.31 * 70) - 1] for f in flat]  # the 49th of 70 magnitudes in ascending order
    settings = somf.Settings(fusion="ties_merging", density=0.31, weight=0.4)
    given = {k: [torch.from_numpy(v) for v in values] for k, values in tensors.items()}
    mask = {k: torch.from_numpy(m) for k, m in masks.items()}
    found = somf.magnitudes([fusion.rescaled(given[k], mask[k]) for k in given], settings)
    assert found == pytest.approx(least)
    for k in tensors:
        kept = [np.where(np.abs(v) >= t, v, 0) for v, t in zip(scaled[k], least, strict=True)]
        sign = np.sign(kept[0] + kept[1])
        want = 0.4 * sum(np.where(np.sign(v) == sign, v, 0) for v in kept)
        got = somf.masked(given[k], mask[k], settings, 0, k, found)
        assert np.abs(got.numpy() - want).max() < 1e-6
        per_tensor = somf.masked(given[k], mask[k], settings.model_copy(update={"fusion": "ties"}), 0, k)
        assert np.abs(per_tensor.numpy() - want).max() > 0.1
    assert somf.magnitudes([given["a"]], somf.Settings(fusion="ties")) == []
    one = [given["a"][0]]
    assert torch.equal(somf.masked(one, None, somf.Settings(fusion="ties_merging"), 0, "a"), one[0])


def test_task_vectors_are_added_or_averaged():
    somf, (one, two) = registry.load("somf"), _two_tasks()["a"]
    for how, share in (("sum", 1), ("mean", 0.5)):
        got = somf.masked([torch.from_numpy(one), torch.from_numpy(two)], None, somf.Settings(fusion=how), 0, "a")
        assert np.allclose(got.numpy(), share * (one + two))


def test_the_authors_dare_drops_for_one_task_too_and_draws_anew():
    somf, value = registry.load("somf"), [torch.from_numpy(_random(60, 50))]
    fixed, redrawn = (somf.Settings(fusion=f, drop=0.3, weight=0.5) for f in ("dare", "dare_redrawn"))
    assert torch.equal(somf.masked(value, None, fixed, 0, "a"), 0.5 * value[0])
    one, two = (somf.masked(value, None, redrawn, 0, "a", draw=(i,)) for i in (0, 1))
    for out in (one, two):
        kept = out != 0
        assert abs(kept.double().mean() - 0.7) < 0.03 and torch.allclose(out[kept], 0.5 * value[0][kept] / 0.7)
    assert not torch.equal(one, two)
    several = [value[0], 2 * value[0]]
    draws = [somf.masked(several, None, fixed, 0, "a", draw=(i,)) for i in (0, 1)]
    assert torch.equal(*draws)
    assert not torch.equal(*(somf.masked(several, None, redrawn, 0, "a", draw=(i,)) for i in (0, 1)))


def test_exports_are_the_mask_or_a_sample_of_it():
    somf, logit = registry.load("somf"), torch.linspace(-3, 3, 5000).reshape(50, 100)
    exported = {e: somf.export(logit, somf.Settings(export=e), 0, "w") for e in ("soft", "draw_sample", "binary_mask")}
    assert torch.allclose(exported["soft"].double(), 1 / (1 + torch.exp(-logit.double())))
    assert torch.equal(exported["binary_mask"], exported["draw_sample"] > 0.5)
    assert 0 < exported["draw_sample"].min() < 0.05 and not torch.equal(exported["draw_sample"], exported["soft"])
    upper = exported["binary_mask"][40:].double().mean()
    assert abs(upper - exported["soft"][40:].mean()) < 0.05
    assert not torch.equal(exported["draw_sample"], somf.export(logit, somf.Settings(export="draw_sample"), 1, "w"))


@pytest.mark.parametrize("options", [{"fusion": "ties_merging"}, {"fusion": "dare_redrawn"}, {"mask": "none"}])
def test_somf_across_tasks_merges_every_tensor_of_a_study(options, merge, family):  # noqa: F811
    """The driver's result is the published sum over the exported mask, which is 1 in the last case."""
    options = {"fusion": "ties_merging", "across_tasks": True, "weight": 0.4, "density": 0.3, "epochs": 0.2} | options
    out, _ = merge("somf", options, **{"finetuned:b": family["unaligned"]})
    w = {role: _float64(path) for role, path in family.items()}
    if "mask" not in options:
        assert all(np.abs(out[k].double().numpy() - w["aligned"][k]).max() > 1e-4 for k in out)
        return
    tau = {k: [w[role][k] - w["aligned"][k] for role in ("finetuned", "unaligned")] for k in out}
    n = sum(v.size for v in w["aligned"].values())
    least = [np.sort(np.abs(np.concatenate([tau[k][i].ravel() for k in tau])))[n - int(0.3 * n) - 1] for i in range(2)]
    for k in out:
        kept = [np.where(np.abs(v) >= t, v, 0) for v, t in zip(tau[k], least, strict=True)]
        sign = np.sign(kept[0] + kept[1])
        want = w["aligned"][k] + 0.4 * sum(np.where(np.sign(v) == sign, v, 0) for v in kept)
        assert (np.abs(out[k].double().numpy() - want) < 1e-6).mean() > 0.999
