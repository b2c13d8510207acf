"""Stage choose: a sweep on validation data -> the settings each arm uses on each task."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import choosing

    tables = [Path(io.input.table), *(Path(f"results/{study}/table.csv") for study in io.cfg["also"])]
    choosing.choose(tables, io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
