"""`holdfast harness CELL`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@click.argument("cell", type=arguments.PATH)
def command(cell: Path) -> int:
    """Score a finished cell with lm-evaluation-harness too.

    CELL is a folder results/STUDY/TASK/ARM/seedK. Exit code 1 where its scores differ from ours. Needs the extra
    `harness`.
    """
    from holdfast.evaluate import harness

    found = harness.check(cell)
    for task, row in found:
        theirs, ours = (f"{100 * row[k] / row['n']:.2f} %" for k in ("theirs", "ours"))
        same = "equal in every row" if not row["different"] else f"different in {', '.join(row['different'][:5])}"
        click.echo(f"{task}, {row['filter']}: harness {theirs}, holdfast {ours} of {row['n']}; {same}")
    return 1 if any(row["different"] for _, row in found) else 0
