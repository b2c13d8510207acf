"""Why a file would be made again, from a planned run to words."""

from __future__ import annotations

from holdfast.archive import why
from holdfast.engines import snakemake

PLAN = """\
Building DAG of jobs...
Job stats:
rule build_mask:
    input: work/s/importance/safety.safetensors
    output: work/s/masks/a.safetensors, results/s/masks/a.csv
    jobid: 8
    reason: Params have changed since last execution: Union of exclusive params before and now across all output: before: {'spec': {'freeze_fraction': 0.1, 'unit': 'entry'}, 'seed': 3} now: {'spec': {'freeze_fraction': 0.3, 'unit': 'entry', 'new': None}, 'seed': 3}
    wildcards: mask=a
    resources: tmpdir=/tmp, mem_mb=4000
[Sat Nov 21 18:06:00 2026]
rule finetune:
    input: work/s/masks/a.safetensors, work/s/aligned/model.safetensors
    output: work/s/crafts/warp/seed0/model.safetensors, results/s/crafts/warp/seed0/train.json, results/s/x.jsonl
    reason: Missing output files: results/s/x.jsonl; Input files updated by another job: work/s/masks/a.safetensors; Params have changed since last execution: Union of exclusive params before and now across all output: before: '0996a2dc5f523908' now: 'e237b088a3af2df5'
rule respond:
    input: work/s/crafts/warp/seed0/model.safetensors
    output: results/s/crafts/warp/seed0/responses.parquet
    reason: Input files updated by another job: work/s/crafts/warp/seed0/model.safetensors
"""  # noqa: E501 - as Snakemake prints it


def test_a_plan_is_read():
    mask, tune, respond = snakemake.parse(PLAN)
    assert (mask.rule, mask.outputs) == ("build_mask", ("work/s/masks/a.safetensors", "results/s/masks/a.csv"))
    assert set(tune.reasons) == {"missing", "follows", "params"} and tune.reasons["missing"] == "results/s/x.jsonl"
    assert set(respond.reasons) == {"follows"} and respond.inputs == ("work/s/crafts/warp/seed0/model.safetensors",)


def test_settings_are_compared_key_by_key():
    mask, tune, _ = snakemake.parse(PLAN)
    assert why.causes(mask) == ["spec.freeze_fraction: 0.1 -> 0.3", "spec.new: not set -> None"]
    assert why.causes(tune) == ["results/s/x.jsonl is not there", "the code it runs has changed"]
    assert why.settings("something else") == ["its settings or its code have changed"]
    assert why.settings("before: <nothing exclusive> now: {'a': 1}") == ["a: not set -> 1"]
    assert why.settings("before: f(x) now: g(y)") == ["its settings have changed"]


def test_the_explanation_starts_at_the_cause_and_leads_to_the_target():
    text = why.explain("results/s/crafts/warp/seed0/responses.parquet", snakemake.parse(PLAN))
    assert "would be made again: 3 jobs." in text
    assert "because spec.freeze_fraction: 0.1 -> 0.3" in text and "and then finetune -> respond" in text
    assert "respond (" not in text  # it only follows
    assert snakemake.parse("Building DAG of jobs...\nNothing to be done.\n") == []
    assert why.explain("x", []) == "x is up to date: nothing would run."
    assert "stands for files" in why.explain("models", snakemake.parse(PLAN))
