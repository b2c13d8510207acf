"""Stage compare_capabilities: which rows every model had right -> capabilities.csv."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.evaluate import capabilities

    cells = [(task, arm, seed) for task, arm, seed in io.cfg["cells"]]
    capabilities.build([Path(p) for p in io.input], cells, Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
