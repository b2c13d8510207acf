"""Comparison table, claims, gate, report, and the settings a sweep chooses. Writes results/<study>/*."""


rule compare:
    """Comparing {S.name}"""
    input:
        metrics=METRICS,
        verdicts=[m.replace("metrics.json", "verdicts.parquet") for m in METRICS],
        validation=VALIDATION,
    output:
        **({"suites": f"{R}/suites.csv"} if S.suites else {}),
        **({"ranks": f"{R}/ranks.csv"} if S.study.curves else {}),
        table=captioned(f"{R}/table.csv", "table"),
        claims=captioned(f"{R}/claims.csv", "claims"),
        draws=f"{R}/draws.csv",
        variance=f"{R}/variance.csv",
        curve=f"{R}/curves.csv",
        cost=f"{R}/cost.csv",
        pareto=f"{R}/pareto.csv",
        forgetting=f"{R}/forgetting.csv",
        markdown=f"{R}/table.md",
        latex=f"{R}/table.tex",
        summary=f"{R}/summary.json",
    log:
        f"{L}/compare.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg=S.compare_cfg(),
        code=code("compare"),
    script:
        "../scripts/compare.py"


if STRESSED:

    rule compare_stress:
        """Comparing the models of {S.name} under stress"""
        input:
            metrics=METRICS,
            stressed=STRESSED,
            verdicts=[
                m.replace("metrics.json", "verdicts.parquet")
                for m in [*METRICS, *STRESSED]
            ],
        output:
            f"{R}/stress.csv",
        log:
            f"{L}/compare_stress.log",
        localrule: True
        threads: 1
        resources:
            **asks(None, mem_mb=4000, runtime=60),
        params:
            cfg={},
            code=code("compare_stress"),
        script:
            "../scripts/compare_stress.py"


rule gate:
    """Judging which arms of {S.name} may be shipped"""
    input:
        metrics=METRICS,
        verdicts=[m.replace("metrics.json", "verdicts.parquet") for m in METRICS],
        capabilities=CAPABILITIES if S.gate_cfg()["cells"] else [],
    output:
        f"{R}/gate.json",
    log:
        f"{L}/gate.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg=S.gate_cfg(),
        code=code("gate"),
    script:
        "../scripts/gate.py"


rule papers:
    """Putting published numbers beside {S.name}"""
    input:
        table=rules.compare.output.table,
        published=shipped("config/published.csv"),
    output:
        f"{R}/papers.csv",
    log:
        f"{L}/papers.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=1000, runtime=10),
    params:
        cfg=S.papers_cfg(),
        code=code("papers"),
    script:
        "../scripts/papers.py"


# The points of the sweeps behind the chosen settings, kept beside them.
SWEEPS = [
    str(Path(file).with_suffix(".csv"))
    for file in S.study.chosen
    if Path(file).with_suffix(".csv").exists()
]


# What the page is made with beside code: templates, style and scripts.
PAGE = provenance.digest(
    [
        provenance.file_digest(path)
        for path in sorted((provenance.PACKAGE / "report/templates").iterdir())
    ]
)


rule write_report:
    """Writing the report of {S.name}"""
    input:
        table=rules.compare.output.table,
        claims=rules.compare.output.claims,
        cost=rules.compare.output.cost,
        papers=rules.papers.output[0],
        pareto=rules.compare.output.pareto,
        variance=rules.compare.output.variance,
        curve=rules.compare.output.curve,
        forgetting=rules.compare.output.forgetting,
        suites=rules.compare.output.get("suites", []),
        ranks=rules.compare.output.get("ranks", []),
        changes=[
            f"{R}/{task}/{arm}/seed{seed}/changes.csv"
            for task, arm, seed in S.cells
            if seed == S.study.seeds[0] and not S.study.choose
        ],
        profiles=expand(f"{R}/masks/{{mask}}.csv", mask=S.masks),
        metrics=METRICS,
        responses=rules.responses.input,
        basis=f"{W}/basis/safety.safetensors",
        sweep=SWEEPS,
        agreement=AGREEMENT,
        capabilities=rules.compare_capabilities.output if CAPABILITIES else [],
        gate=rules.gate.output if S.study.gate else [],
        stress=rules.compare_stress.output if STRESSED else [],
        attack=ATTACK_TABLE,
        trials=TRIALS,
    output:
        html=captioned(f"{R}/report.html", "report"),
        frontier=captioned(f"{R}/frontier.png", "frontier"),
    log:
        f"{L}/report.log",
    localrule: True
    threads: 1
    resources:
        **asks(None, mem_mb=4000, runtime=60),
    params:
        cfg=S.dump(),
        code=code("report") + PAGE,
    script:
        "../scripts/report.py"


rule table:
    """The comparison table and the claims"""
    input:
        rules.compare.output,


rule report:
    """The HTML report"""
    input:
        rules.write_report.output,


if S.study.choose:

    rule choose:
        """Choosing settings on validation data"""
        input:
            table=rules.compare.output.table,
            also=[
                table
                for study in S.study.choose.also
                if (table := Path(f"results/{study}/table.csv")).exists()
            ],
        output:
            f"config/{S.study.choose.file}",
            f"config/{Path(S.study.choose.file).stem}.csv",
        log:
            f"{L}/choose.log",
        localrule: True
        threads: 1
        resources:
            **asks(None, mem_mb=1000, runtime=10),
        params:
            cfg=S.choose_cfg(),
            code=code("choose"),
        script:
            "../scripts/choose.py"

    rule chosen:
        """The chosen settings"""
        input:
            rules.choose.output,
