"""Stage importance: gradients on refusals (or a task's rows) in the coordinates of a basis, summed over batches."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.warp import families

    basis = io.input.get("basis")
    families.build_importance(
        Path(io.input.model), Path(io.input.table), Path(basis) if basis else None, io.cfg, Path(io.output[0]), io.log
    )


if __name__ == "__main__":
    main(job.start_models(snakemake))
