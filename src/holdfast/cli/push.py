"""`holdfast push STUDY`."""

from __future__ import annotations

import click

from holdfast.cli import arguments


@click.command()
@arguments.study()
@click.argument("families", nargs=-1)
def command(study: str, families: tuple[str, ...]) -> None:
    """Record a study and push it to the DVC remote.

    All families of files that are here whole, or only FAMILIES (base aligned basis masks models ...). Models that were
    weakened on purpose leave this machine only when they are named.
    """
    from holdfast.archive import remote, snapshot
    from holdfast.study import resolve

    resolved = resolve.load(study)
    done = remote.push(resolved, families)
    if remote.WEAKENED in remote.families(resolved) and remote.WEAKENED not in done:
        click.echo("not pushed: models weakened on purpose (name them to push them: holdfast push STUDY weakened)")
    click.echo(f"pushed {' '.join(done)}")
    click.echo(f"now: git add {snapshot.FILE} {remote.stages_file(resolved)} {remote.lock(resolved)}")
