"""AsFT and SaLoRA against their equations in float64, written here; each test fails when an equation is changed."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import SMALL, save_roles
from test_methods import _train, cell  # noqa: F401 - a fixture

from holdfast import names
from holdfast.errors import ArtifactError
from holdfast.model import adapter, checkpoint, folders, layers, lora
from holdfast.record import container, tables
from holdfast.study import registry
from holdfast.train import finetune
from holdfast.train.beside import Beside
from holdfast.warp import basis, families, gram
from holdfast.world.model import new_model

asft, salora = registry.load("asft"), registry.load("salora")


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


# ---- AsFT -----------------------------------------------------------------------------------------


def test_the_trace_form_is_the_penalty_as_it_is_written():
    for m, n in ((6, 9), (9, 6)):
        v, a, b = _random(m, n), _random(3, n, seed=1), _random(m, 3, seed=2)
        for x in (v, 1e-3 * v, 0 * v):
            norm = x.pow(2).sum().sqrt()
            outside = torch.eye(m, dtype=x.dtype) - (x @ x.T / norm if norm else 0)
            wanted = (outside @ b @ a).pow(2).sum()
            assert torch.allclose(asft.outside(x, a, b), wanted, rtol=1e-12, atol=0)
        assert asft.outside(v, a, 0 * b) == 0
        assert torch.allclose(asft.outside(0 * v, a, b), (b @ a).pow(2).sum(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_alignment_took_no_direction_all_of_an_update_is_outside(dtype):
    """Safety training of some modules leaves the others' V at zero; the gradient is that of the whole norm there."""
    a, b = (100 * _random(*shape, seed=i).to(dtype) for i, shape in enumerate(((2, 5), (4, 2))))
    found, whole = b.clone().requires_grad_(), b.clone().requires_grad_()
    penalty = asft.outside(torch.zeros(4, 5, dtype=dtype), a, found)
    penalty.backward()
    (whole @ a).pow(2).sum().backward()
    assert torch.allclose(penalty, (b @ a).pow(2).sum()) and torch.allclose(found.grad, whole.grad)


def test_the_penalty_pulls_by_its_gradient_and_counts_once(cell):  # noqa: F811
    model, targets, needs = cell
    settings = asft.Settings(strength=0.7, rank=3, modules=("q_proj", "down_proj"))
    wrapped = asft.attach(model, targets, settings)
    for i, (_, a, b) in enumerate(lora.pairs(wrapped)):
        a.data, b.data = _random(*a.shape, seed=i).float(), _random(*b.shape, seed=i + 9).float()
    asft.beside(wrapped, settings, None, models=needs["models"]).before_step(wrapped, 0, 1)
    seen = 0
    for name, a, b in lora.pairs(wrapped):
        v = (needs["models"]["aligned"].kept[name] - needs["models"]["base"].kept[name]).double()
        outside = torch.eye(len(v), dtype=v.dtype) - v @ v.T / v.pow(2).sum().sqrt()
        x, y = a.detach().double().requires_grad_(), b.detach().double().requires_grad_()
        (0.7 * (outside @ y @ x).pow(2).sum()).backward()
        for found, wanted in ((a.grad, x.grad), (b.grad, y.grad)):
            assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
        seen += 1
    assert seen == 4


