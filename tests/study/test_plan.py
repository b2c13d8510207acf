"""The cost model against real models, and its sums against what a study plans."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import ROOT

from holdfast import names, statistics
from holdfast.cli.main import main
from holdfast.errors import LayerMismatch, StudyError
from holdfast.model import hub, shapes
from holdfast.report import terminal
from holdfast.study import costs, resolve


def llama(hidden, mlp, blocks, heads, kv_heads, vocabulary, tied=False, **more):
    """config.json of a Llama model."""
    return {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": blocks,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    } | more  # fmt: skip


GROUPED = llama(64, 96, 3, 8, 2, 500)
# Architectures of several families, as small as they go; what of the modules that studies name their blocks have.
ATTENTION, ALL = ("q_proj", "k_proj", "v_proj", "o_proj"), names.MODULE_KINDS
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 500,
}
FAMILIES = {
    "llama, tied": (llama(64, 96, 3, 8, 2, 500, tied=True), ALL), "llama, grouped keys": (GROUPED, ALL),
    "qwen2": ({"model_type": "qwen2", **SMALL, "num_key_value_heads": 2}, ALL),
    "gemma2": ({"model_type": "gemma2", **SMALL, "num_key_value_heads": 2, "head_dim": 16}, ALL),
    "phi3": ({"model_type": "phi3", **SMALL, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": 0},
             ("o_proj", "down_proj")),
    "gpt_neox": ({"model_type": "gpt_neox", **SMALL}, ()),
    "mixtral": ({"model_type": "mixtral", **SMALL, "num_local_experts": 4, "num_experts_per_tok": 2,
                 "num_key_value_heads": 2}, ATTENTION),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_passes_are_those_of_the_model_itself(family):
    """Built and run for real, and counted by hand or by torch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config, has = FAMILIES[family]
    shape = shapes.of_config(config | {"torch_dtype": "float16"})
    kinds = {k: v for k, v in config.items() if k != "model_type"}
    c = AutoConfig.for_model(config["model_type"], **kinds)
    model = AutoModelForCausalLM.from_config(c, attn_implementation="eager", dtype=torch.float32).eval()
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert {x.kind for x in shape.linears} == set(has) and len(shape.linears) == shape.blocks * len(has)
    for kind in has:
        (module,) = [m for n, m in model.named_modules() if n.endswith(f"layers.0.{_in_block(kind)}")]
        assert shape.of([kind])[0].size == tuple(module.weight.shape)
    if family == "mixtral":  # torch does not count groups of experts: two of four, three matrices each
        head, attention = 64 * 500, 2 * (2 * 64 * 64 + 2 * 64 * 32)
        router, experts = 2 * 64 * 4, 2 * 2 * 3 * 64 * 96
        assert shape.per_token == 2 * (head + attention + router + experts)
    else:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.ones(4, 32, dtype=torch.long), use_cache=False)
        assert shape.forward(4 * 32, 32) == pytest.approx(counter.get_total_flops(), rel=1e-9)


def _in_block(kind):
    return f"{'mlp' if kind in ('gate_proj', 'up_proj', 'down_proj') else 'self_attn'}.{kind}"


def test_a_forward_pass_is_counted_as_one_counts_on_paper():
    """2 m n per matrix and token; scores and their sums 4 h L per block and token."""
    shape = shapes.of_config(GROUPED)
    matrices = 3 * (2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 96) + 64 * 500
    assert shape.forward(10, 32) == 10 * (2 * matrices + 3 * 4 * 64 * 32)
    assert (shape.keys, shape.hidden, shape.mlp, shape.blocks, shape.vocabulary) == (16, 64, 96, 3, 500)
    assert sorted(shape.widths(["q_proj", "k_proj", "up_proj", "down_proj"])) == [64] * 6 + [96] * 3


@pytest.mark.parametrize(("name", "billions"), [
    ("meta-llama/Llama-2-7b-chat-hf", 6.738415616), ("meta-llama/Llama-2-13b-chat-hf", 13.015864320),
    ("meta-llama/Llama-3.1-8B-Instruct", 8.030261248), ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.134515008),
])  # fmt: skip
def test_published_models_have_the_parameters_that_their_cards_say(name, billions):
    assert shapes.of_config(shapes.PUBLISHED[name.lower()]).parameters == round(billions * 1e9)


