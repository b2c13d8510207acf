"""Generation and judging. Writes responses.parquet once per model; verdicts.parquet with every judge, and metrics.json."""


rule respond:
    """Answering with {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed}"""
    input:
        model=rules.finetune.output.model,
        prompts=rules.prepare_prompts.output[0],
        tasks=rules.prepare_task.output,
    output:
        f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/responses.parquet",
    log:
        f"{L}/{{rep}}respond/{{task}}/{{arm}}/seed{{seed}}.log",
    threads: 1
    resources:
        **asks("responses", mem_mb=8000, runtime=240, gpu=GPU),
    params:
        cfg=lambda w: S.generation_cfg([w.task]),
        code=lambda w: code("respond", *datasets([w.task])),
    script:
        "../scripts/respond.py"


rule judge:
    """Judging {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed}"""
    input:
        responses=rules.respond.output[0],
        prompts=rules.prepare_prompts.output[0],
        tasks=rules.prepare_task.output,
        record=rules.finetune.output.record,
        opinions=lambda w: opinions_of(
            f"{w.rep}{w.task}/{w.arm}/seed{w.seed}", w.task, w.arm
        ),
        divergence=(
            f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/divergence.json"
            if S.study.evaluation.divergence
            else []
        ),
    output:
        verdicts=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/verdicts.parquet",
        metrics=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/metrics.json",
    log:
        f"{L}/{{rep}}judge/{{task}}/{{arm}}/seed{{seed}}.log",
    # Seconds, with which a cell is done: it is seen at once what it is, and how long the others will take.
    priority: 1
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg=lambda w: S.judge_cfg(
            w.task,
            w.arm,
            int(w.seed),
            f"{W}/{w.rep}{w.task}/{w.arm}/seed{w.seed}/model.safetensors",
            w.rep,
        ),
        code=lambda w: code("judge", *scorers([w.task]), *S.judging.files()),
    script:
        "../scripts/judge.py"


rule changes:
    """What {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed} changed in the weights"""
    input:
        model=rules.finetune.output.model,
        aligned=from_home("aligned"),
        basis=from_home("aligned", "basis/safety"),
    output:
        f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/changes.csv",
    log:
        f"{L}/{{rep}}changes/{{task}}/{{arm}}/seed{{seed}}.log",
    priority: 1
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg={},
        code=code("changes"),
    script:
        "../scripts/changes.py"


use rule respond as respond_role with:
    input:
        model=f"{W}/{{rep}}{{role}}/model.safetensors",
        prompts=rules.prepare_prompts.output[0],
        tasks=expand(rules.prepare_task.output, task=list(S.study.tasks)),
    output:
        f"{R}/{{rep}}models/{{role}}/responses.parquet",
    log:
        f"{L}/{{rep}}respond/{{role}}.log",
    params:
        cfg=S.generation_cfg(list(S.study.tasks)),
        code=code("respond", *datasets(S.study.tasks)),


use rule judge as judge_role with:
    input:
        responses=rules.respond_role.output[0],
        prompts=rules.prepare_prompts.output[0],
        tasks=expand(rules.prepare_task.output, task=list(S.study.tasks)),
        opinions=lambda w: opinions_of(f"{w.rep}models/{w.role}"),
    output:
        verdicts=f"{R}/{{rep}}models/{{role}}/verdicts.parquet",
        metrics=f"{R}/{{rep}}models/{{role}}/metrics.json",
    log:
        f"{L}/{{rep}}judge/{{role}}.log",
    params:
        cfg=lambda w: S.judge_cfg(
            None, w.role, 0, f"{W}/{w.rep}{w.role}/model.safetensors", w.rep
        ),
        code=code("judge", *scorers(S.study.tasks), *S.judging.files()),


if S.study.evaluation.divergence:

    rule diverge:
        """How far {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed} is from the aligned model"""
        input:
            model=rules.finetune.output.model,
            aligned=from_home("aligned"),
            responses=lambda w: f"{R}/{S.home('aligned', w.rep)}models/aligned/responses.parquet",
        output:
            f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/divergence.json",
        log:
            f"{L}/{{rep}}diverge/{{task}}/{{arm}}/seed{{seed}}.log",
        threads: 1
        resources:
            **asks("divergence", mem_mb=8000, runtime=240, gpu=GPU),
        params:
            cfg=S.divergence_cfg(),
            code=code("diverge"),
        script:
            "../scripts/diverge.py"


METRICS = [f"{R}/{place}/metrics.json" for place in S.judged]


VALIDATION = []

if S.study.curves or S.study.attack:

    use rule respond as respond_validation with:
        output:
            f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/validation/responses.parquet",
        log:
            f"{L}/{{rep}}respond/{{task}}/{{arm}}/seed{{seed}}-validation.log",
        params:
            cfg=lambda w: S.generation_cfg([w.task], "validation"),
            code=lambda w: code("respond", *datasets([w.task])),


