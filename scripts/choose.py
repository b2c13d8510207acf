"""Stage choose: a sweep on validation data -> the settings each arm uses on each task."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import comparison

    comparison.choose(Path(io.input.table), io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(stage.start(snakemake))
