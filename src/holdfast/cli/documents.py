"""`holdfast documents`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--check", is_flag=True, help="write nothing; exit code 1 where a file is not as it would be written")
def command(check: bool) -> int:
    """Write the generated files of the project.

    config/README.md, config/schema.json, docs/methods.md, docs/api.md, docs/which-remedy.md, drawings, dvc.yaml, the
    wings in CONTRIBUTING.md, and the tables and numbers of README.md and the pages, from the code and from what was
    measured. For a checkout of the project.
    """
    from holdfast.documents import pages

    stale = False
    for path, difference in pages.stale(Path.cwd(), check=check):
        stale = True
        click.echo(difference if check else f"wrote {path}", err=True)
    return int(check and stale)
