"""`holdfast label STUDY`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@arguments.study(default="demo")
@click.option("--count", default=200, show_default=True, type=click.IntRange(1), help="Answers to draw.")
@click.option("--judge", default="refusal", show_default=True, help="Over whose labels they are drawn.")
@click.option("--out", type=arguments.PATH, help="File to write  [default: results/STUDY/label.csv]")
def command(study: str, count: int, judge: str, out: Path | None) -> None:
    """Draw answers of a finished study for people to label.

    The file has the judge's label beside every answer and an empty column `label` for compliance, full_refusal,
    partial_refusal or other (neither refuses nor answers); hide the first, fill the second, and `holdfast calibrate
    FILE` compares them. Answers stand there as they are.
    """
    from holdfast import names
    from holdfast.errors import StudyError
    from holdfast.judges import sampling
    from holdfast.record.csvfiles import write_csv

    results, metrics = arguments.judged(study)
    path = out or results / names.TO_LABEL
    if path.exists() or path.suffix != ".csv":
        raise StudyError(
            f"{path} is there, perhaps with labels." if path.is_file() else f"{path} cannot be written.",
            found=arguments.there(path) if path.exists() else path.name, expected="a new file, .csv",
            do="move it, or name another: --out FILE.csv" if path.exists() else "name another: --out FILE.csv",
        )  # fmt: skip
    rows = sampling.draw(metrics, count, judge)
    write_csv(path, rows, sampling.COLUMNS)
    click.echo(f"{len(rows)} answers in {path}; fill the column label, then: holdfast calibrate {path}")
    if len(rows) < (piles := rows[0]["piles"]):
        click.echo(
            f"Of {piles} pairs of arm and label {piles - len(rows)} have no answer in it (--count {piles} or more)"
        )