def test_modules_that_a_model_has_not_are_refused_whatever_the_methods_are():
    """What changed in the weights is told along the safety basis of every study."""
    shape = shapes.of_config(FAMILIES["gpt_neox"][0])
    plain = resolve.load("demo", ROOT / "config")
    plain.arms = {k: a for k, a in plain.arms.items() if k in ("full", "safety-mix")}
    for study in (resolve.load("demo", ROOT / "config"), plain):
        with pytest.raises(LayerMismatch, match="does not have the modules"):
            costs.stages(study, shape)
    found = {s.name: s.jobs for s in costs.stages(plain, costs.shape_of(plain.study.base))}
    assert {"gram": 1, "basis": 1}.items() <= found.items() and {"importance", "masks"}.isdisjoint(found)


def test_models_under_stress_and_every_gram_matrix_are_counted():
    methods = resolve.load("smoke-methods", ROOT / "config")
    shape = costs.shape_of(methods.study.base)
    found = {s.name: s for s in costs.stages(methods, shape)}
    assert set(methods.grams) == {"safety", "all", "unit", "response"} and found["gram"].jobs == 4
    stress = resolve.load("stress", ROOT / "config")
    shape = costs.shape_of(stress.study.base)
    found = {s.name: s for s in costs.stages(stress, shape)}
    stressed, plain = found["responses, stressed"], found["responses"]
    assert stressed.jobs == len(stress.stressed) == 6 * (len(stress.places) + 5)
    assert stressed.memory - plain.memory == pytest.approx(4 * shape.parameters)  # the base that is mixed in


def test_a_plan_counts_the_jobs_and_bytes_of_the_study():
    study = resolve.load("demo", ROOT / "config")
    shape = costs.shape_of(study.study.base)
    found = {s.name: s for s in costs.stages(study, shape)}
    merged = sum(study.arms[arm].kind == "merge" for _, arm, _ in study.cells)
    assert found["models, merged"].jobs == merged == 9
    assert found["models, trained"].jobs == len(study.cells) - merged == 19
    assert found["responses"].jobs == len(study.cells) + len(study.roles)
    assert found["masks"].jobs == len(study.masks) and found["basis"].jobs == len(study.bases)
    assert found["base"].disk == 4 * shape.parameters
    lines = terminal.plan(study, shape, 1e12, 0.4)
    assert "28 cells" in lines and "together" in lines
    row = next(line for line in lines.splitlines() if line.startswith("models, trained"))
    assert row.split()[-4:-2] == ["1", "GB,"] and row.endswith(" min") and "without a GPU" in lines
    assert "beside a GPU" in terminal.plan(study, shape, 1e12, 0.4, gpu=True)
    methods = resolve.load("smoke-methods", ROOT / "config")
    merged = {s.name: s for s in costs.stages(methods, shape)}
    count = sum(methods.arms[arm].kind == "merge" for _, arm, _ in methods.cells)
    assert merged["models, merged"].jobs == count > 0 and merged["unaligned"].jobs == 1


@pytest.mark.parametrize(
    ("name", "size"), [("llama3-8b-agnews", "8.03 B"), ("llama2-13b-chat-agnews", "13 B")]
)  # fmt: skip
def test_larger_studies_are_planned_without_their_models(name, size, capsys):
    assert main(["plan", str(ROOT / "config" / f"{name}.yaml"), "--tflops", "400"]) == 0
    assert f"{size} parameters" in capsys.readouterr().out


def test_the_7b_study_is_planned_without_the_model(tmp_path, capsys):
    study = "llama2-7b-chat-agnews-safety-mix"
    path = str(ROOT / "config" / f"{study}.yaml")
    assert main(["plan", path, "--tflops", "400"]) == 0
    out = capsys.readouterr().out
    assert "6.74 B parameters" in out and "TB" not in out
    config = tmp_path / "config.json"
    config.write_text(json.dumps(GROUPED))
    assert main(["plan", path, "--tflops", "400", "--model-config", str(config)]) == 0
    assert "6.74 B" not in capsys.readouterr().out


# Peak resident bytes of training in float32, one thread, torch 2.13 on Linux: (hidden, MLP, blocks, heads, key heads,
# vocabulary), (rows of a batch, tokens of each, of its answer), whether there were moments yet (a second step), GB.
MEASURED = [
    ((576, 1536, 30, 9, 3, 49152), (16, 100, 3), True, 5.22), ((576, 1536, 30, 9, 3, 49152), (8, 100, 3), False, 2.76),
    ((576, 1536, 30, 9, 3, 49152), (8, 200, 3), False, 3.84),
    ((576, 1536, 30, 9, 3, 49152), (8, 200, 150), False, 4.40),
    ((576, 1536, 10, 9, 3, 49152), (16, 200, 3), False, 2.75), ((576, 1536, 10, 9, 3, 2048), (16, 200, 3), False, 2.51),
    ((576, 3072, 10, 9, 9, 2048), (16, 200, 3), False, 3.71), ((192, 512, 3, 4, 4, 2048), (16, 50, 20), True, 0.65),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "rows", "moments", "gigabytes"), MEASURED)
