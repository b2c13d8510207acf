"""Data preparation. Reads the world, the hub or the user's files; writes work/<study>/data/*.parquet."""


rule prepare_safety:
    """Preparing safety rows"""
    input:
        inputs.of_source(S.study.safety.source),
        benign=(
            f"{W}/{{rep}}data/benign.parquet"
            if S.study.safety.benign_answers == "self"
            else []
        ),
        prompts=asked_of(
            S.study.safety.source,
            (
                S.study.safety.asked
                if S.study.safety.benign_answers == "self"
                else "world"
            ),
        ),
    output:
        f"{W}/{{rep}}data/safety.parquet",
    log:
        f"{L}/{{rep}}prepare_safety.log",
    priority: FIRST
    localrule: True
    threads: ALONE
    resources:
        **asks(None, mem_mb=2000, runtime=30),
    params:
        cfg=lambda w: S.safety_data_cfg(w.rep),
        code=code("prepare_safety"),
    script:
        "../scripts/prepare_safety.py"


rule prepare_preferences:
    """Preparing preference pairs"""
    input:
        inputs.of_source(S.study.preferences.source),
        prompts=asked_of(S.study.preferences.source) if S.pairs_are_read else [],
    output:
        f"{W}/data/preferences.parquet",
    log:
        f"{L}/prepare_preferences.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=30),
    params:
        cfg=S.preferences_cfg(),
        code=code("prepare_preferences"),
    script:
        "../scripts/prepare_preferences.py"


rule prepare_prompts:
    """Preparing evaluation prompts"""
    input:
        inputs.of_source(S.study.evaluation.source),
        S.copies,
    output:
        f"{W}/data/prompts.parquet",
    log:
        f"{L}/prepare_prompts.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=30),
    params:
        cfg=S.prompts_cfg(),
        code=code("prepare_prompts"),
    script:
        "../scripts/prepare_prompts.py"


rule prepare_task:
    """Preparing rows of {wildcards.task}"""
    input:
        lambda w: inputs.of_task(S, w.task),
        prompts=lambda w: asked_of(S.study.tasks[w.task].source),
    output:
        f"{W}/data/tasks/{{task}}.parquet",
    log:
        f"{L}/prepare_task/{{task}}.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg=lambda w: S.task_data_cfg(w.task),
        code=lambda w: code("prepare_task", f"data/{S.study.tasks[w.task].dataset}.py"),
    script:
        "../scripts/prepare_task.py"


rule prepare:
    """All tables"""
    input:
        expand(rules.prepare_safety.output, rep=S.homes("aligned")),
        rules.prepare_prompts.output,
        expand(rules.prepare_task.output, task=list(S.study.tasks)),
