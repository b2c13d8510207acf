"""Stage capabilities: one model answers tasks of lm-evaluation-harness -> which rows were right."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.evaluate import capabilities

    capabilities.measure(Path(io.input.model), io.cfg, Path(io.output[0]), io.log)


if __name__ == "__main__":
    main(job.start(snakemake, preload=job.MODELS))
