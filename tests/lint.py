"""Two looks of `make check` that need more than a command: dead code, where rules use what Python alone does not, and
Snakemake's own linter with what is switched off in it.

    python tests/lint.py
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(sys.executable).parent
# Titles of Snakemake's lints -> why they do not hold here.
SWITCHED_OFF = {
    "Specify a conda environment or container for each rule.": (
        "one environment for the whole pipeline: constraints.txt says its versions, `make install` makes it; a second "
        "description of it would drift"
    ),
}


def words_of_the_rules() -> str:
    """Every identifier of the Snakefile and the rules, as Python that uses it."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in [Path("Snakefile"), *sorted(Path("rules").glob("*.smk"))])
    return "\n".join(sorted(w for w in set(re.findall(r"[A-Za-z_]\w*", text)) if not keyword.iskeyword(w))) + "\n"


def dead_code() -> int:
    """vulture over the library, the stages and the benchmarks; what is kept is listed in pyproject.toml."""
    with tempfile.TemporaryDirectory() as folder:
        used = Path(folder) / "rules.py"
        used.write_text(words_of_the_rules(), encoding="utf-8")
        return subprocess.run([BIN / "vulture", "src", "scripts", "benchmarks", used]).returncode


def rules() -> int:
    """`snakemake --lint`, without what is switched off."""
    done = subprocess.run([BIN / "snakemake", "--lint"], capture_output=True, text=True)
    said = done.stdout + done.stderr
    found = re.findall(r"^Lints for (.+):$|^    \* (.+):$", said, re.M)
    if not found and done.returncode:
        sys.stderr.write(said)
        return done.returncode
    place, wrong, unused = "", [], set(SWITCHED_OFF)
    for where, title in found:
        place = where or place
        unused.discard(title)
        if title and title not in SWITCHED_OFF:
            wrong.append(f"{place}: {title}")
    wrong += [f"tests/lint.py: nothing is found of '{title}' any more" for title in unused]
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(max([dead_code(), rules()]))
