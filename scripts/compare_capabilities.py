"""Stage compare_capabilities: which rows every model had right -> capabilities.csv."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.evaluate import capabilities

    capabilities.build([Path(p) for p in io.input], io.cfg["cells"], Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
