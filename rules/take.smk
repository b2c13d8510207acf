"""Models that are there already, brought to the places of roles and cells. Writes what fine-tuning or aligning would."""

# What a given aligned model is: that, or where safety training starts.
START = "start" if S.trains_aligned else "aligned"


rule take:
    """Taking {wildcards.arm} of {wildcards.task}, which is there"""
    input:
        lambda w: inputs.of_model(S.given(w.arm, w.task, int(w.seed))),
        aligned=from_home("aligned"),
    output:
        model=f"{W}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/model.safetensors",
        record=f"{R}/{{rep}}{{task}}/{{arm}}/seed{{seed}}/train.json",
    log:
        f"{L}/{{rep}}take/{{task}}/{{arm}}/seed{{seed}}.log",
    wildcard_constraints:
        arm=one_of(S.of_kind("given")),
    threads: 1
    resources:
        **asks("responses", mem_mb=8000, runtime=240),  # which holds one model whole, too
    params:
        cfg=lambda w: S.taken_cfg(w.task, w.arm, int(w.seed)),
        code=code("take"),
    script:
        "../scripts/take.py"


if S.study.aligned:

    use rule take as take_aligned with:
        input:
            inputs.of_model(S.study.aligned.source),
        output:
            model=f"{W}/{{rep}}{START}/model.safetensors",
            record=f"{R}/{{rep}}models/{START}/train.json",
        log:
            f"{L}/{{rep}}{START}.log",
        params:
            cfg=S.given_cfg(START),
            code=code("take"),

    ruleorder: take_aligned > train_aligned


if S.study.unaligned.source:

    use rule take as take_unaligned with:
        input:
            inputs.of_model(S.study.unaligned.source),
            aligned=rules.train_aligned.output.model,
        output:
            model=f"{W}/{{rep}}unaligned/model.safetensors",
            record=f"{R}/{{rep}}models/unaligned/train.json",
        log:
            f"{L}/{{rep}}unaligned.log",
        params:
            cfg=S.given_cfg("unaligned"),
            code=code("take"),

    ruleorder: take_unaligned > train_unaligned
