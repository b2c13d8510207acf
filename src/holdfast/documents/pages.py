"""The generated files of the project, and which of them are not as they would be written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from holdfast.archive import remote
from holdfast.documents import catalogue, cited, figures, house, interface, reference, remedies, tables
from holdfast.errors import UsageError
from holdfast.record import csvfiles, files
from holdfast.report import tabular
from holdfast.study import keys, resolve

_SHOWN = 20  # lines of a difference
BRIEF = ("refused", "over-refusal", "utility")  # columns where one table has every task
SHORT = ("agnews", "notes")  # tasks of the real model on the front page; it does not learn the third


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
    listed, docs = root / "config" / "README.md", root / "docs"
    filled = {root / name: cited.filled(root / name, docs, _text(root / name)) for name in cited.pages(root)}
    for (name, mark), text in _marked(docs).items():
        path = root / name
        filled[path] = _between(filled.get(path) or _text(path), mark, text)
    return filled | {
        listed: reference.page(root / "config", _text(listed) if check else None),
        root / "config" / "schema.json": keys.json_schema(),
        docs / "methods.md": catalogue.page(),
        docs / "which-remedy.md": remedies.page(docs),
        **{docs / "concepts" / f"{name}.svg": draw() for name, draw in figures.DRAWN.items()},
        docs / "api.md": interface.page(root / "src"),
        root / "dvc.yaml": remote.definition(resolve.load(remote.DEMO, root / "config"), root),
        root / "CONTRIBUTING.md": _between(_text(root / "CONTRIBUTING.md"), "wings", house.table(root)),
    }


def _marked(docs: Path) -> dict[tuple[str, str], str]:
    """(page, mark) -> the text between the marks, from the result files below docs/."""
    demo, claims, curves, ranks, risk, ablation, variance, truncated, more, order, attack, elsewhere = (
        csvfiles.read_csv(docs / f"demo/{name}.csv")
        for name in (
            "replicated", "replicated-claims", "curves", "ranks", "risk", "ablation-agnews", "variance", "truncated",
            "all", "order", "attack", "other-world",
        )
    )  # fmt: skip
    newer, newer_ranks = (csvfiles.read_csv(docs / f"demo/{name}-methods.csv") for name in ("curves", "ranks"))
    real, suites, trial, spiced, unprompted, newer_real, travelled = (
        csvfiles.read_csv(docs / f"real/{name}.csv")
        for name in ("table", "suites", "trial", "risk", "unprompted", "all", "travel")
    )
    learned = [r for r in real if r["task"] in SHORT]
    return {
        ("README.md", "real"): tabular.overview(learned, BRIEF),
        ("README.md", "claims"): f"{tabular.verdicts(claims)}\n",
        ("docs/five-minutes.md", "crafts"): tabular.markdown(
            [r for r in demo if r["task"] == "crafts" and r["arm"] in tables.MAIN]
        ),
        ("docs/commands.md", "targets"): tables.targets(_text(docs.parent / "Makefile")),
        ("docs/results.md", "results"): tabular.overview(demo),
        ("docs/results.md", "claims"): f"{tabular.verdicts(claims)}\n",
        ("docs/results.md", "ablation"): tables.plain(ablation, tables.ABLATION, "agnews"),
        ("docs/results.md", "more"): tabular.overview(
            [r for r in more if r["arm"] in tables.MORE and r["task"] != "gsm8k"],
            BRIEF,
        ),
        ("docs/results.md", "other-world"): tabular.overview(elsewhere),
        ("docs/results.md", "risk"): tables.shares(risk),
        ("docs/forgetting.md", "order"): tabular.overview(order),
        ("docs/attack.md", "results"): tables.attacked(attack),
        ("docs/curves.md", "results"): tabular.equal_utility(curves),
        ("docs/curves.md", "ranks"): tabular.ranks(ranks),
        ("docs/curves.md", "newer"): tabular.equal_utility(newer),
        ("docs/curves.md", "newer-ranks"): tabular.ranks(newer_ranks),
        ("docs/performance.md", "truncated"): tables.truncated(truncated),
        ("docs/variance.md", "results"): tables.spreads(variance),
        ("docs/lead.md", "results"): tables.areas(curves, tables.LEAD),
        ("docs/lead.md", "real"): tabular.overview([r for r in real if r["arm"] in tables.LEAD_REAL], BRIEF),
        ("docs/real/README.md", "results"): tabular.markdown(real) + tabular.suites(suites),
        ("docs/real/README.md", "trial"): tabular.overview(trial, BRIEF),
        ("docs/real/README.md", "risk"): tabular.overview(spiced, BRIEF),
        ("docs/real/README.md", "unprompted"): tabular.overview(unprompted, BRIEF),
        ("docs/real/README.md", "all"): tabular.overview(newer_real, BRIEF),
        ("docs/real/README.md", "travel"): tabular.overview(travelled, BRIEF),
        ("docs/real/README.md", "mixes"): tables.mixes(csvfiles.read_csv(docs / "real/mixes.csv")),
        ("docs/real/README.md", "claims"): f"{tabular.verdicts(csvfiles.read_csv(docs / 'real/claims.csv'))}\n",
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
