"""Stage mask: importance scores + one spec -> frozen coefficients as bits."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.warp import families

    families.build_mask(
        Path(io.input.safety), io.cfg["spec"], io.cfg["seed"], Path(io.output.mask),
        task_file=Path(io.input.task) if io.input.get("task") else None, profile=Path(io.output.profile),
    )  # fmt: skip


if __name__ == "__main__":
    main(job.start(snakemake))
