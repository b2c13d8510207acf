"""`holdfast pull STUDY`."""

from __future__ import annotations

import click

from holdfast.cli import arguments, snapshot


@click.command()
@arguments.study()
@click.argument("families", nargs=-1)
@click.option("--verify", is_flag=True, help="read what DVC's cache has too, and fetch what has other bytes again")
def command(study: str, families: tuple[str, ...], verify: bool) -> int:
    """Fetch a pushed study and give Snakemake its memory back.

    All families that were pushed, or only FAMILIES. Only what is not here goes over the wire; how much is said before,
    and all that arrives is hashed. Exit code 2 where a file's bytes are not those that were recorded.
    """
    from holdfast.archive import remote
    from holdfast.study import resolve

    done, found = remote.pull(resolve.load(study), families, verify=verify, say=click.echo)
    click.echo(f"pulled {' '.join(done)}")
    return snapshot.report("restore", found)
