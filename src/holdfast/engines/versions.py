"""The versions whose insides holdfast was tested with, and one block for any other.

Snakemake's metadata records, DVC's object layout and MLflow's database are nobody's promise: they may change with any
release, and reading them wrong would say that something is in order which is not.
"""

from __future__ import annotations

from importlib.metadata import version

from holdfast.errors import EngineError

# Every release CI has passed with, oldest first; the last one is that of constraints.txt, which a test holds it to.
TESTED = {"snakemake": ("9.27.1",), "dvc": ("3.67.1",), "mlflow": ("3.17.2",)}


def refuse(engine: str, what: str, *, found: str, expected: str) -> EngineError:
    """The error for insides of an engine that are not as the tested versions make them."""
    return EngineError(
        f"{what} not as holdfast knows it.", found=f"{found} ({engine} {version(engine)})",
        expected=f"{expected} (tested with {engine} {', '.join(TESTED[engine])})",
        do=f"pip install -c constraints.txt {engine}",
    )  # fmt: skip


def check(engine: str, what: str) -> None:
    """Refuse an engine of another major version than was tested; `what` says in its error what would be read.

    Raises:
        EngineError: names what was found, what was expected and which versions were tested.
    """
    known = {release.split(".")[0] for release in TESTED[engine]}
    if version(engine).split(".")[0] not in known:
        raise refuse(engine, f"{what} perhaps", found="another major version", expected=" or ".join(sorted(known)))
