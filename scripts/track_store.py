"""Stage track, first half: create the MLflow store and the study's experiment, serially."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.track import store

    store.create_store(io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
