"""Resolve every dependency anew, run everything with what comes out, and show what changed: `make upgrade`.

    python tests/upgrade.py [--resolve-only]

The new versions are tried in an environment of their own. Only when `make check` and `make test` pass there do they
become constraints.txt; otherwise they stay in constraints.new.txt, beside what failed. torch and uv are raised by hand,
in constraints.txt, before: builds of torch differ by machine.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

VENV, NEW, OLD = ".venv-upgrade", Path("constraints.new.txt"), Path("constraints.txt")
HEAD = "# The exact versions CI passed with (Python {}). torch and uv are installed first, by pip.\n"
EXTRAS = "dev,harness,crate,qlora,ssh,s3,slurm,site"


def pins(text: str) -> dict[str, str]:
    """Name -> version of a list of pins; what is local to a build of torch is left out.

    >>> pins("# head\\nTorch==2.13.0+cpu\\nsix==1.17.0\\n")
    {'torch': '2.13.0', 'six': '1.17.0'}
    """
    return {n.lower(): v for n, v in re.findall(r"^([A-Za-z0-9._-]+)==([^\s+]+)", text, re.M)}


def changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What to tell: raised, lowered, added and removed, a line each.

    >>> changed({"a": "1", "b": "1"}, {"a": "2", "c": "1"})
    ['a 1 -> 2', 'b 1 -> removed', 'c added -> 1']
    """
    names = sorted(old.keys() | new.keys())
    return [f"{n} {old.get(n, 'added')} -> {new.get(n, 'removed')}" for n in names if old.get(n) != new.get(n)]


def run(*command: str) -> int:
    sys.stderr.write(f"$ {' '.join(command)}\n")
    return subprocess.run(command).returncode


def resolve() -> dict[str, str]:
    """The newest versions that fit pyproject.toml, installed in VENV."""
    first = [f"{n}=={v}" for n, v in pins(OLD.read_text(encoding="utf-8")).items() if n in ("torch", "uv")]
    python = f"{VENV}/bin/python"
    for command in ([sys.executable, "-m", "venv", "--clear", VENV], [python, "-m", "pip", "install", "-q", *first],
                    [f"{VENV}/bin/uv", "pip", "install", "-q", "--python", python, "--upgrade", first[0],
                     "-e", f".[{EXTRAS}]"]):  # fmt: skip
        if code := run(*command):
            sys.exit(code)
    (Path(VENV) / "installed").touch()  # what make looks at: it must not install the old versions over the new
    freeze = [f"{VENV}/bin/uv", "pip", "freeze", "--python", python, "--exclude-editable"]
    return pins(subprocess.run(freeze, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolve-only", action="store_true", help="show what would change and stop")
    only = parser.parse_args().resolve_only
    before, after = pins(OLD.read_text(encoding="utf-8")), resolve()
    version = ".".join(map(str, sys.version_info[:2]))
    NEW.write_text(HEAD.format(version) + "".join(f"{n}=={after[n]}\n" for n in sorted(after)), encoding="utf-8")
    lines = changed(before, after) or ["nothing"]
    failed = [] if only else [what for what in ("check", "test") if run("make", what, f"VENV={VENV}")]
    sys.stdout.write("\n".join(["changed:", *(f"  {line}" for line in lines)]) + "\n")
    if failed:
        sys.stdout.write(f"failed with these versions ({NEW}): {', '.join(f'make {what}' for what in failed)}\n")
        return 1
    if only:
        sys.stdout.write(f"not tried: {NEW}\n")
        return 0
    NEW.replace(OLD)
    sys.stdout.write(
        f"{OLD} is new; add what it says of snakemake, dvc and mlflow to src/holdfast/engines/versions.py\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
