"""`holdfast`: everything that is not a target of the DAG, one verb a file of this folder.

A verb file has a click command `command`; it imports what it needs when it runs, so that help and completion are quick.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

import click

from holdfast import __version__
from holdfast.errors import INTERRUPTED, HoldfastError, UsageError, meant
from holdfast.record import files

VERBS = (
    "table", "answers", "gate", "plan", "why", "realign", "audit", "push", "pull", "snapshot", "crate", "label",
    "calibrate", "fit", "prefer", "route", "harness", "real", "server", "documents",
)  # fmt: skip
FAULT = 70  # as sysexits.h has it
HELP = """Fine-tune a language model without losing its refusals.

A study is run by Snakemake (`snakemake --config study=NAME`); these verbs are for all else.
"""
EPILOG = """\b
Exit codes: 0 it is done; 1 what a verb looks for was found (see `holdfast VERB --help`); 2 a mistake in
what was given or is there, said in one block (found, expected, do); 3 a gate is not resolved; 70 a fault of ours;
130 interrupted.
\b
Completion in bash: eval "$(_HOLDFAST_COMPLETE=bash_source holdfast)"
"""


class Verbs(click.Group):
    """The verbs, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, imported now; None where there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"holdfast.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was asked for, its command and the rest of the words.

        Raises:
            UsageError: there is no such verb; names the nearest.
        """
        name = args[0]
        if name in VERBS or ctx.resilient_parsing:  # as for completion, which has no errors
            return super().resolve_command(ctx, args)
        study = Path("config", f"{name}.yaml").exists()
        raise UsageError(
            f"There is no verb '{name}'.", found=f"holdfast {' '.join(args)}"[:80], expected=" | ".join(VERBS),
            do=f"holdfast table {name}" if study else meant(name, VERBS, "holdfast --help"),
        )  # fmt: skip


@click.group(cls=Verbs, help=HELP, epilog=EPILOG, no_args_is_help=False, context_settings={"max_content_width": 110})
@click.version_option(__version__, message="holdfast %(version)s")
def holdfast() -> None:
    pass


def _fault() -> int:
    """What is neither a mistake (2) nor a verdict (1 and 3 of `gate`) keeps its traceback and has a code of its own."""
    traceback.print_exc()
    return FAULT


def main(arguments: list[str] | None = None) -> int:
    """Console entry; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = holdfast.main(given or ["--help"], prog_name="holdfast", standalone_mode=False)
        return int(code or 0)
    except HoldfastError as error:
        click.echo(error.block(), err=True)
        return error.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "holdfast"
        wrong = UsageError(
            f"{error.format_message().rstrip('.')}.", found=" ".join(["holdfast", *given])[:120],
            expected=error.ctx.get_usage().removeprefix("Usage: ") if error.ctx else "", do=f"{where} --help",
        )  # fmt: skip
        click.echo(wrong.block(), err=True)
        return wrong.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "holdfast").split(".")[0] == "holdfast":
            return _fault()
        lacking = UsageError(
            f"This verb needs a package that is not installed: {error.name}.", found="holdfast without its extras",
            expected="the workflow's packages", do="pip install 'holdfast[pipeline,tracking]'",
        )  # fmt: skip
        click.echo(lacking.block(), err=True)
        return lacking.exit_code
    except click.Abort:  # Ctrl-C, as the shell has it
        return INTERRUPTED
    except Exception as error:
        if wrong_place := files.no_room(error) or files.no_place(error, given):
            click.echo(wrong_place.block(), err=True)
            return wrong_place.exit_code
        return _fault()
    except SystemExit as left:  # completion is done, or whoever reads has seen enough (`| head`): as the shell has it
        return 141 if left.code == 1 else int(left.code or 0)
