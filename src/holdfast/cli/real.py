"""`holdfast real`."""

from __future__ import annotations

from pathlib import Path

import click

FROM_HUB, FROM_PACKAGE = "real-small", "real-small-gguf"


@click.command()
def command() -> None:
    """Print which study of a real model can run here.

    `make real` runs it. real-small takes the model from the hub; real-small-gguf the file that a Python package ships,
    rounded to four bits, where only a package registry can be reached. What was begun stays what it is.
    """
    from holdfast.model import hub
    from holdfast.study import resolve

    begun = [name for name in (FROM_HUB, FROM_PACKAGE) if Path("work", name, "base/model.safetensors").exists()]
    if begun:
        click.echo(f"{begun[0]}: its base is here", err=True)
        click.echo(begun[0])
        return
    base = resolve.load(FROM_HUB).study.base
    if hub.reachable(base.source, base.revision):
        click.echo(f"{FROM_HUB}: {base.source} from the hub", err=True)
        click.echo(FROM_HUB)
        return
    package = resolve.load(FROM_PACKAGE).study.base.source
    click.echo(f"{FROM_PACKAGE}: the hub cannot be reached; {package}, a rounded copy of {base.source}", err=True)
    click.echo(FROM_PACKAGE)
