"""Gram -> basis -> importance -> mask. Writes work/<study>/{gram,basis,importance,masks}/*.safetensors."""


rule capture_gram:
    """Capturing activations"""
    input:
        model=rules.train_aligned.output.model,
        safety=rules.prepare_safety.output[0],
    output:
        f"{W}/{{rep}}gram/safety.safetensors",
    log:
        f"{L}/{{rep}}gram.log",
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks("gram", mem_mb=8000, runtime=120, gpu=GPU),
    params:
        cfg={k: v for k, v in S.basis_cfg().items() if k != "batch_size"},
        code=code("gram"),
    script:
        "../scripts/gram.py"


use rule capture_gram as capture_every_gram with:
    output:
        f"{W}/{{rep}}gram/{{gram,{one_of(GRAMS)}}}.safetensors",
    log:
        f"{L}/{{rep}}gram_{{gram}}.log",
    params:
        cfg=lambda w: S.every_gram_cfg(w.gram),
        code=code("gram"),


rule compute_basis:
    """Computing the {wildcards.basis} basis"""
    input:
        unpack(basis_inputs),
    output:
        f"{W}/{{rep}}basis/{{basis}}.safetensors",
    log:
        f"{L}/{{rep}}basis/{{basis}}.log",
    wildcard_constraints:
        basis=one_of(S.bases),
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks("basis", mem_mb=8000, runtime=120, gpu=GPU),
    params:
        cfg=lambda w: {
            "random": {"seed": S.control_seed(w.rep)},
            "safety": {},
        }.get(w.basis, {"modules": S.basis_cfg()["modules"]}),
        code=code("basis"),
    script:
        "../scripts/basis.py"


rule find_directions:
    """Finding {wildcards.directions} directions"""
    input:
        lambda w: (
            f"{W}/{w.rep}gram/{'all' if S.directions[w.directions].every else 'safety'}.safetensors"
        ),
    output:
        f"{W}/{{rep}}basis/{{directions}}.safetensors",
    log:
        f"{L}/{{rep}}basis/{{directions}}.log",
    wildcard_constraints:
        directions=one_of(S.directions),
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks("directions", mem_mb=8000, runtime=120, gpu=GPU),
    params:
        cfg=lambda w: S.directions[w.directions].model_dump(),
        code=code("directions"),
    script:
        "../scripts/directions.py"


rule score_importance:
    """Scoring importance in the {wildcards.space} coordinates"""
    input:
        model=rules.train_aligned.output.model,
        table=rules.prepare_safety.output[0],
        basis=branch(
            lambda w: w.space == "original",
            then=[],
            otherwise=f"{W}/{{rep}}basis/{{space}}.safetensors",
        ),
    output:
        f"{W}/{{rep}}importance/{{space}}.safetensors",
    log:
        f"{L}/{{rep}}importance/{{space}}.log",
    wildcard_constraints:
        space="safety|random|original|output|permuted",
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks("importance", mem_mb=8000, runtime=120, gpu=GPU),
    params:
        cfg=S.basis_cfg(),
        code=code("importance"),
    script:
        "../scripts/importance.py"


use rule score_importance as score_task_importance with:
    input:
        model=rules.train_aligned.output.model,
        table=rules.prepare_task.output[0],
        basis=branch(
            lambda w: w.space == "original",
            then=[],
            otherwise=f"{W}/{{rep}}basis/{{space}}.safetensors",
        ),
    output:
        f"{W}/{{rep}}importance/{{space}}-{{task}}.safetensors",
    log:
        f"{L}/{{rep}}importance/{{space}}-{{task}}.log",
    params:
        cfg=lambda w: S.task_importance_cfg(w.task),
        code=lambda w: code("importance", f"data/{S.study.tasks[w.task].dataset}.py"),


rule build_mask:
    """Building mask {wildcards.mask}"""
    input:
        unpack(mask_inputs),
    output:
        mask=f"{W}/{{rep}}masks/{{mask}}.safetensors",
        profile=f"{R}/{{rep}}masks/{{mask}}.csv",
    log:
        f"{L}/{{rep}}masks/{{mask}}.log",
    wildcard_constraints:
        mask=one_of(S.masks),
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks("masks", mem_mb=4000, runtime=60),
    params:
        cfg=lambda w: {
            "spec": S.masks[w.mask].model_dump(),
            "seed": S.control_seed(w.rep),
        },
        code=code("mask"),
    script:
        "../scripts/mask.py"


rule detect_neurons:
    """Detecting {wildcards.on} neurons"""
    input:
        model=rules.train_aligned.output.model,
        safety=rules.prepare_safety.output[0],
    output:
        f"{W}/{{rep}}neurons/{{on}}{{scores}}-{{fraction}}-{{samples}}.safetensors",
    log:
        f"{L}/{{rep}}neurons/{{on}}{{scores}}-{{fraction}}-{{samples}}.log",
    wildcard_constraints:
        on="safety|foundation",
        scores="(-code)?",
        fraction=r"[0-9.e-]+",
        samples=r"\d+",
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks("responses", mem_mb=8000, runtime=120, gpu=GPU),  # forward passes, too
    params:
        cfg=lambda w: {
            "on": w.on,
            "fraction": float(w.fraction),
            "samples": int(w.samples),
            **({"detection": "code"} if w.scores else {}),
        },
        code=code("neurons"),
    script:
        "../scripts/neurons.py"


rule build_neuron_mask:
    """Building mask {wildcards.mask}"""
    input:
        lambda w: [
            f"{W}/{w.rep}neurons/{counts}.safetensors"
            for counts in S.neuron_masks[w.mask].counts
        ],
    output:
        f"{W}/{{rep}}masks/{{mask}}.safetensors",
    log:
        f"{L}/{{rep}}masks/{{mask}}.log",
    wildcard_constraints:
        mask=one_of(S.neuron_masks),
    priority: 1  # fine-tunings wait for it
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg=lambda w: S.neuron_masks[w.mask].model_dump(),
        code=code("neuron_mask"),
    script:
        "../scripts/neuron_mask.py"


rule gram:
    """All Gram matrices"""
    input:
        expand(
            f"{W}/{{rep}}gram/{{gram}}.safetensors",
            rep=S.homes("aligned"),
            gram=S.grams,
        ),


rule basis:
    """All bases"""
    input:
        expand(
            f"{W}/{{rep}}basis/{{basis}}.safetensors",
            rep=S.homes("aligned"),
            basis=[*S.bases, *S.directions],
        ),


rule importance:
    """All importance scores"""
    input:
        expand(
            rules.score_importance.output,
            rep=S.homes("aligned"),
            space=sorted({m.basis for m in S.masks.values()}),
        ),


rule masks:
    """All masks"""
    input:
        expand(
            f"{W}/{{rep}}masks/{{mask}}.safetensors",
            rep=S.homes("aligned"),
            mask=[*S.masks, *S.neuron_masks],
        ),
