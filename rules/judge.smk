"""The constitution judge: answers, labelled pairs, the trained judge, and its opinion on every stored reply."""

J = f"{W}/judge"


rule prepare_judge_prompts:
    """Preparing requests for the judge's training"""
    output:
        f"{W}/data/judge_prompts.parquet",
    log:
        f"{L}/judge/prompts.log",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=S.judge_prompts_cfg(),
        code=code("prepare_judge_prompts"),
    script:
        "../scripts/prepare_judge_prompts.py"


use rule respond as respond_for_judge with:
    input:
        model=f"{W}/{{role}}/model.safetensors",
        prompts=rules.prepare_judge_prompts.output[0],
        tasks=[],
    output:
        f"{J}/answers/{{role}}.parquet",
    log:
        f"{L}/judge/answers-{{role}}.log",
    benchmark:
        f"{L}/benchmarks/judge/answers-{{role}}.tsv"
    params:
        cfg=S.judge_answers_cfg(),
        code=code("respond"),


OWN_PAIRS = S.study.constitution.pairs != "world"


rule label_pairs:
    """Labelling request-reply pairs"""
    input:
        answers=(
            []
            if OWN_PAIRS
            else expand(rules.respond_for_judge.output, role=["base", "aligned"])
        ),
        prompts=[] if OWN_PAIRS else rules.prepare_judge_prompts.output,
        own=source_files(S.study.constitution.pairs),
    output:
        f"{J}/examples.parquet",
    log:
        f"{L}/judge/pairs.log",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=S.judge_pairs_cfg(),
        code=code("label_pairs"),
    script:
        "../scripts/label_pairs.py"


use rule train_aligned as train_judge with:
    input:
        model=rules.train_base.output.model,
        table=rules.label_pairs.output[0],
    output:
        model=f"{J}/model/model.safetensors",
        curve=f"{R}/models/judge/train.jsonl",
    log:
        f"{L}/judge/train.log",
    benchmark:
        f"{L}/benchmarks/judge/train.tsv"
    params:
        cfg=S.judge_training_cfg(),
        code=code("aligned", "methods/lora.py"),
        checkpoints=f"{W}/checkpoints/judge",


rule constitution:
    """Asking the constitution judge about {wildcards.model}"""
    input:
        responses=f"{R}/{{model}}/responses.parquet",
        judge=rules.train_judge.output.model if S.trains_judge else [],
    output:
        f"{R}/{{model}}/constitution.parquet",
    log:
        f"{L}/constitution/{{model}}.log",
    benchmark:
        f"{L}/benchmarks/constitution/{{model}}.tsv"
    wildcard_constraints:
        model=".+",
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPU,
    params:
        cfg=S.constitution_cfg(),
        code=code("constitution"),
    script:
        "../scripts/constitution.py"


JUDGED = metrics_of(S.judged_cells)


rule agreement:
    """Comparing the constitution judge with the world's"""
    input:
        metrics=JUDGED,
        verdicts=[m.replace("metrics.json", "verdicts.parquet") for m in JUDGED],
        opinions=[m.replace("metrics.json", "constitution.parquet") for m in JUDGED],
    output:
        f"{R}/agreement.json",
    log:
        f"{L}/agreement.log",
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        cfg={},
        code=code("agreement"),
    script:
        "../scripts/agreement.py"


AGREEMENT = (
    rules.agreement.output if "constitution" in S.study.evaluation.judges else []
)
