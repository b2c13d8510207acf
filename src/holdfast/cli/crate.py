"""`holdfast crate STUDY`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@arguments.study()
@click.option("--out", type=arguments.PATH, help="folder to write; default: crates/STUDY")
def command(study: str, out: Path | None) -> None:
    """Write a finished study as a Workflow Run RO-Crate.

    A folder that other tools can read: the study, the workflow, every small result and what made it. Needs the extra
    `crate`.
    """
    from holdfast.archive import crate
    from holdfast.study import resolve

    resolved = resolve.load(study)
    folder = out or Path("crates") / resolved.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    click.echo(crate.build(resolved, folder))
