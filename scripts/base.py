"""Stage base: train the tiny Llama from nothing, or fetch the model the study names."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.train import aligning

    aligning.base(
        io.cfg,
        tasks={Path(p).stem: Path(p) for p in io.input.tasks},
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
