"""Judges that are models: the trained constitution judge, and what each of them says of every stored reply."""

J = f"{W}/judge"


rule prepare_judge_prompts:
    """Preparing requests for the judge's training"""
    output:
        f"{W}/data/judge_prompts.parquet",
    log:
        f"{L}/judge/prompts.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=30),
    params:
        cfg=S.judging.prompts_cfg(),
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
        own=inputs.of_source(S.study.constitution.pairs),
    output:
        f"{J}/examples.parquet",
    log:
        f"{L}/judge/pairs.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=30),
    params:
        cfg=S.judging.pairs_cfg(),
        code=code("label_pairs"),
    script:
        "../scripts/label_pairs.py"


use rule train_aligned as train_judge with:
    input:
        model=f"{W}/base/model.safetensors",
        table=rules.label_pairs.output[0],
    output:
        model=f"{J}/model/model.safetensors",
        record=f"{R}/models/judge/train.json",
        curve=f"{R}/models/judge/train.jsonl",
    log:
        f"{L}/judge/train.log",
    threads: ALONE
    resources:
        **asks("aligned", mem_mb=8000, runtime=240, gpu=GPU),
    params:
        cfg=S.judging.training_cfg(),
        code=code("aligned", "methods/lora.py"),
        checkpoints=f"{W}/checkpoints/judge",
        threads=ALONE,


rule opinions:
    """Asking {wildcards.judge} about {wildcards.model}"""
    input:
        responses=f"{R}/{{model}}/responses.parquet",
        judge=lambda w: (
            rules.train_judge.output.model
            if w.judge == "constitution" and S.judging.trains_constitution
            else []
        ),
    output:
        f"{R}/{{model}}/opinions/{{judge}}.parquet",
    log:
        f"{L}/opinions/{{judge}}/{{model}}.log",
    wildcard_constraints:
        model=".+",
        judge=one_of(S.judging.asked),
    threads: 1
    resources:
        **asks(None, mem_mb=8000, runtime=240, gpu=GPU),
    params:
        cfg=lambda w: S.judging.opinions_cfg(w.judge),
        code=lambda w: code("opinions", f"judges/{w.judge.replace('-', '_')}.py"),
    script:
        "../scripts/opinions.py"


rule agreement:
    """Comparing the judges"""
    input:
        metrics=METRICS,
        verdicts=[m.replace("metrics.json", "verdicts.parquet") for m in METRICS],
    output:
        f"{R}/agreement.json",
    log:
        f"{L}/agreement.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg={},
        code=code("agreement"),
    script:
        "../scripts/agreement.py"


AGREEMENT = rules.agreement.output if S.judging.several else []
