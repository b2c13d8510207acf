"""`holdfast push STUDY`."""

from __future__ import annotations

import click

from holdfast.cli import arguments


@click.command()
@arguments.study()
@click.argument("families", nargs=-1)
@click.option("--verify", is_flag=True, help="read all that the remote has, and replace what has other bytes")
def command(study: str, families: tuple[str, ...], verify: bool) -> None:
    """Record a study and push it to the DVC remote.

    All families of files that are here whole, or only FAMILIES (base aligned basis masks models ...). Only what the
    remote lacks or has cut short goes over the wire; how much is said before. Models that were weakened on purpose
    leave this machine only when they are named.
    """
    from holdfast.archive import remote, snapshot
    from holdfast.study import resolve

    resolved = resolve.load(study)
    done = remote.push(resolved, families, verify=verify, say=click.echo)
    if remote.WEAKENED in remote.families(resolved) and remote.WEAKENED not in done:
        click.echo("not pushed: models weakened on purpose (name them to push them: holdfast push STUDY weakened)")
    click.echo(f"pushed {' '.join(done)}")
    click.echo(f"now: git add {snapshot.FILE} {remote.stages_file(resolved)} {remote.lock(resolved)}")
