"""Post-hoc realignment of fine-tuned cells. Writes work/<study>/<task>/<arm>/seed<k> like a fine-tuning."""


rule realign:
    """Realigning {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed}"""
    input:
        unpack(merge_inputs),
    output:
        model=f"{W}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/model.safetensors",
        record=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/train.json",
    log:
        f"{L}/{{rep}}realign/{{task}}/{{arm}}/seed{{seed}}.log",
    wildcard_constraints:
        arm=one_of(S.of_kind("merge")),
    priority: lambda w: int(registry.lengthy(S.arms[w.arm].method))
    threads: 1
    resources:
        **asks("models, merged", mem_mb=8000, runtime=240, gpu=GPU),
    params:
        cfg=lambda w: S.merge_cfg(w.task, w.arm, int(w.seed), w.rep),
        code=lambda w: code(
            "realign", f"methods/{registry.method_file(S.arms[w.arm].method).name}"
        ),
    script:
        "../scripts/realign.py"
