"""Gram -> basis -> importance -> mask. Writes work/<study>/{gram,basis,importance,masks}/*.safetensors."""

from holdfast.names import MODULE_KINDS


rule capture_gram:
    """Capturing activations"""
    input:
        model=rules.train_aligned.output.model,
        safety=rules.prepare_safety.output[0],
    output:
        f"{W}/gram/safety.safetensors",
    log:
        f"{L}/gram.log",
    benchmark:
        f"{L}/benchmarks/gram.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=GPU,
    params:
        cfg={k: v for k, v in S.basis_cfg().items() if k != "batch_size"},
        code=code("gram"),
    script:
        "../scripts/gram.py"


use rule capture_gram as capture_every_gram with:
    output:
        f"{W}/gram/all.safetensors",
    log:
        f"{L}/gram_all.log",
    benchmark:
        f"{L}/benchmarks/gram_all.tsv"
    params:
        cfg={
            k: v for k, v in S.basis_cfg().items() if k not in ("batch_size", "modules")
        }
        | {"modules": list(MODULE_KINDS)},
        code=code("gram"),


rule compute_basis:
    """Computing the {wildcards.basis} basis"""
    input:
        rules.capture_gram.output,
    output:
        f"{W}/basis/{{basis}}.safetensors",
    log:
        f"{L}/basis/{{basis}}.log",
    benchmark:
        f"{L}/benchmarks/basis/{{basis}}.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=GPU,
    params:
        cfg=lambda w: {"seed": S.study.world.seed} if w.basis == "random" else {},
        code=code("basis"),
    script:
        "../scripts/basis.py"


rule score_importance:
    """Scoring importance in the {wildcards.space} coordinates"""
    input:
        model=rules.train_aligned.output.model,
        safety=rules.prepare_safety.output[0],
        basis=branch(
            lambda w: w.space == "original",
            then=[],
            otherwise=f"{W}/basis/{{space}}.safetensors",
        ),
    output:
        f"{W}/importance/{{space}}.safetensors",
    log:
        f"{L}/importance/{{space}}.log",
    benchmark:
        f"{L}/benchmarks/importance/{{space}}.tsv"
    wildcard_constraints:
        space="safety|random|original",
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=GPU,
    params:
        cfg=S.basis_cfg(),
        code=code("importance"),
    script:
        "../scripts/importance.py"


rule build_mask:
    """Building mask {wildcards.mask}"""
    input:
        lambda w: f"{W}/importance/{S.masks[w.mask].basis}.safetensors",
    output:
        f"{W}/masks/{{mask}}.safetensors",
    log:
        f"{L}/masks/{{mask}}.log",
    benchmark:
        f"{L}/benchmarks/masks/{{mask}}.tsv"
    wildcard_constraints:
        mask="|".join(m.replace(".", r"\.") for m in S.masks) or "none",
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        cfg=lambda w: {"spec": S.masks[w.mask].model_dump(), "seed": S.study.world.seed},
        code=code("mask"),
    script:
        "../scripts/mask.py"


rule gram:
    """All Gram matrices"""
    input:
        rules.capture_gram.output,


rule basis:
    """All bases"""
    input:
        expand(rules.compute_basis.output, basis=S.bases),


rule importance:
    """All importance scores"""
    input:
        expand(
            rules.score_importance.output,
            space=sorted({m.basis for m in S.masks.values()}),
        ),


rule masks:
    """All masks"""
    input:
        expand(rules.build_mask.output, mask=list(S.masks)),
