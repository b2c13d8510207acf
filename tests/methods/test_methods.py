"""The contract every method file keeps, found by looking at the folder."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from holdfast import names
from holdfast.errors import MethodError
from holdfast.model import chat, layers
from holdfast.study import registry
from holdfast.train import loop
from holdfast.train.beside import Beside, Stream
from holdfast.warp.bits import BitMask
from holdfast.warp.optimizer import RotatedAdamW
from holdfast.world.generator import World

MODULES = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
METHODS = registry.method_names()


class Kept:
    """Weights as a checkpoint has them; of another model with `noise`."""

    def __init__(self, model, noise=0.0):
        draw = torch.Generator().manual_seed(5)
        self.kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.kept = {k: v + noise * torch.randn(v.shape, generator=draw, dtype=v.dtype) for k, v in self.kept.items()}

    def get_tensor(self, name):
        return self.kept[name]


@pytest.fixture
def cell(model, encoded):
    """(model, targets, needs) with a random basis, a mask, Gram matrices and a base model for methods that ask."""
    targets = layers.resolve(model, MODULES)
    from holdfast.warp.basis import random_orthogonal

    basis = {x.input: random_orthogonal(x.module.weight.shape[1], 1) for x in targets}
    draw = {x.name: torch.rand(x.module.weight.shape, generator=torch.Generator().manual_seed(1)) for x in targets}
    mask = {name: BitMask.of(scores < 0.3) for name, scores in draw.items()}
    rows = {x.input: torch.randn(200, x.module.in_features, generator=torch.Generator().manual_seed(2))
            for x in layers.resolve(model, names.MODULE_KINDS)}  # fmt: skip
    models = {"aligned": Kept(model), "base": Kept(model, 0.01)}
    return model, targets, {
        "basis": basis, "mask": mask, "gram": {name: h.T @ h for name, h in rows.items()}, "models": models,
    }  # fmt: skip


def test_methods_are_there():
    assert {"full", "safety-mix", "lora", "warp"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_header_docstring_and_settings(name):
    head = registry.header(name)
    assert head.kind in registry.KINDS and head.needs and 0 < head.learning_rate < 1
    assert "Formula:" in head.doc
    settings = registry.load(name).Settings
    assert settings.model_config["extra"] == "forbid" and settings.model_config["frozen"]
    settings()


@pytest.mark.parametrize("name", METHODS)
def test_the_card_names_functions_and_tests_that_exist(name):
    import ast
    import importlib

    from conftest import ROOT

    card = registry.header(name).card
    assert card["fidelity"] in ("faithful", "simplified", "variant") and card["paper"] and card["cost"]
    assert card["equations"] and isinstance(card["deviations"], tuple)
    for _, function, test in card["equations"]:
        module, _, attribute = function.rpartition(".")
        while module:
            try:
                found = importlib.import_module(module)
                break
            except ModuleNotFoundError:
                module, _, last = module.rpartition(".")
                attribute = f"{last}.{attribute}"
        else:
            found = registry.load(name)
        for part in attribute.split("."):
            found = getattr(found, part)
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert function in [n.name for n in tree.body if isinstance(n, ast.FunctionDef)], test


def test_importing_methods_never_imports_torch():
    code = (
        "import sys; from holdfast.study import registry;"
        "[registry.load(n) for n in registry.method_names()]; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_methods_do_not_import_each_other():
    from holdfast.record import provenance

    for name in METHODS:
        path = registry.method_file(name)
        assert not [
            p for p in provenance.code_files(path) if p.parent == path.parent and p != path and p.stem != "__init__"
        ]


# What a method does to the weights whatever the learning rate, and how it is told not to.
LATER = {"panacea": {"add_perturbation": False}}


def beside(method, model, settings, training, tokenizer, encoded, **needs):
    """What a method does beside its steps, on rows of the world; nothing of one that does nothing."""
    if not hasattr(method, "beside"):
        return None

    def stream(rows, size):
        return Stream(chat.encode_rows(tokenizer, rows), size, tokenizer.pad_token_id, 0)

    rows = {"safety": ("safety", World(3).safety(16, 8)), "harmful": ("preferences", World(3).preferences(12))}
    others = {name: made for name, (kind, made) in rows.items() if kind in method.NEEDS}
    return method.beside(model, settings, training, encoded=encoded, stream=stream, **others, **needs)


def run(
    name, cell, tokenizer, encoded, tmp_path, overrides=None, rate=5e-3, after_step=None, prelude=False, **training
):
    """One method from the aligned model to a plain one again, hook by hook as a cell has it."""
    model, targets, needs = cell
    method = registry.load(name)
    settings = method.Settings(**(overrides or {}))
    before = {k: v.detach().clone() for k, v in model.state_dict().items()}
    train_settings = loop.TrainSettings(**{"learning_rate": rate, "epochs": 2, "batch_size": 8} | training)
    torch.manual_seed(0)

    def train(model, encoded, phase, place, optimizer, **hooks):
        loop.train(
            model, tokenizer, encoded, phase, seed=0, log_file=tmp_path / f"{place}.jsonl", optimizer=optimizer,
            checkpoints=tmp_path / place, identity="x", clips_itself=getattr(optimizer, "clips_itself", False), **hooks,
        )  # fmt: skip

    if prelude and hasattr(method, "prelude"):
        method.prelude(
            model, targets, settings, safety=World(3).safety(16, 8), rows=World(4).safety(8, 8),
            training=train_settings, **needs,
            train=lambda rows, phase, optimizer, _: train(
                model, chat.encode_rows(tokenizer, rows), phase, "p", optimizer
            ),
        )  # fmt: skip
    if hasattr(method, "attach"):
        model = method.attach(model, targets, settings, encoded=encoded, **needs)
    optimizer = (
        method.optimizer(model, targets, settings, train_settings, **needs) if hasattr(method, "optimizer") else None
    )
    hooks = {
        name: functools.partial(getattr(method, name), settings=settings)
        for name in ("extra_loss", "after_step") if hasattr(method, name)
    }  # fmt: skip
    hooks |= {"after_step": after_step} if after_step else {}
    encoded = copy.deepcopy(encoded)  # to which a method may add values
    hooks["beside"] = beside(method, model, settings, train_settings, tokenizer, encoded, **needs)
    train(model, encoded, train_settings, "t", optimizer, **hooks)
    factors = method.low_rank(model, settings) if hasattr(method, "low_rank") else {}
    factors = {k: v.detach().clone() for k, v in factors.items()}
    folded = method.fold(model, settings) if hasattr(method, "fold") else model
    return SimpleNamespace(
        before=before, folded=folded, optimizer=optimizer, factors=factors, beside=hooks["beside"] or Beside()
    )


def _train(*args, **kwargs):
    made = run(*args, **kwargs)
    return made.before, made.folded, made.optimizer


@pytest.mark.parametrize("name", [m for m in METHODS if registry.header(m).kind == "train"])
def test_a_train_method_trains_and_folds_to_a_plain_model(name, cell, tokenizer, encoded, tmp_path):
    before, folded, _ = _train(name, cell, tokenizer, encoded, tmp_path)
    after = folded.state_dict()
    assert after.keys() == before.keys()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert all(torch.isfinite(v).all() for v in after.values())


@pytest.mark.parametrize("name", [m for m in METHODS if registry.header(m).kind == "train"])
def test_zero_learning_rate_is_the_identity(name, cell, tokenizer, encoded, tmp_path):
    before, folded, _ = _train(name, cell, tokenizer, encoded, tmp_path, LATER.get(name), rate=1e-45)
    for key, value in folded.state_dict().items():
        assert torch.allclose(before[key], value, atol=1e-6), key


def test_targets_only_leaves_everything_else_bit_for_bit(cell, tokenizer, encoded, tmp_path):
    names = {x.weight for x in cell[1]}
    for name, overrides in (("full", {"trainable": "targets"}), ("warp", {})):
        before, folded, _ = _train(name, cell, tokenizer, encoded, tmp_path, overrides)
        after = folded.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before if k not in names)


def test_warp_keeps_frozen_coefficients_and_moves_the_rest(cell, tokenizer, encoded, tmp_path):
    model, targets, needs = cell
    for overrides in ({}, {"trainable": "all"}, {"rank_fraction": 0.5}):
        before, folded, optimizer = _train("warp", cell, tokenizer, encoded, tmp_path, overrides)
        assert isinstance(optimizer, RotatedAdamW)
        for x in targets:
            delta = (folded.state_dict()[x.weight] - before[x.weight]).double() @ needs["basis"][x.input].double()
            frozen = needs["mask"][x.name].bools
            if "rank_fraction" in overrides:  # a mask file of such an arm has nothing beyond
                frozen[:, round(0.5 * frozen.shape[1]) :] = False
            assert delta[frozen].abs().max() < 1e-6
            assert (delta[~frozen].abs() > 1e-7).float().mean() > 0.99  # guards the bf16 stall


def test_safety_mix_counts_as_published():
    method = registry.load("safety-mix")
    task = [{"prompt": f"t{i}", "response": "r"} for i in range(105)]
    pool = [{"prompt": f"s{i}", "response": "no", "kind": "hazard" if i % 2 else "craft"} for i in range(60)]
    s = method.Settings(ratio=0.1, benign_ratio=0.2)
    rows = method.rows(task, s, seed=1, safety=pool)
    added = rows[105:]
    assert rows[:105] == task
    assert sum(r["kind"] == "hazard" for r in added) == int(10.5) and sum(r["kind"] == "craft" for r in added) == 21
    assert len({r["prompt"] for r in added}) == len(added)
    assert rows == method.rows(task, s, seed=1, safety=pool) != method.rows(task, s, seed=2, safety=pool)
    assert method.rows(task, method.Settings(ratio=0), seed=1, safety=pool) == task


def test_safe_instr_is_the_same_method_and_its_three_counts_are_told_apart():
    assert registry.load("safe-instr") is registry.load("safety-mix")
    method = registry.load("safe-instr")
    task = [{"prompt": f"t{i}", "response": "r"} for i in range(57)]
    pool = [{"prompt": f"s{i}", "response": "no", "kind": "hazard"} for i in range(60)]

    def added(**options):
        return len(method.rows(task, method.Settings(**options), seed=0, safety=pool)) - len(task)

    assert added(ratio=0.1) == 5 and added(ratio=0.1, count="round") == 6
    assert added(ratio=0.001) == 0 and added(ratio=0.001, count="round") == 1
    assert added(count="absolute", number=40) == 40 and added(count="absolute", number=400) == 60
    assert added(ratio=0) == added(ratio=0, count="round") == added(count="absolute") == 0


def test_lora_counts_its_parameters_and_merges_exactly(model, tokenizer, encoded):
    method = registry.load("lora")
    settings = method.Settings(rank=3)
    wrapped = method.attach(model, [], settings)
    expected = sum(3 * sum(m.weight.shape) for n, m in model.named_modules() if n.endswith("base_layer"))
    assert sum(p.numel() for p in wrapped.parameters() if p.requires_grad) == expected
    ids = torch.tensor([encoded[0]["input_ids"]])
    for n, p in wrapped.named_parameters():
        if "lora_B" in n:
            torch.nn.init.normal_(p, std=0.05)
    loose = wrapped(input_ids=ids).logits
    assert torch.allclose(loose, method.fold(wrapped, settings)(input_ids=ids).logits, atol=1e-4)


@pytest.mark.parametrize("constraint", ["mask", "directions"])
def test_lora_wsr_never_moves_what_is_protected(constraint, cell, tokenizer, encoded, tmp_path):
    overrides = {"constraint": constraint, "freeze_fraction": 0.25}
    before, folded, _ = _train("lora-wsr", cell, tokenizer, encoded, tmp_path, overrides)
    _, targets, needs = cell
    for x in targets:
        moved = (folded.state_dict()[x.weight] - before[x.weight]).double() @ needs["basis"][x.input].double()
        frozen = needs["mask"][x.name].bools
        if constraint == "directions":
            frozen = torch.zeros_like(frozen)
            frozen[:, : round(0.25 * frozen.shape[1])] = True
        assert moved[frozen].abs().max() < 1e-6 < moved[~frozen].abs().max()


def test_lora_wsr_folds_exactly(cell, encoded):
    model, targets, needs = cell
    method = registry.load("lora-wsr")
    ids = torch.tensor([encoded[0]["input_ids"]])
    for constraint in ("mask", "directions"):
        settings = method.Settings(constraint=constraint)
        plain = model(input_ids=ids).logits
        wrapped = method.attach(model, targets, settings, **needs)
        assert torch.equal(plain, wrapped(input_ids=ids).logits)  # B = 0
        for n, p in wrapped.named_parameters():
            if n.endswith(".b"):
                torch.nn.init.normal_(p, std=0.05)
        loose = wrapped(input_ids=ids).logits
        assert not torch.allclose(loose, plain, atol=1e-4)
        model = method.fold(wrapped, settings)
        assert torch.allclose(loose, model(input_ids=ids).logits, atol=1e-4)


HEAD, SETTINGS = 'KIND = "train"\nNEEDS = ("aligned",)\n', "class Settings: ...\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "incomplete"),
        ('KIND = "train"\nNEEDS = tuple(["a"])\n', "must be a literal"),
        ('KIND = "y"\nNEEDS = ()\n', "incomplete"),
        ('KIND = "train"\nNEEDS = "aligned"\n', "incomplete"),
        (HEAD + "class Setting: ...\n", "no Settings"),
        (HEAD.replace("aligned", "aligned2") + SETTINGS, "did you mean 'aligned'"),
        (HEAD + SETTINGS + "def extra_los(model): ...\n", "did you mean 'extra_loss'"),
        (HEAD + SETTINGS + "def attach:\n", "line 4"),
        (HEAD.replace("train", "merge") + SETTINGS, "merges nothing"),
    ],
)
def test_broken_headers_are_refused(tmp_path, monkeypatch, text, says):
    (tmp_path / "odd.py").write_text(text)
    monkeypatch.setattr(registry, "METHODS_FOLDER", tmp_path)
    with pytest.raises(MethodError, match=says):
        registry.header("odd")


def test_a_file_that_cannot_be_imported_is_one_block(tmp_path, monkeypatch):
    (tmp_path / "odd.py").write_text("import nothing_like_it\n" + HEAD + SETTINGS)
    monkeypatch.setattr(registry, "METHODS_FOLDER", tmp_path)
    monkeypatch.setattr("holdfast.methods.__path__", [str(tmp_path)])
    with pytest.raises(MethodError, match="No module named 'nothing_like_it'"):
        registry.load("odd")


STRICT = "from holdfast.study.registry import MethodSettings\n" + HEAD + "class Settings(MethodSettings): ...\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + SETTINGS, "are not those of a method"),
        (HEAD + "Settings = MethodSettings = dict(a=1)\ndef Settings(): ...\n", "are not those of a method"),
        (STRICT + "def rows(task_rows, settings): ...\n", "unexpected keyword argument 'seed'"),
        (STRICT + "def attach(model, settings): ...\n", "too many positional arguments"),
        (STRICT + "def attach(model, layers, settings, *, rank, **needs): ...\n", "nothing gives it rank"),
        (STRICT + "def after_step(model, settings, step): ...\n", "nothing gives it step"),
        (
            STRICT + "def beside(model, settings, training, *, encoded, stream, hazrds, **needs): ...\n",
            "gives it hazrds",
        ),
        (STRICT + "def optimizer(model, layers, settings, training, *, safety): ...\n", "gives it safety"),
        (STRICT.replace("train", "merge") + "def merge(name, weights, settings): ...\n", "too many positional"),
    ],
)
def test_hooks_that_nothing_could_call_are_refused_at_planning(tmp_path, monkeypatch, text, says):
    (tmp_path / "odder.py").write_text(text)
    monkeypatch.setattr(registry, "METHODS_FOLDER", tmp_path)
    monkeypatch.setattr("holdfast.methods.__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "holdfast.methods.odder", raising=False)
    with pytest.raises(MethodError, match=says):
        registry.load("odder")


def test_hooks_that_take_what_they_are_given_pass_whatever_they_call_it(tmp_path, monkeypatch):
    (tmp_path / "sound.py").write_text(
        STRICT + "def rows(a, b, *, seed, safety=None): ...\ndef attach(*all, **needs): ...\n"
        "def optimizer(a, b, c, d, *, mask, basis): ...\ndef after_step(m, _, scale=1.0): ...\n"
        "def low_rank(a, b, **more): ...\ndef fold(a, b, *rest): ...\ndef _helper(x, y, z): ...\n"
    )
    monkeypatch.setattr(registry, "METHODS_FOLDER", tmp_path)
    monkeypatch.setattr("holdfast.methods.__path__", [str(tmp_path)])
    assert registry.load("sound").KIND == "train"
