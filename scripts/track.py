"""Stage track, second half: import every cell's files into MLflow; safe to repeat."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.track import importing

    importing.import_study(
        [Path(p) for p in io.input.metrics],
        table=Path(io.input.table),
        suites=Path(io.input.suites) if io.input.get("suites") else None,
        extra=[Path(p) for p in io.input.extra],
        resolved=io.cfg,
        tables=io.params.tables,
        study_file=io.params.file,
        out=Path(io.output[0]),
        say=io.log,
    )


if __name__ == "__main__":
    main(job.start(snakemake))
