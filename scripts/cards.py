"""Stage cards: what was recorded and measured -> a model card and a manifest beside every model."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.archive import cards

    cards.build([Path(p) for p in io.input.metrics], io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
