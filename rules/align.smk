"""The models arms start from. Writes work/<study>/{base,aligned,unaligned} in Hugging Face layout."""


rule train_base:
    """Training (or fetching) the base model"""
    input:
        tasks=expand(rules.prepare_task.output, task=list(S.real_tasks)),
    output:
        model=f"{W}/base/model.safetensors",
        curve=f"{R}/models/base/train.jsonl",
    log:
        f"{L}/base.log",
    benchmark:
        f"{L}/benchmarks/base.tsv"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPU,
    params:
        cfg=S.base_cfg(),
        code=code("base"),
        checkpoints=f"{W}/checkpoints/base",
        threads=2,  # fixed: the bytes of a model depend on it
    script:
        "../scripts/base.py"


rule train_aligned:
    """Safety fine-tuning (SSFT) of the base model"""
    input:
        model=rules.train_base.output.model,
        table=rules.prepare_safety.output[0],
    output:
        model=f"{W}/aligned/model.safetensors",
        curve=f"{R}/models/aligned/train.jsonl",
    log:
        f"{L}/aligned.log",
    benchmark:
        f"{L}/benchmarks/aligned.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPU,
    params:
        cfg=S.aligned_cfg(),
        code=code("aligned"),
        checkpoints=f"{W}/checkpoints/aligned",
    script:
        "../scripts/aligned.py"


use rule train_aligned as train_unaligned with:
    input:
        model=rules.train_aligned.output.model,
        table=rules.prepare_preferences.output[0],
    output:
        model=f"{W}/unaligned/model.safetensors",
        curve=f"{R}/models/unaligned/train.jsonl",
    log:
        f"{L}/unaligned.log",
    benchmark:
        f"{L}/benchmarks/unaligned.tsv"
    params:
        cfg=S.unaligned_cfg(),
        code=code("aligned"),
        checkpoints=f"{W}/checkpoints/unaligned",


rule base:
    """The base model"""
    input:
        rules.train_base.output,


rule aligned:
    """The aligned model"""
    input:
        rules.train_aligned.output,
