"""Stage changes: a fine-tuned model, the aligned one and the safety basis -> what changed in the weights."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import changes

    changes.build(
        Path(io.input.model), aligned=Path(io.input.aligned), basis=Path(io.input.basis), out=Path(io.output[0])
    )


if __name__ == "__main__":
    main(job.start_models(snakemake, preload=["torch"]))
