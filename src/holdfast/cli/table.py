"""`holdfast table STUDY`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@arguments.study(default="demo")
def command(study: str) -> None:
    """Print the table of a finished study.

    Rates in percent with 95 % intervals, the share of weights that changed, the seconds of a cell; where several suites
    are asked, each suite by itself.
    """
    from holdfast.errors import StudyError
    from holdfast.report import terminal
    from holdfast.study import resolve

    folder = Path("results") / resolve.load(study).name
    if not (folder / "table.csv").exists():
        raise StudyError(
            f"Study '{folder.name}' has no table yet.", found=f"no {folder / 'table.csv'}",
            expected="a finished study", do=f"snakemake --config study={study}",
        )  # fmt: skip
    click.echo(terminal.table(folder))
