"""What several verbs take: a study by name or path, completed from config/; and what is judged of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)


class _Given(click.Path):
    """A path of a command line: `--out=~/x` keeps its `~`, which shells open only where a word begins."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from holdfast.record import paths

        return super().convert(paths.home(value), param, ctx)


def there(path: Path) -> str:
    """What stands at a place that was to be free."""
    return "a folder" if path.is_dir() else "a file that is there"


PATH = _Given(path_type=Path)
FILE = _Given(exists=True, dir_okay=False, path_type=Path)


def _studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the studies in config/ that begin so."""
    names = (p.stem for p in Path("config").glob("*.yaml") if not p.stem.startswith("chosen"))
    return sorted(n for n in names if n.startswith(incomplete))


def study(**settings: Any) -> Callable[[_Command], _Command]:
    """The argument STUDY: the name of a file in config/ without its ending, or a path."""
    return click.argument("study", shell_complete=_studies, **settings)


def studies() -> Callable[[_Command], _Command]:
    """The argument STUDIES: any number of names."""
    return click.argument("studies", nargs=-1, shell_complete=_studies)


def judged(study: str) -> tuple[Path, list[Path]]:
    """(results folder, metrics.json of every model that is judged) of a study.

    Raises:
        StudyError: none is.
    """
    from holdfast.errors import StudyError
    from holdfast.study import resolve

    resolved = resolve.load(study)
    results = Path("results") / resolved.name
    metrics = [p for place in resolved.judged if (p := results / place / "metrics.json").exists()]
    if not metrics:
        raise StudyError(
            f"Study '{resolved.name}' has no judged answers yet.", found=f"no metrics.json below {results}",
            expected="a finished study", do=f"snakemake --config study={study}",
        )  # fmt: skip
    return results, metrics
