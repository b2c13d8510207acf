"""Stage cards: what was recorded and measured -> a model card and a manifest beside every model."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import cards

    cards.build([Path(p) for p in io.input.metrics], io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(stage.start(snakemake))