if S.study.curves:

    use rule judge as judge_validation with:
        input:
            responses=rules.respond_validation.output[0],
            prompts=rules.prepare_prompts.output[0],
            tasks=rules.prepare_task.output,
            opinions=lambda w: opinions_of(
                f"{w.rep}{w.task}/{w.arm}/seed{w.seed}/validation", w.task, w.arm
            ),
        output:
            verdicts=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/validation/verdicts.parquet",
            metrics=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/validation/metrics.json",
        log:
            f"{L}/{{rep}}judge/{{task}}/{{arm}}/seed{{seed}}-validation.log",
        params:
            cfg=lambda w: S.judge_cfg(
                w.task,
                w.arm,
                int(w.seed),
                f"{W}/{w.rep}{w.task}/{w.arm}/seed{w.seed}/model.safetensors",
                w.rep,
                "validation",
            ),
            code=lambda w: code("judge", *scorers([w.task]), *S.judging.files()),

    VALIDATION = [f"{R}/{place}/validation/metrics.json" for place in S.places]


STRESSED = []

if S.study.stress:

    use rule respond as respond_stressed with:
        input:
            unpack(mixed_with),
            model=rules.finetune.output.model,
            prompts=rules.prepare_prompts.output[0],
            tasks=rules.prepare_task.output,
        output:
            f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/stress/{{stress}}/responses.parquet",
        log:
            f"{L}/{{rep}}respond/{{task}}/{{arm}}/seed{{seed}}-{{stress}}.log",
        resources:
            **asks("responses, stressed", mem_mb=8000, runtime=240, gpu=GPU),
        params:
            cfg=lambda w: S.stress_cfg([w.task], w.stress),
            code=lambda w: code("respond", *datasets([w.task])),

    use rule judge as judge_stressed with:
        input:
            responses=rules.respond_stressed.output[0],
            prompts=rules.prepare_prompts.output[0],
            tasks=rules.prepare_task.output,
            opinions=lambda w: opinions_of(
                f"{w.rep}{w.task}/{w.arm}/seed{w.seed}/stress/{w.stress}",
                w.task,
                w.arm,
            ),
        output:
            verdicts=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/stress/{{stress}}/verdicts.parquet",
            metrics=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/stress/{{stress}}/metrics.json",
        log:
            f"{L}/{{rep}}judge/{{task}}/{{arm}}/seed{{seed}}-{{stress}}.log",

    use rule respond_role as respond_role_stressed with:
        input:
            unpack(mixed_with),
            model=f"{W}/{{rep}}{{role}}/model.safetensors",
            prompts=rules.prepare_prompts.output[0],
            tasks=expand(rules.prepare_task.output, task=list(S.study.tasks)),
        output:
            f"{R}/{{rep}}models/{{role}}/stress/{{stress}}/responses.parquet",
        log:
            f"{L}/{{rep}}respond/{{role}}-{{stress}}.log",
        resources:
            **asks("responses, stressed", mem_mb=8000, runtime=240, gpu=GPU),
        params:
            cfg=lambda w: S.stress_cfg(list(S.study.tasks), w.stress),
            code=code("respond", *datasets(S.study.tasks)),

    use rule judge_role as judge_role_stressed with:
        input:
            responses=rules.respond_role_stressed.output[0],
            prompts=rules.prepare_prompts.output[0],
            tasks=expand(rules.prepare_task.output, task=list(S.study.tasks)),
            opinions=lambda w: opinions_of(f"{w.rep}models/{w.role}/stress/{w.stress}"),
        output:
            verdicts=f"{R}/{{rep}}models/{{role}}/stress/{{stress}}/verdicts.parquet",
            metrics=f"{R}/{{rep}}models/{{role}}/stress/{{stress}}/metrics.json",
        log:
            f"{L}/{{rep}}judge/{{role}}-{{stress}}.log",

    STRESSED = [f"{R}/{place}/metrics.json" for place in S.stressed]


CAPABILITIES = []

if S.study.capabilities.tasks:

    rule measure_capabilities:
        """Asking {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed} what else it can do"""
        input:
            model=rules.finetune.output.model,
        output:
            f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/capabilities.parquet",
        log:
            f"{L}/{{rep}}capabilities/{{task}}/{{arm}}/seed{{seed}}.log",
        threads: 1
        resources:
            **asks("capabilities", mem_mb=8000, runtime=720, gpu=GPU),
        params:
            cfg=S.capabilities_cfg(),
            code=code("capabilities"),
        script:
            "../scripts/capabilities.py"

    use rule measure_capabilities as measure_capabilities_role with:
        input:
            model=f"{W}/{{rep}}{{role}}/model.safetensors",
        output:
            f"{R}/{{rep}}models/{{role}}/capabilities.parquet",
        log:
            f"{L}/{{rep}}capabilities/{{role}}.log",

    CAPABILITIES = [m.replace("metrics.json", "capabilities.parquet") for m in METRICS]

    rule compare_capabilities:
        """Comparing what the models of {S.name} can do elsewhere"""
        input:
            CAPABILITIES,
        output:
            f"{R}/capabilities.csv",
        log:
            f"{L}/compare_capabilities.log",
        localrule: True
        threads: 1
        resources:
            **asks(None, mem_mb=2000, runtime=30),
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
        [f"{R}/{place}/train.json" for place in S.places],


rule verdicts:
    """All verdicts and metrics, from the responses there are: the target after a change of judges"""
    input:
        METRICS,


rule metrics:
    """All metrics"""
    input:
        METRICS,
