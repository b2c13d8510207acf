"""`holdfast calibrate FILES`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@click.argument("files", nargs=-1, required=True, type=arguments.PATH)
def command(files: tuple[Path, ...]) -> None:
    """Compare the refusal judge with people's labels.

    FILES hold prompt, response and label (compliance, full_refusal, partial_refusal; other, for what neither refuses
    nor answers), and perhaps model: .csv, .jsonl or .parquet. Printed are agreement with 95 % intervals and kappa, of
    the keyword judges too. Of answers that `holdfast label` drew the judge's label is that of the study's tables, and a
    line weighs them as all answers of the study.
    """
    from holdfast.judges import calibration

    click.echo("\n".join(calibration.table(calibration.read(files))))
