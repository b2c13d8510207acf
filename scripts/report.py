"""Stage report: tables, curves and examples -> one self-contained report.html and its plots."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import report

    report.build(
        io.cfg,
        table=Path(io.input.table),
        claims=Path(io.input.claims),
        cost=Path(io.input.cost),
        metrics=[Path(p) for p in io.input.metrics],
        basis=Path(io.input.basis),
        sweep=Path(io.input.sweep[0]) if io.input.get("sweep") else None,
        html=Path(io.output.html),
        frontier=Path(io.output.frontier),
    )


if __name__ == "__main__":
    main(stage.start(snakemake))