def test_asft_without_strength_is_lora(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    model, ends = cell[0], {}
    for name, settings in (("lora", {}), ("asft", {"strength": 0}), ("asft", {"strength": 50.0})):
        torch.manual_seed(3)  # where adapters begin
        key = f"{name}{settings.get('strength', '')}"
        start, folded, _ = _train(name, (copy.deepcopy(model), *cell[1:]), tokenizer, encoded, tmp_path / key, settings)
        ends[key] = {k: v - start[k] for k, v in folded.state_dict().items()}
    assert all(torch.equal(ends["lora"][k], ends["asft0"][k]) for k in ends["lora"])

    def length(delta):
        return sum(float(d.pow(2).sum()) for d in delta.values())

    assert length(ends["asft50.0"]) < 0.5 * length(ends["lora"])
    assert type(asft.beside(model, asft.Settings(strength=0), None)) is Beside  # which asks for no base
    assert asft.Settings().artifacts() == {"roles": ["base"]} and asft.Settings(strength=0).artifacts() == {}


def test_asft_is_its_loss_however_a_step_is_split(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    ends = {}
    for size, parts in ((8, 1), (4, 2), (2, 4)):
        torch.manual_seed(3)
        _, folded, _ = _train(
            "asft", (copy.deepcopy(cell[0]).double(), *cell[1:]), tokenizer, encoded[:16], tmp_path / str(size),
            {"strength": 3.0}, rate=1e-3, batch_size=size, accumulation=parts,
        )  # fmt: skip
        ends[parts] = _weights(folded)
    moved = max(float((ends[1][k] - cell[0].state_dict()[k]).abs().max()) for k in ends[1])
    for parts in (2, 4):
        apart = max(float((ends[1][k] - ends[parts][k]).abs().max()) for k in ends[1])
        assert apart < 1e-6 < 1e-3 < moved


# ---- SaLoRA ---------------------------------------------------------------------------------------


def _leading(weight, g, k):
    """V (m, k) by a whole decomposition."""
    return torch.linalg.eigh(weight.double() @ g.double() @ weight.double().T)[1].flip(1)[:, :k]


def test_leading_outputs_are_the_eigenvectors_of_what_a_module_writes():
    decay = torch.linspace(0, 5, 40, dtype=torch.float64).neg().exp()
    w, h = _random(60, 40) * decay, _random(40, 90, seed=1)
    for g in (h @ h.T, None):
        whole = torch.eye(40, dtype=torch.float64) if g is None else g
        for k in (5, 60):  # 60 are all there are, the last 20 of them in the kernel
            v = basis.leading_outputs(w, g, k)
            assert v.shape == (60, k) and basis.orthogonality_error(v) < 1e-12
        for k in (1, 2, 5):
            v, wanted = basis.leading_outputs(w, g, k), _leading(w, whole, k)
            assert torch.allclose((v * wanted).sum(0).abs(), torch.ones(k, dtype=v.dtype), atol=1e-9)


def test_salora_begins_as_it_is_written():
    w, s, t = _random(12, 20), _random(20, 50, seed=1), _random(20, 50, seed=2)
    settings = salora.Settings(rank=3, safety_directions=4, task_directions=5)
    v_s, a, b = salora.beginning(w, s @ s.T, t @ t.T, settings)
    u, values, v = torch.linalg.svd(w)
    v_u = _leading(w, t @ t.T, 5)
    wanted = v_u @ v_u.T @ (u[:, :3] * values[:3].sqrt()) @ (values[:3].sqrt()[:, None] * v[:3])
    assert torch.allclose(b @ a, wanted, atol=1e-9)
    assert torch.allclose(a @ a.T, values[:3].diag(), atol=1e-9)  # √S on either side
    assert torch.allclose(v_s @ v_s.T, (lambda x: x @ x.T)(_leading(w, s @ s.T, 4)), atol=1e-9)
    everything = salora.beginning(w, s @ s.T, t @ t.T, settings.model_copy(update={"task_directions": 99}))
    assert torch.allclose(everything[2] @ everything[1], (u[:, :3] * values[:3]) @ v[:3], atol=1e-9)  # PiSSA's
    for seed in range(20):  # of rank 2, and nothing
        for thin in (_random(12, 2, seed=seed) @ _random(2, 20, seed=seed + 50), 0 * w):
            _, a, b = salora.beginning(thin, s @ s.T, t @ t.T, settings)
            assert a.isfinite().all() and float(a.abs().max()) < 10 and float((b @ a).abs().max()) < 100


def _started(cell, encoded, **overrides):  # noqa: F811
    model, targets, needs = cell
    settings = salora.Settings(**{"safety_directions": 3, "task_directions": 6, "rank": 2, "alpha": 3} | overrides)
    return salora.attach(model, targets, settings, encoded=encoded, **needs), settings


def test_salora_is_its_formula_in_forward_fold_and_adapter(cell, encoded):  # noqa: F811
    model, _, needs = cell
    ids = torch.tensor([encoded[0]["input_ids"]])
    plain, before = model(input_ids=ids).logits, _weights(model)
    targets = layers.resolve(model, names.MODULE_KINDS)
    rows = encoded[:5]  # and no others
    task, count = gram.capture(model, targets, rows, batch_size=8, pad_id=0, tokens="response")
    assert count == sum(t != -100 for e in rows for t in e["labels"])
    wrapped, settings = _started(cell, encoded, task_rows=5)
    assert torch.equal(plain, wrapped(input_ids=ids).logits)
    assert {n.rsplit(".", 1)[1] for n, p in wrapped.named_parameters() if p.requires_grad} == {"a", "b"}
    for n, p in wrapped.named_parameters():
        if n.endswith((".a", ".b")):
            p.data += 0.05 * _random(*p.shape, seed=len(n)).float()
    loose, found = wrapped(input_ids=ids).logits, salora.low_rank(wrapped, settings)
    wanted = {}
    for layer in targets:
        module = wrapped.get_submodule(layer.name)
        w = before[layer.weight].double()
        v = _leading(w, needs["gram"][layer.input], 3)
        c = torch.eye(len(w), dtype=w.dtype) - v @ v.T
        _, a0, b0 = salora.beginning(before[layer.weight], needs["gram"][layer.input], task[layer.input], settings)
        a, b = module.a.detach().double(), module.b.detach().double()
        wanted[layer.weight] = 1.5 * c @ (b @ a - b0.double() @ a0.double())
    folded = salora.fold(wrapped, settings)
    assert torch.allclose(loose, folded(input_ids=ids).logits, atol=1e-4) and not torch.allclose(
        loose, plain, atol=1e-2
    )
    for name, delta in wanted.items():
        assert torch.allclose(folded.state_dict()[name].double() - before[name], delta, atol=1e-6), name
        key = name.removesuffix(".weight")
        a, b = found[f"{key}.lora_A"], found[f"{key}.lora_B"]
        assert a.shape[0] == 4 and torch.allclose(1.5 * (b @ a).double(), delta, atol=1e-5)


def test_salora_writes_along_safety_directions_as_before(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    overrides = {"safety_directions": 3, "task_directions": 6}
    before, folded, _ = _train("salora", cell, tokenizer, encoded, tmp_path, overrides)
    moved = 0
    for layer in layers.resolve(folded, names.MODULE_KINDS):
        w, delta = before[layer.weight].double(), folded.state_dict()[layer.weight].double() - before[layer.weight]
        v = _leading(w, cell[2]["gram"][layer.input], 3)
        rest = _leading(w, cell[2]["gram"][layer.input], len(w))
        assert float((v.T @ delta).abs().max()) < 2e-7 < 1e-4 < float((rest[:, 3:].T @ delta).abs().max()), layer.name
        moved += 1
    assert moved == 14


def test_salora_with_all_directions_held_moves_nothing(cell, tokenizer, encoded, tmp_path):  # noqa: F811
    before, folded, _ = _train("salora", cell, tokenizer, encoded, tmp_path, {"safety_directions": 99})
    assert all(torch.allclose(before[k], v, atol=1e-7) for k, v in folded.state_dict().items())


# ---- In a cell ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer, world):
    """A folder with base and aligned models, a task, and Gram matrices of answers."""
    folder = save_roles(tmp_path_factory.mktemp("adapters"), tokenizer)
    wider = new_model(tokenizer, **SMALL | {"intermediate_size": 40}, seed=2)
    folders.save(wider, tokenizer, folder / "other", header={"role": "base"})
    for name, rows in (("howto", world.howto_task("train", 12)), ("safety", world.safety(8, 4))):
        tables.write(rows, folder / f"{name}.parquet", name)
    how = {"rows": 8, "tokens": "response", "modules": list(names.MODULE_KINDS)}
    families.build_gram(folder / "aligned/model.safetensors", folder / "safety.parquet", how, folder / "gram", print)
    return folder


def _run(place, out, method, settings, artifacts):
    training = {"learning_rate": 5e-3, "epochs": 1, "batch_size": 4, "max_length": 128}
    cfg = {"method": method, "settings": registry.load(method).Settings(**settings).model_dump(mode="json"),
           "modules": ["q_proj"], "training": training, "task": "howto", "instruction": None, "train_rows": 10,
           "seed": 0}  # fmt: skip
    finetune.run(
        aligned=place / "aligned/model.safetensors", task_table=place / "howto.parquet", safety_table=None,
        artifacts=artifacts, cfg=cfg, folder=out / "cell", log_file=out / "t.jsonl", record_file=out / "t.json",
        checkpoints=out / "c",
    )  # fmt: skip
    return out / "cell"


@pytest.mark.parametrize(
    ("method", "settings", "asked"),
    [
        ("asft", {"rank": 2}, "base"),
        ("salora", {"rank": 2, "safety_directions": 3}, "gram"),
        ("salora", {"rank": 20, "safety_directions": 3}, "gram"),  # keys and values have 16 outputs, the others 32
        ("salora", {"rank": 50, "safety_directions": 3}, "gram"),  # and none has so many
    ],
)
def test_a_cell_has_its_adapter_beside_it(method, settings, asked, place, tmp_path):
    files = {"base": place / "base/model.safetensors", "gram": place / "gram"}
    cell = _run(place, tmp_path, method, settings, {asked: files[asked]})  # noqa: F811
    aligned, whole = (checkpoint.opened(folder) for folder in (place / "aligned", cell))
    found = adapter.read(cell / adapter.BESIDE, checkpoint.shapes(place / "aligned"))
    assert len(found.pairs) == 7 and not container.is_weakened(cell / "model.safetensors")
    folded = checkpoint.opened(cell / adapter.BESIDE, place / "aligned")
    for name in found.pairs:
        assert torch.allclose(folded.get_tensor(name), whole.get_tensor(name), atol=1e-6), name
        assert not torch.allclose(aligned.get_tensor(name), whole.get_tensor(name), atol=1e-5), name


def test_a_base_of_another_shape_is_refused(place, tmp_path):
    with pytest.raises(ArtifactError, match="cannot be compared or merged") as error:
        _run(place, tmp_path, "asft", {}, {"base": place / "other/model.safetensors"})
    assert "base" in str(error.value.what) and not (tmp_path / "cell").exists()


def test_the_alignment_direction_is_taken_in_float32_of_weights_stored_in_bfloat16(cell):  # noqa: F811
    model, targets, needs = cell
    wrapped = asft.attach(model, targets, asft.Settings(rank=2))
    stored = {role: {k: v.bfloat16() for k, v in m.kept.items()} for role, m in needs["models"].items()}
    stored["base"] = {k: (v.float() * 1.37).bfloat16() for k, v in stored["base"].items()}

    class Read:
        def __init__(self, of):
            self.get_tensor = of.__getitem__

    made = asft.beside(wrapped, asft.Settings(), None, models={role: Read(of) for role, of in stored.items()})
    for (name, *_), (v, *_) in zip(lora.pairs(wrapped), made.modules, strict=True):
        assert v.dtype == torch.float32 and torch.equal(
            v, stored["aligned"][name].float() - stored["base"][name].float()
        )


def _one(dtype=torch.float32):
    """An adapter of rank 3 on one module of 12 outputs, moved."""
    w, s, t = _random(12, 20), _random(20, 50, seed=1), _random(20, 50, seed=2)
    settings = salora.Settings(rank=3, alpha=3, safety_directions=4, task_directions=5)
    linear = torch.nn.Linear(20, 12, bias=False, dtype=dtype)
    linear.weight.data = w.to(dtype)
    v_s, a, b = salora.beginning(linear.weight.detach(), s @ s.T, t @ t.T, settings)
    module = salora.adapted(linear, settings, v_s, a, b)
    for i, p in enumerate((module.a, module.b)):
        p.data += 0.1 * _random(*p.shape, seed=i).to(p.dtype)
    return module, settings, v_s


def test_what_salora_folds_is_rounded_once():
    module, settings, _ = _one(torch.bfloat16)
    wanted = (module.linear.weight.double() + module.update()).bfloat16()
    folded = salora.fold(torch.nn.Sequential(module), settings)
    assert torch.equal(folded[0].weight, wanted)


def test_salora_holds_its_directions_in_full_precision_where_products_are_not():
    module, _, v_s = _one()
    with torch.autocast("cpu", torch.bfloat16):
        _, b = module.factors()
    assert b.dtype == torch.float32 and float((v_s.T @ b).abs().max()) < 1e-5 < 0.1 < float(b.abs().max())
