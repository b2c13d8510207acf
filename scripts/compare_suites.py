"""Stage compare_suites: the metrics and verdicts of every cell -> suites.csv."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import groups, suites

    suites.build(groups.load([Path(p) for p in io.input.metrics]), io.cfg["suites"], Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
