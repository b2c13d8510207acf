"""Stage papers: the comparison table and the published numbers -> papers.csv."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import papers

    papers.build(Path(io.input.published), Path(io.input.table), **io.cfg, out=Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
