"""`holdfast audit STUDY`."""

from __future__ import annotations

from collections import Counter

import click

from holdfast.cli import arguments

SHOWN = 12  # of a kind, where not all are asked for


@click.command()
@arguments.study(default="demo")
@click.option("--all", "every", is_flag=True, help=f"not only the first {SHOWN} of a kind")
def command(study: str, every: bool) -> int:
    """List what is missing, stale, corrupt or orphaned.

    Here and on the DVC remote; each problem comes with the command that repairs it, and nothing is changed. Exit code 1
    where there is a problem.
    """
    from holdfast.archive import audit
    from holdfast.study import resolve

    problems = audit.audit(resolve.load(study))
    counts = Counter(p.kind for p in problems)
    for kind in audit.KINDS:
        shown = [p for p in problems if p.kind == kind][: None if every else SHOWN]
        for p in shown:
            click.echo(f"{p.kind:8} {p.path}\n{'':8} {p.why}\n{'':8} repair: {p.repair}")
        if counts[kind] > len(shown):
            click.echo(f"{kind:8} ... and {counts[kind] - len(shown)} more (--all)")
    if counts["missing"] + counts["stale"]:
        click.echo(f"all that is missing or stale, and what follows: snakemake --config study={study}")
    click.echo(", ".join(f"{counts[kind]} {kind}" for kind in audit.KINDS))
    return 1 if problems else 0
