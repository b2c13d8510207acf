"""Fine-tuning of every cell. Writes work/<study>/<task>/<arm>/seed<k> and its curve and record in results."""


rule finetune:
    """Fine-tuning {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed}"""
    input:
        unpack(cell_artifacts),
        model=from_home("aligned"),
        task=rules.prepare_task.output[0],
    output:
        model=f"{W}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/model.safetensors",
        record=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/train.json",
        curve=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/train.jsonl",
    log:
        f"{L}/{{rep}}finetune/{{task}}/{{arm}}/seed{{seed}}.log",
    wildcard_constraints:
        arm=one_of(S.of_kind("train")),
    priority: lambda w: int(registry.lengthy(S.arms[w.arm].method))
    threads: TOGETHER
    resources:
        **spread("models, trained", mem_mb=8000, runtime=480),
    params:
        cfg=lambda w: S.cell_cfg(w.task, w.arm, int(w.seed), w.rep),
        code=lambda w: code(
            "finetune",
            f"methods/{registry.method_file(S.arms[w.arm].method).name}",
            f"data/{S.study.tasks[w.task].dataset}.py",
        ),
        checkpoints=f"{W}/checkpoints/{{rep}}{{task}}/{{arm}}/seed{{seed}}",
        imports=lambda w: list(S.arms[w.arm].imports),
        tracking=lambda w: {
            "study": S.name,
            "cell": f"{S.name}/{w.rep}{w.task}/{w.arm}/seed{w.seed}",
        },
    script:
        "../scripts/finetune.py"


rule models:
    """All fine-tuned models"""
    input:
        [f"{W}/{place}/model.safetensors" for place in S.places],
