"""Stage track, first half: create the MLflow store and the study's experiment, serially."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import tracking

    tracking.create_store(io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(stage.start(snakemake))
