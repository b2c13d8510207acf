"""A copy of the project, and what Snakemake and the project's commands say in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import soak


def snakemake(folder: Path, *arguments: str, study: str = "smoke", **kwargs):
    return subprocess.run(
        [soak.SNAKEMAKE, "--config", f"study={study}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        **kwargs,
    )


def planned(folder: Path, *targets: str, flags: tuple[str, ...] = (), study: str = "smoke") -> dict[str, int]:
    """{rule: jobs} of a dry run; empty when there is nothing to do."""
    out = snakemake(folder, "-n", *flags, "--quiet", "rules", "--", *targets, study=study)
    text = out.stdout + out.stderr
    assert out.returncode == 0, text
    if "Nothing to be done" in text:
        return {}
    table = text[text.index("job") :]
    return {m[1]: int(m[2]) for m in re.finditer(r"^(\w+)\s+(\d+)$", table, re.M) if m[1] not in ("all", "total")}


def finished(folder: Path, *arguments: str, study: str = "smoke") -> Path:
    """A copy of the project in `folder` in which a study has run from nothing."""
    soak.copy_project(folder)
    out = snakemake(folder, "--quiet", "rules", "--", *arguments, study=study)
    assert out.returncode == 0, out.stdout[-5000:] + out.stderr[-5000:]
    return folder


def call(folder: Path, *command: str, code: int | tuple[int, ...] = 0) -> str:
    """What `holdfast` or `dvc` prints, run in a folder; its mistakes too, where it may end with other codes than 0."""
    out = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]], cwd=folder, capture_output=True, text=True,
        env={
            **os.environ, "PYTHONPATH": str(folder / "src"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # as in the activated environment
        },
    )  # fmt: skip
    assert out.returncode in (code if isinstance(code, tuple) else (code,)), out.stdout + out.stderr
    return out.stdout + (out.stderr if code else "")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
