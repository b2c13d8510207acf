"""Stage agreement: how far the judges of a study agree."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import agreement

    agreement.write([Path(p) for p in io.input.metrics], Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
