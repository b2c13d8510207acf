"""Stage compare: the metrics and verdicts of every cell -> the tables of a study."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import claims, components, forgetting, groups, pareto, ranks, suites, table
    from holdfast.record import csvfiles, files, jsonfiles
    from holdfast.report import tabular

    metrics = [Path(p) for p in io.input.metrics]
    found = groups.load(metrics)
    out = {name: Path(io.output[name]) for name in ("table", "draws", "cost", "claims", "curve")}
    validation = groups.load([Path(p) for p in io.input.validation]) if io.input.get("validation") else None
    declared, held = [tuple(c) for c in io.cfg["claims"]], [claims.Declared(*c) for c in io.cfg.get("declared", [])]
    said = {"declared": declared, "held": held, "baseline": io.cfg.get("baseline")}
    table.build(found, metrics, **out, **said, validation=validation)
    rows = csvfiles.read_csv(Path(io.output.table))
    of_suites = []
    if asked := io.cfg.get("suites"):
        csvfiles.write_csv(Path(io.output.suites), suites.rows(found, asked), suites.COLUMNS)
        of_suites = csvfiles.read_csv(Path(io.output.suites))
    files.write_text(Path(io.output.markdown), tabular.markdown(rows) + tabular.suites(of_suites))
    files.write_text(Path(io.output.latex), tabular.latex(rows))
    jsonfiles.write_json(Path(io.output.summary), tabular.summary(rows))
    if validation:
        csvfiles.write_csv(Path(io.output.ranks), ranks.rows(found, validation), ranks.COLUMNS)
    csvfiles.write_csv(Path(io.output.variance), components.rows(found), components.COLUMNS)
    csvfiles.write_csv(Path(io.output.forgetting), forgetting.rows(found), forgetting.COLUMNS)
    pareto.build(found, Path(io.output.pareto))


if __name__ == "__main__":
    main(job.start(snakemake))
