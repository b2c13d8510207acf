"""Stage train_judge: base model + labelled pairs -> the constitution judge."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast.judges import constitution

    constitution.train(
        Path(io.input.model),
        pairs=Path(io.input.pairs),
        cfg=io.cfg,
        folder=Path(io.output.model).parent,
        log_file=Path(io.output.curve),
        checkpoints=Path(io.params.checkpoints),
        code=io.code,
        say=io.log,
        terminal=io.terminal,
    )


if __name__ == "__main__":
    main(stage.start(snakemake, hide=stage.UNUSED_BY_MODELS))
