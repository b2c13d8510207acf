"""The models arms start from. Writes work/<study>/{base,aligned,unaligned} in Hugging Face layout."""


rule train_base:
    """Training (or fetching) the base model"""
    input:
        tasks=expand(rules.prepare_task.output, task=list(S.real_tasks)),
    output:
        model=f"{W}/{{rep}}base/model.safetensors",
        record=f"{R}/{{rep}}models/base/train.json",
        curve=f"{R}/{{rep}}models/base/train.jsonl",
    log:
        f"{L}/{{rep}}base.log",
    threads: 2
    resources:
        **asks("base", mem_mb=8000, runtime=240, gpu=GPU),
    params:
        cfg=lambda w: S.base_cfg(w.rep),
        code=code("base"),
        checkpoints=lambda w: f"{W}/checkpoints/{w.rep}base",
        threads=2,  # fixed: the bytes of a model depend on it
    script:
        "../scripts/base.py"


if S.study.safety.benign_answers == "self":

    rule answer_benign:
        """Letting the base answer harmless requests"""
        input:
            inputs.of_source(S.study.safety.asked),
            model=lambda w: home(S.speaker, w),
        output:
            f"{W}/{{rep}}data/benign.parquet",
        log:
            f"{L}/{{rep}}answer_benign.log",
        priority: FIRST
        threads: ALONE
        resources:
            **asks("own answers", mem_mb=8000, runtime=240, gpu=GPU),
        params:
            cfg=lambda w: S.benign_cfg(w.rep),
            code=code("answer_benign"),
            threads=ALONE,
        script:
            "../scripts/answer_benign.py"


rule train_aligned:
    """Safety fine-tuning (SSFT) of the base model"""
    input:
        model=lambda w: home("start" if S.study.aligned else "base", w),
        table=rules.prepare_safety.output[0],
    output:
        model=f"{W}/{{rep}}aligned/model.safetensors",
        record=f"{R}/{{rep}}models/aligned/train.json",
        curve=f"{R}/{{rep}}models/aligned/train.jsonl",
    log:
        f"{L}/{{rep}}aligned.log",
    priority: FIRST
    threads: max(ALONE, TOGETHER)
    resources:
        **spread("aligned", mem_mb=8000, runtime=240),
    params:
        cfg=lambda w: S.aligned_cfg(w.rep),
        code=code("aligned"),
        checkpoints=lambda w: f"{W}/checkpoints/{w.rep}aligned",
        threads=ALONE,
    script:
        "../scripts/aligned.py"


use rule train_aligned as train_unaligned with:
    input:
        model=rules.train_aligned.output.model,
        table=rules.prepare_preferences.output[0],
    output:
        model=f"{W}/{{rep}}unaligned/model.safetensors",
        record=f"{R}/{{rep}}models/unaligned/train.json",
        curve=f"{R}/{{rep}}models/unaligned/train.jsonl",
    log:
        f"{L}/{{rep}}unaligned.log",
    params:
        cfg=lambda w: S.unaligned_cfg(w.rep),
        code=code("aligned"),
        checkpoints=lambda w: f"{W}/checkpoints/{w.rep}unaligned",
        threads=ALONE,


rule base:
    """The base model"""
    input:
        expand(rules.train_base.output, rep=S.homes("base")),


rule aligned:
    """The aligned model"""
    input:
        expand(rules.train_aligned.output.model, rep=S.homes("aligned")),
