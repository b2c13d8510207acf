"""`holdfast snapshot save | restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.cli import arguments

if TYPE_CHECKING:
    from holdfast.archive.snapshot import Found


@click.group("snapshot", no_args_is_help=False)
def command() -> None:
    """Carry what made each file between machines.

    `save` copies Snakemake's records of all outputs into provenance.json, which git tracks; `restore` checks the files
    that are here against it and gives Snakemake its memory back. Exit code 2 where a file's bytes are not those that
    were recorded.
    """


@command.command()
@arguments.studies()
def save(studies: tuple[str, ...]) -> int:
    """Record what made the files of STUDIES, or of all."""
    from holdfast.archive import snapshot

    return report("save", snapshot.save(Path.cwd(), snapshot.prefixes(studies)))


@command.command()
@arguments.studies()
def restore(studies: tuple[str, ...]) -> int:
    """Give Snakemake the records of the files of STUDIES, or of all."""
    from holdfast.archive import snapshot

    return report("restore", snapshot.restore(Path.cwd(), snapshot.prefixes(studies)))


def report(what: str, found: Found) -> int:
    """Print what was found; the exit code is 2 where something is corrupt."""
    from holdfast.archive import snapshot

    counts = ", ".join(f"{len(v)} {k}" for k, v in vars(found).items() if v)
    click.echo(f"{what}: {counts or 'nothing recorded'}")
    for output in found.corrupt:
        click.echo(snapshot.corrupt(output).block(), err=True)
    return 2 if found.corrupt else 0
