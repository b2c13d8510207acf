"""Stage take: a model that is there already -> its place in the study."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.train import taking

    taking.take(
        io.cfg,
        folder=Path(io.output.model).parent,
        record_file=Path(io.output.record),
        aligned=Path(io.input.aligned).parent if io.input.get("aligned") else None,
        say=io.log,
    )


if __name__ == "__main__":
    main(job.start_models(snakemake))
