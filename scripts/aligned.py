"""Stage aligned: safety supervised fine-tuning (SSFT) of the base model, or the unaligned twin of the result."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.train import aligning

    aligning.tuned(
        io.cfg,
        start=Path(io.input.model),
        table=Path(io.input.table),
        folder=Path(io.output.model).parent,
        record_file=Path(io.output.record),
        log_file=Path(io.output.curve),
        checkpoints=Path(io.params.checkpoints),
        code=io.code,
        say=io.log,
        terminal=io.terminal,
    )


if __name__ == "__main__":
    main(job.start_models(snakemake))
