"""`holdfast server start | stop | user`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast.cli import arguments

_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)


def _folder() -> Callable[[_Command], _Command]:
    return click.option(
        "--folder", type=arguments.PATH, default=Path("tracking-server"), show_default=True,
        help="Where everything of it is.",
    )  # fmt: skip


@click.group("server", no_args_is_help=False)
def command() -> None:
    """An MLflow server with passwords on a private PostgreSQL.

    For several users, whose studies stand side by side (docs/mlflow.md). Needs PostgreSQL's programs (Debian:
    postgresql) and the extra `server`. Everything of it is in one folder: database, artifacts, passwords, logs.
    """


@command.command()
@_folder()
@click.option("--host", help="Address to listen at, kept for later starts. First: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port, kept for later starts. First: 5000.")
@click.option("--artifacts", help="Where artifacts go, kept: a folder, s3://... First: a folder beside the database.")
@click.argument("more", nargs=-1)
def start(folder: Path, host: str | None, port: int | None, artifacts: str | None, more: tuple[str, ...]) -> None:
    """Bring it up, in the background.

    What is there already stays. MORE, after --, is for `mlflow server`: -- --allowed-hosts mlflow.example.org
    """
    from holdfast.serve import tracking

    server = tracking.Server(folder)
    server.start(host=host, port=port, artifacts=artifacts, more=more, say=lambda text: click.echo(text, err=True))
    click.echo(f"""\
MLflow: {server.address}
everything of it: {server.folder}
administrator: {tracking.ADMIN}, whose password is in {server.password}
a user: holdfast server user NAME --folder {folder}
end: holdfast server stop --folder {folder}""")


@command.command()
@_folder()
def stop(folder: Path) -> None:
    """End it; everything is kept."""
    from holdfast.serve import tracking

    click.echo("stopped" if tracking.Server(folder).stop() else "did not run")


@command.command()
@_folder()
@click.argument("name")
@click.option("--again", is_flag=True, help="A new password for a user who is there.")
def user(folder: Path, name: str, again: bool) -> None:
    """Make a user and print what NAME sets; the password is kept nowhere."""
    from holdfast.serve import tracking

    server = tracking.Server(folder)
    password = server.add_user(name, again=again)
    click.echo(f"""\
export MLFLOW_TRACKING_URI={server.address}
export MLFLOW_TRACKING_USERNAME={name}
export MLFLOW_TRACKING_PASSWORD={password}""")
