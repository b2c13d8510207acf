"""Generation and judging. Writes responses.parquet once per model; verdicts.parquet with every judge, and metrics.json."""


rule respond:
    """Answering with {wildcards.arm} on {wildcards.task}, seed {wildcards.seed}"""
    input:
        model=rules.finetune.output.model,
        prompts=rules.prepare_prompts.output[0],
        tasks=rules.prepare_task.output,
    output:
        f"{R}/{{task}}/{{arm}}/seed{{seed}}/responses.parquet",
    log:
        f"{L}/respond/{{task}}/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{L}/benchmarks/respond/{{task}}/{{arm}}/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPU,
    params:
        cfg=lambda w: S.generation_cfg([w.task]),
        code=lambda w: code("respond", *datasets([w.task])),
    script:
        "../scripts/respond.py"


rule judge:
    """Judging {wildcards.arm} on {wildcards.task}, seed {wildcards.seed}"""
    input:
        responses=rules.respond.output[0],
        prompts=rules.prepare_prompts.output[0],
        tasks=rules.prepare_task.output,
        record=rules.finetune.output.record,
        opinions=lambda w: opinions_of(f"{w.task}/{w.arm}/seed{w.seed}", w.task, w.arm),
    output:
        verdicts=f"{R}/{{task}}/{{arm}}/seed{{seed}}/verdicts.parquet",
        metrics=f"{R}/{{task}}/{{arm}}/seed{{seed}}/metrics.json",
    log:
        f"{L}/judge/{{task}}/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{L}/benchmarks/judge/{{task}}/{{arm}}/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        cfg=lambda w: S.judge_cfg(
            w.task,
            w.arm,
            int(w.seed),
            f"{W}/{w.task}/{w.arm}/seed{w.seed}/model.safetensors",
        ),
        code=lambda w: code("judge", *datasets([w.task]), *S.judging.files()),
    script:
        "../scripts/judge.py"


rule changes:
    """What {wildcards.arm} on {wildcards.task}, seed {wildcards.seed} changed in the weights"""
    input:
        model=rules.finetune.output.model,
        aligned=rules.train_aligned.output.model,
        basis=f"{W}/basis/safety.safetensors",
    output:
        f"{R}/{{task}}/{{arm}}/seed{{seed}}/changes.csv",
    log:
        f"{L}/changes/{{task}}/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{L}/benchmarks/changes/{{task}}/{{arm}}/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        cfg={},
        code=code("changes"),
    script:
        "../scripts/changes.py"


use rule respond as respond_role with:
    input:
        model=f"{W}/{{role}}/model.safetensors",
        prompts=rules.prepare_prompts.output[0],
        tasks=expand(rules.prepare_task.output, task=list(S.study.tasks)),
    output:
        f"{R}/models/{{role}}/responses.parquet",
    log:
        f"{L}/respond/{{role}}.log",
    benchmark:
        f"{L}/benchmarks/respond/{{role}}.tsv"
    params:
        cfg=S.generation_cfg(list(S.study.tasks)),
        code=code("respond", *datasets(S.study.tasks)),


use rule judge as judge_role with:
    input:
        responses=rules.respond_role.output[0],
        prompts=rules.prepare_prompts.output[0],
        tasks=expand(rules.prepare_task.output, task=list(S.study.tasks)),
        opinions=lambda w: opinions_of(f"models/{w.role}"),
    output:
        verdicts=f"{R}/models/{{role}}/verdicts.parquet",
        metrics=f"{R}/models/{{role}}/metrics.json",
    log:
        f"{L}/judge/{{role}}.log",
    benchmark:
        f"{L}/benchmarks/judge/{{role}}.tsv"
    params:
        cfg=lambda w: S.judge_cfg(None, w.role, 0, f"{W}/{w.role}/model.safetensors"),
        code=code("judge", *datasets(S.study.tasks), *S.judging.files()),


METRICS = metrics_of(S.cells)


CAPABILITIES = []

if S.study.capabilities.tasks:

    rule measure_capabilities:
        """Asking {wildcards.arm} on {wildcards.task}, seed {wildcards.seed} what else it can do"""
        input:
            model=rules.finetune.output.model,
        output:
            f"{R}/{{task}}/{{arm}}/seed{{seed}}/capabilities.parquet",
        log:
            f"{L}/capabilities/{{task}}/{{arm}}/seed{{seed}}.log",
        benchmark:
            f"{L}/benchmarks/capabilities/{{task}}/{{arm}}/seed{{seed}}.tsv"
        threads: 1
        resources:
            mem_mb=8000,
            runtime=720,
            gpu=GPU,
        params:
            cfg=S.capabilities_cfg(),
            code=code("capabilities"),
        script:
            "../scripts/capabilities.py"

    use rule measure_capabilities as measure_capabilities_role with:
        input:
            model=f"{W}/{{role}}/model.safetensors",
        output:
            f"{R}/models/{{role}}/capabilities.parquet",
        log:
            f"{L}/capabilities/{{role}}.log",
        benchmark:
            f"{L}/benchmarks/capabilities/{{role}}.tsv"

    CAPABILITIES = [m.replace("metrics.json", "capabilities.parquet") for m in METRICS]

    rule compare_capabilities:
        """Comparing what the models of {S.name} can do elsewhere"""
        input:
            CAPABILITIES,
        output:
            f"{R}/capabilities.csv",
        log:
            f"{L}/compare_capabilities.log",
        threads: 1
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            cfg={"cells": S.capability_cells},
            code=code("compare_capabilities"),
        script:
            "../scripts/compare_capabilities.py"

    rule capabilities:
        """Scores of lm-evaluation-harness"""
        input:
            rules.compare_capabilities.output,


rule responses:
    """All responses"""
    input:
        [m.replace("metrics.json", "responses.parquet") for m in METRICS],


rule records:
    """What every training and merge recorded"""
    input:
        [f"{R}/{task}/{arm}/seed{seed}/train.json" for task, arm, seed in S.cells],


rule verdicts:
    """All verdicts and metrics, from the responses there are: the target after a change of judges"""
    input:
        METRICS,


rule metrics:
    """All metrics"""
    input:
        METRICS,