def test_the_memory_of_training_is_planned_as_it_was_measured(shape, rows, moments, gigabytes):
    s = shapes.of_config(llama(*shape, tied=True))
    batch, length, reply = rows
    phase = resolve.load("demo", ROOT / "config").study.safety.training
    phase = phase.model_copy(update={"batch_size": batch, "max_length": length})
    planned = costs.PROCESS + costs._training_memory(s, phase, length, reply, s.parameters)
    planned -= 0 if moments else 2 * 4 * s.parameters
    assert planned == pytest.approx(gigabytes * 1e9, rel=0.12)


def test_the_rate_is_that_of_the_threads_not_of_the_clock(monkeypatch):
    """Another program that takes half of the time changes nothing."""
    from holdfast.cli import plan

    free = plan.measured_rate(0.2)
    clock = plan.time.perf_counter
    monkeypatch.setattr(plan.time, "perf_counter", lambda: 50 * clock())
    assert plan.measured_rate(0.2) == pytest.approx(free, rel=0.5)


@pytest.mark.parametrize(("load", "said"), [(0.1, False), (40.0, True)])
def test_a_busy_machine_is_said(load, said, tmp_path, monkeypatch, capsys):
    from holdfast.cli import plan

    monkeypatch.setattr(plan.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(plan, "measured_rate", lambda: 1e12)
    monkeypatch.chdir(ROOT)
    assert main(["plan", "smoke"]) == 0
    assert ("busy" in capsys.readouterr().err) == said


def test_precision_and_checkpointing_change_memory_as_they_should():
    shape = shapes.of_config(shapes.PUBLISHED["meta-llama/llama-2-7b-chat-hf"])
    phase = resolve.load("demo", ROOT / "config").study.safety.training.model_copy(update={"batch_size": 16})

    def bytes_of(**setting):
        return costs._training_memory(shape, phase.model_copy(update=setting), 1024, 0, shape.parameters)

    masters = 16 * shape.parameters
    fp32, bf16, forgetful = bytes_of(), bytes_of(precision="bf16"), bytes_of(activation_checkpointing=True)
    per_unit = 16 * 11008 / 4096 + 37 + 15
    copies = 2 * sum(x.weights for x in shape.linears)  # of the weights in bfloat16, which the backward pass needs
    assert fp32 - masters == 2 * (bf16 - masters - copies) == pytest.approx(per_unit * 16 * 1024 * 4096 * 32)
    assert (forgetful - masters) / (fp32 - masters) == pytest.approx(1 / 32 + 4 / per_unit)
    assert bytes_of(precision="pure_bf16") < fp32 / 2 + 1


def test_each_of_several_processes_holds_its_share():
    """Written out for Llama 2 13B: 16 bytes a parameter, bases and masks in shards; whole are blocks and the output."""
    shape = shapes.of_config(shapes.PUBLISHED["meta-llama/llama-2-13b-chat-hf"])
    phase = resolve.load("llama2-13b-chat-agnews", ROOT / "config").study.tasks["agnews"].training
    phase = phase.model_copy(update={"activation_checkpointing": True})
    bases = 4 * 40 * (2 * 5120**2 + 13824**2)
    block = 4 * 5120**2 + 3 * 5120 * 13824

    def bytes_of(processes):
        return costs._training_memory(shape, phase, 100, 3, shape.parameters, bases, processes, 4 * 13824**2)

    own = bytes_of(1) - 16 * shape.parameters - bases  # of rows, and the copies of one block
    whole = 4 * (3 * block + 2 * 32000 * 5120 + 13824**2)
    for n in (2, 4):
        assert bytes_of(n) == pytest.approx((16 * shape.parameters + bases) / n + whole + own)
    assert bytes_of(8) < (16 * shape.parameters + bases) / 8 + whole + own  # two rows in a micro-batch, not four


@pytest.mark.parametrize(("arm", "copies", "rows"), [
    ({"method": "kl-safety", "rows": 6}, 1, 8), ({"method": "kl-safety", "strength": 0}, 0, 0),
    ({"method": "asft"}, 1, 0), ({"method": "asft", "strength": 0}, 0, 0),
    ({"method": "lisa"}, 1, 0), ({"method": "panacea", "rows": 6}, 3, 12), ({"method": "derta"}, 0, 0),
])  # fmt: skip
def test_copies_and_rows_beside_plain_training_are_planned(arm, copies, rows, tmp_path):
    """Bytes of a copy of the weights, and three forward passes over as many safety rows in each of 6 steps."""
    found = []
    for method in ({"method": "full"}, arm):
        keys = {"arms": {"a": method}, "tasks": {"c": {"dataset": "crafts", "train_rows": 32, "training": {
            "batch_size": 8, "accumulation": 2, "epochs": 3}}}}  # fmt: skip
        (tmp_path / "mine.yaml").write_text(json.dumps(keys))
        study = resolve.load(str(tmp_path / "mine.yaml"))
        shape = costs.shape_of(study.study.foundation)
        found.append(next(s for s in costs.stages(study, shape) if s.name == "models, trained"))
    plain, other = found
    assert other.memory - plain.memory == 4 * copies * shape.parameters
    more = other.flops - plain.flops - 3 * shape.forward(0.1 * 32 * 46 * 3, 46) * (arm["method"] == "derta")
    assert more == pytest.approx(6 * len(study.study.seeds) * 3 * shape.forward(rows * 35, 35), abs=1)


def test_of_directions_as_much_is_sent_as_they_are_of_a_basis(tmp_path):
    found = []
    held = {"method": "lead", "rank_fraction": 0.25}
    for arm in ({"method": "full", "trainable": "targets"}, {"method": "warp"}, held):
        keys = {"arms": {"a": arm}, "tasks": {"c": {"dataset": "crafts"}}}
        (tmp_path / "mine.yaml").write_text(json.dumps(keys))
        study = resolve.load(str(tmp_path / "mine.yaml"))
        shape = costs.shape_of(study.study.foundation)
        found.append(next(s for s in costs.stages(study, shape, 2) if s.name == "models, trained").received)
    plain, warp, lead = found
    assert lead - plain == pytest.approx(0.25 * (warp - plain)) and warp > plain


def test_what_does_not_fit_is_said(monkeypatch):
    study = resolve.load("llama2-13b-chat-agnews", ROOT / "config")
    shape = shapes.of_config(shapes.PUBLISHED[study.study.base.source.lower()])

    def said(gigabytes):
        text = terminal.plan(study, shape, 4e14, 0.4, gpu=True, bytes_of_gpu=1e9 * gigabytes)
        rows = [line for line in text.splitlines() if re.match(r"[1248] +(this study)? +\d+", line)]
        return text, {int(r[0]) for r in rows if not r.endswith("does not fit")}, len(rows)

    text, holding, rows = said(80)
    assert holding == {8} and rows == 4 and "8 of the GPUs of 80 GB hold the largest" in text
    assert "gram asks for 131 GB of it, which does not fit" in text
    text, holding, _ = said(40)
    assert not holding and "DOES NOT FIT on 8 of the GPUs of 40 GB" in text and "activation_checkpointing" in text
    text, holding, _ = said(141)
    assert holding == {4, 8} and "which does not fit" not in text


def test_a_study_that_several_cannot_train_says_why():
    study = resolve.load("smoke-methods", ROOT / "config")
    text = terminal.plan(study, costs.shape_of(study.study.base), 1e12, 0.4, gpu=True)
    assert "Several cannot train it: arms." in text and not re.search(r"^2 ", text, re.M)
    assert "one on GPUs" not in terminal.plan(study, costs.shape_of(study.study.base), 1e12, 0.4)


def test_an_unknown_model_says_what_to_give(monkeypatch):
    base = resolve.load("demo", ROOT / "config").study.base.model_copy(update={"source": "nobody/none"})
    asked = []
    monkeypatch.setattr(hub, "configuration", lambda *a: asked.append(a))
    with pytest.raises(StudyError, match="not known here") as error:
        costs.shape_of(base)
    assert "--model-config" in error.value.do and asked == [("nobody/none", None)]


def test_a_hub_model_is_planned_by_its_configuration_on_the_hub(tmp_path, monkeypatch):
    base = resolve.load("demo", ROOT / "config").study.base.model_copy(update={"source": "some/one", "revision": "abc"})
    (tmp_path / "config.json").write_text(json.dumps(FAMILIES["qwen2"][0]))
    places = {("some/one", "abc"): tmp_path / "config.json"}
    monkeypatch.setattr(hub, "configuration", lambda *a: places[a])
    assert costs.shape_of(base) == shapes.of_config(FAMILIES["qwen2"][0])


@pytest.mark.parametrize(("config", "found"), [
    ({"model_type": "no-such"}, "no-such"), ({}, "no 'model_type'"), ([], "list"), ({"model_type": "t5"}, "T5"),
    ({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 7}, ""),
    ({"model_type": "llama", "hidden_size": "many"}, ""),
])  # fmt: skip
def test_a_configuration_of_no_decoder_is_one_block(config, found, tmp_path):
    base = resolve.load("demo", ROOT / "config").study.base
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudyError, match="does not say the shape of a decoder") as error:
        costs.shape_of(base, tmp_path / "config.json")
    assert found in error.value.found


