"""`holdfast pull STUDY`."""

from __future__ import annotations

import click

from holdfast.cli import arguments, snapshot


@click.command()
@arguments.study()
@click.argument("families", nargs=-1)
def command(study: str, families: tuple[str, ...]) -> int:
    """Fetch a pushed study and give Snakemake its memory back.

    All families that were pushed, or only FAMILIES. Exit code 2 where a file's bytes are not those that were recorded.
    """
    from holdfast.archive import remote
    from holdfast.study import resolve

    done, found = remote.pull(resolve.load(study), list(families))
    click.echo(f"pulled {' '.join(done)}")
    return snapshot.report("restore", found)
