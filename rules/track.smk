"""MLflow, a view of the files: results/<study>/mlflow.json, the store itself is mlflow.db. And a card beside every model."""


rule cards:
    """Writing model cards"""
    input:
        metrics=METRICS,
        records=rules.records.input,
    output:
        f"{R}/cards.json",
    log:
        f"{L}/cards.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=60),
    params:
        cfg=S.dump(),
        code=code("cards", *datasets(S.study.tasks)),
    script:
        "../scripts/cards.py"


rule create_store:
    """Creating the MLflow store"""
    output:
        f"{R}/mlflow-store.json",
    log:
        f"{L}/mlflow_store.log",
    priority: 100
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=20),
    params:
        cfg={"study": S.name},
    script:
        "../scripts/track_store.py"


rule import_runs:
    """Importing {S.name} into MLflow"""
    input:
        store=ancient(rules.create_store.output[0]),
        metrics=METRICS,
        capabilities=CAPABILITIES,
        curves=rules.models.input,
        table=rules.compare.output.table,
        suites=rules.compare.output.get("suites", []),
        extra=[*rules.compare.output, *rules.write_report.output, *ATTACK_TABLE],
    output:
        f"{R}/mlflow.json",
    log:
        f"{L}/mlflow.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=2000, runtime=60),
    params:
        cfg=S.tracked_cfg(),
        file=str(S.path),
        tables={
            "prompts": f"{W}/data/prompts.parquet",
            "tasks": {t: f"{W}/data/tasks/{t}.parquet" for t in S.study.tasks},
            "safety": {
                str(i): f"{W}/{f}data/safety.parquet" for i, f in enumerate(S.folders)
            },
        },
    script:
        "../scripts/track.py"


rule mlflow:
    """Everything in MLflow"""
    input:
        rules.import_runs.output,
