"""Stage compare_stress: metrics of every model as it was and under every stress -> stress.csv."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import groups, stress
    from holdfast.record import csvfiles

    by_stress: dict[str, list[Path]] = {}
    for path in map(Path, io.input.stressed):
        by_stress.setdefault(path.parent.name, []).append(path)
    found = {name: groups.load(paths) for name, paths in by_stress.items()}
    csvfiles.write_csv(
        Path(io.output[0]), stress.rows(groups.load([*map(Path, io.input.metrics)]), found), stress.COLUMNS
    )


if __name__ == "__main__":
    main(job.start(snakemake))
