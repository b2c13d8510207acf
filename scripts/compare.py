"""Stage compare: the metrics and verdicts of every cell -> the tables of a study."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import components, groups, pareto, table
    from holdfast.record import csvfiles, files, jsonfiles
    from holdfast.report import tabular

    metrics = [Path(p) for p in io.input.metrics]
    found = groups.load(metrics)
    out = {name: Path(io.output[name]) for name in ("table", "draws", "cost", "claims", "curve")}
    validation = groups.load([Path(p) for p in io.input.validation]) if io.input.get("validation") else None
    said = {"declared": [tuple(c) for c in io.cfg["claims"]], "held": [tuple(c) for c in io.cfg.get("declared", [])]}
    table.build(found, metrics, **out, **said, baseline=io.cfg.get("baseline"), validation=validation)
    rows = csvfiles.read_csv(Path(io.output.table))
    files.write_text(Path(io.output.markdown), tabular.markdown(rows))
    files.write_text(Path(io.output.latex), tabular.latex(rows))
    jsonfiles.write_json(Path(io.output.summary), tabular.summary(rows))
    csvfiles.write_csv(Path(io.output.variance), components.rows(found), components.COLUMNS)
    pareto.build(found, Path(io.output.pareto))


if __name__ == "__main__":
    main(job.start(snakemake))
