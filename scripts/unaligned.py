"""Stage unaligned: the twin of the aligned model that has lost its refusals, for safety vectors only."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import aligning

    aligning.unaligned(
        io.cfg,
        aligned=Path(io.input.model),
        preferences_table=Path(io.input.preferences),
        folder=Path(io.output.model).parent,
        log_file=Path(io.output.curve),
        checkpoints=Path(io.params.checkpoints),
        code=io.code,
        say=io.log,
        terminal=io.terminal,
    )


if __name__ == "__main__":
    main(stage.start(snakemake, hide=stage.UNUSED_BY_MODELS))
