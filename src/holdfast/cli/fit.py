"""`holdfast fit FILES`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@click.argument("files", nargs=-1, required=True, type=arguments.PATH)
@click.option("--out", type=arguments.PATH, help="where the weights go; default: those of this installation")
def command(files: tuple[Path, ...], out: Path | None) -> None:
    """Fit the refusal judge to people's labels.

    FILES are as for `calibrate`; the table begins with judges that did not see the model they are asked about.
    """
    from holdfast.judges import calibration, refusal

    rows = calibration.read(files)
    calibration.refit(rows, out or refusal.WEIGHTS)
    click.echo("\n".join(calibration.table(rows, refitted=True)))