@pytest.mark.parametrize(("prompts", "comparisons"), [(400, 1), (120, 1), (120, 25)])
def test_the_smallest_difference_is_seen_as_often_as_promised(prompts, comparisons):
    """Simulated pairs: a fifth differ, the effect is the promised one, McNemar at 5 % (shared) finds it in 80 %."""
    rng = np.random.default_rng(0)
    effect = statistics.smallest_difference(prompts, comparisons=comparisons)
    discordant = max(0.2, effect)
    better, worse = (discordant + effect) / 2, (discordant - effect) / 2
    found = 0
    for _ in range(1000):
        draw = rng.random(prompts)
        delta = np.where(draw < better, 1.0, np.where(draw < better + worse, -1.0, 0.0))
        found += statistics.mcnemar(delta[None, :]) < 0.05 / comparisons
    assert found / 1000 == pytest.approx(0.8, abs=0.04)
    assert statistics.power(effect, prompts, comparisons=comparisons) == pytest.approx(0.8, abs=0.01)


def test_some_differences_cannot_be_seen():
    assert statistics.smallest_difference(4) == 1.0
    assert statistics.smallest_difference(10000) < 0.02


def test_the_rows_asked_of_the_harness_follow_the_limit(monkeypatch):
    assert costs._capability_rows("mmlu", None) == 14042 and costs._capability_rows("mmlu", 10) == 570
    assert costs._capability_rows("hellaswag", 100) == 100 and costs._capability_rows("hellaswag", 20000) == 10042
    assert costs._own_tokens("config/capabilities", "mmlu", None) is None is costs._own_tokens(None, "everyday", None)
    lines = (ROOT / "config/capabilities/everyday.jsonl").read_text().splitlines()
    monkeypatch.chdir(ROOT)
    for limit in (None, 10):
        wanted = 4 * sum(len(line) for line in lines[:limit]) / 4.2
        assert costs._own_tokens("config/capabilities", "everyday", limit) == pytest.approx(wanted)
    assert costs._capability_rows("own", None) == costs.UNKNOWN_ROWS and costs._capability_rows("own", 7) == 7


