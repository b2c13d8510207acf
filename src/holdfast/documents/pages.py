"""The generated files of the project, and which of them are not as they would be written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from holdfast.archive import remote
from holdfast.documents import catalogue, house, reference
from holdfast.errors import UsageError
from holdfast.record import csvfiles, files
from holdfast.report import tabular
from holdfast.study import keys, resolve

_SHOWN = 20  # lines of a difference


def _between(page: str, mark: str, text: str) -> str:
    """A page with the part between its marks `<!-- mark -->` replaced."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    head, rest = page.split(start)
    return f"{head}{start}\n{text}{end}{rest.split(end)[1]}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def generated(root: Path, *, check: bool = False) -> dict[Path, str]:
    """Every generated file of the project in `root` and what it should hold.

    Args:
        check: studies that config/README.md does not list are left out, so that a user's own make nothing stale.

    Raises:
        UsageError: `root` is not a checkout. DocumentError: a description is half a sentence.
    """
    if not (root / "Snakefile").is_file() or not (root / "docs/demo").is_dir():
        raise UsageError(
            "The generated files are those of a checkout of holdfast.", found="no Snakefile here",
            expected="its top folder", do="cd to the folder with the Snakefile",
        )  # fmt: skip
    listed = root / "config" / "README.md"
    demo, real, suites = (
        csvfiles.read_csv(root / "docs" / name) for name in ("demo/replicated.csv", "real/table.csv", "real/suites.csv")
    )
    readme = _between(_text(root / "README.md"), "results", tabular.overview(demo))
    claims = csvfiles.read_csv(root / "docs/demo/replicated-claims.csv")
    readme = _between(readme, "claims", f"{tabular.verdicts(claims)}\n")
    curves, ranks = (csvfiles.read_csv(root / f"docs/demo/{name}.csv") for name in ("curves", "ranks"))
    at_equal = _between(_text(root / "docs/curves.md"), "results", tabular.equal_utility(curves))
    in_short = tabular.overview(real, ("refused", "over-refusal", "utility"))
    return {
        listed: reference.page(root / "config", _text(listed) if check else None),
        root / "config" / "schema.json": keys.json_schema(),
        root / "docs" / "methods.md": catalogue.page(),
        root / "dvc.yaml": remote.definition(resolve.load(remote.DEMO, root / "config"), root),
        root / "README.md": _between(readme, "real", in_short),
        root / "docs/curves.md": _between(at_equal, "ranks", tabular.ranks(ranks)),
        root / "docs/real/README.md": _between(
            _text(root / "docs/real/README.md"),
            "results",
            tabular.markdown(real) + tabular.suites(suites),
        ),
        root / "CONTRIBUTING.md": _between(_text(root / "CONTRIBUTING.md"), "wings", house.table(root)),
    }


def stale(root: Path, *, check: bool) -> Iterator[tuple[Path, str]]:
    """(path, first lines of the difference) of every generated file that is not as it should be; without `check` it
    is also written."""
    for path, text in generated(root, check=check).items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old == text:
            continue
        name = path.relative_to(root)
        lines = difflib.unified_diff(old.splitlines(), text.splitlines(), str(name), "generated", lineterm="", n=0)
        if not check:
            files.write_text(path, text)
        yield name, "\n".join(list(lines)[:_SHOWN])
