"""`holdfast why TARGET`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("target")
@click.option("--study", help="name of the study; default: the one the path names, else demo")
def command(target: str, study: str | None) -> None:
    """Say in words why a file would be made again.

    TARGET is a file (results/demo/table.csv) or a family (models).
    """
    from holdfast.archive import why

    click.echo(why.ask(Path(target).as_posix(), study))