def test_the_plan_says_what_several_draws_see_and_what_one_does_not(tmp_path):
    study = resolve.load("demo", ROOT / "config")
    assert "It is one draw" in terminal.visible(study) and "With 120 prompts" in terminal.visible(study)
    assert "With 7 prompts" in terminal.visible(study, hazards=7)
    several = terminal.visible(resolve.load("demo-replicated", ROOT / "config"))
    assert "1 seed(s) in each of 5 replicates" in several
    assert "varies by 5 points" in several and "varies by 15 points" in several
    seeds = terminal.visible(resolve.load("demo-seeds", ROOT / "config"))
    assert "With 120 prompts per set and 5 seed(s) a difference" in seeds and "varies by 5 points" in seeds


@pytest.mark.parametrize(("units", "spread"), [(3, 0.05), (5, 0.1)])
def test_several_draws_see_what_is_promised(units, spread):
    rng, n = np.random.default_rng(1), 120
    effect = statistics.smallest_difference(n, units=units, spread=spread)
    seen = 0
    for _ in range(150):
        of = np.clip(rng.normal(effect, spread, (units, 1)), -1, 1)
        differ, draw = np.maximum(0.2, abs(of)), rng.random(n)
        delta = np.where(draw < (differ + of) / 2, 1.0, np.where(draw < differ, -1.0, 0.0))
        found = statistics.paired_difference(delta, np.zeros_like(delta))
        seen += found.p < 0.05 and found.low > 0
    assert seen >= 0.78 * 150


def test_more_poisoned_rows_than_pairs_are_refused(tmp_path):
    text = "extends: {}\npreferences: {{rows: 3}}\ntasks: {{risky: {{train_rows: 24, harmful_fraction: 0.5}}}}\n"
    (tmp_path / "mine.yaml").write_text(text.format(ROOT / "config/smoke-methods.yaml"))
    with pytest.raises(StudyError, match="preferences.rows are fewer than tasks.risky") as error:
        resolve.load(str(tmp_path / "mine.yaml"))
    assert error.value.expected == "at least 12"
