"""Stage report: tables, curves and examples -> one self-contained report.html and its plots."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.report import page

    optional = ("agreement", "capabilities", "gate", "stress", "attack")
    page.build(
        io.cfg,
        table=Path(io.input.table),
        claims=Path(io.input.claims),
        cost=Path(io.input.cost),
        papers=Path(io.input.papers),
        pareto=Path(io.input.pareto),
        variance=Path(io.input.variance),
        curve=Path(io.input.curve),
        ranks=Path(io.input.ranks) if io.input.get("ranks") else None,
        forgetting=Path(io.input.forgetting),
        suites=Path(io.input.suites) if io.input.get("suites") else None,
        changes=[Path(p) for p in io.input.get("changes", [])],
        profiles=[Path(p) for p in io.input.get("profiles", [])],
        metrics=[Path(p) for p in io.input.metrics],
        basis=Path(io.input.basis),
        trials=[Path(p) for p in io.input.get("trials", [])],
        sweeps=[Path(p) for p in io.input.get("sweep", [])],
        **{k: next(map(Path, io.input.get(k, [])), None) for k in optional},
        html=Path(io.output.html),
        frontier=Path(io.output.frontier),
    )


if __name__ == "__main__":
    main(job.start(snakemake))
