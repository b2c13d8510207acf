"""Stage compare: the metrics and verdicts of every cell -> table.csv, cost.csv and claims.csv."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import comparison

    comparison.build(
        [Path(p) for p in io.input.metrics],
        table=Path(io.output.table),
        cost=Path(io.output.cost),
        claims=Path(io.output.claims),
    )


if __name__ == "__main__":
    main(stage.start(snakemake))
