"""Stage papers: the comparison table and the published numbers -> papers.csv."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import papers

    papers.build(Path(io.input.published), Path(io.input.table), **io.cfg, out=Path(io.output[0]))


if __name__ == "__main__":
    main(stage.start(snakemake))
