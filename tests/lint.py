"""Two looks of `make check` that need more than a command: dead code, where rules use what Python alone does not, and
Snakemake's own linter with what is switched off in it.

    python tests/lint.py
"""

from __future__ import annotations

import ast
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


STRINGS = re.compile(r'"""(?:.|\n)*?"""|#.*|(?<!f)"(?:[^"\\\n]|\\.)*"')
# Hooks that are called by their names: of methods, judges and datasets, and the command of a verb.
CALLED = {
    "methods": {"KIND", "NEEDS", "LEARNING_RATE", "CARD", "Settings", "rows", "prelude", "attach", "optimizer",
                "extra_loss", "after_step", "beside", "low_rank", "fold", "prepare", "merge", "merge_factor",
                "system_prompt"},
    # for code of other people
    "merge": {"lssf", "nlsr", "ptst", "resta", "resta_dare", "safe_lora", "safe_delta", "somf", "soup", "task_vectors"},
    "judges": {"KIND", "OUTCOMES", "SOURCE", "VERSION", "WORDS", "Settings", "opinion", "encode", "read", "ask"},
    "data": {"COLUMNS", "TEXT_COLUMNS", "METRIC", "INSTRUCTION", "HUB_ID", "HUB_CONFIG", "FOLDER", "CSV_HEADER",
             "READS", "PARTS", "SCORER", "example", "score", "real_row"},
    "cli": {"command", "main"},
    "documents": {"on_files", "on_page_markdown"},  # by MkDocs
}  # fmt: skip


def words_of_the_rules() -> str:
    """Every identifier of the Snakefile and the rules outside comments and plain strings, as Python that uses it."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in [Path("Snakefile"), *sorted(Path("rules").glob("*.smk"))])
    found = set(re.findall(r"[A-Za-z_]\w*", STRINGS.sub("", text)))
    return "\n".join(sorted(w for w in found if not keyword.iskeyword(w))) + "\n"


def dead_code() -> int:
    """vulture over the library, the stages and the benchmarks; what is kept is listed in pyproject.toml."""
    with tempfile.TemporaryDirectory() as folder:
        used = Path(folder) / "rules.py"
        used.write_text(words_of_the_rules(), encoding="utf-8")
        return subprocess.run([BIN / "vulture", "src", "scripts", "benchmarks", "examples", used]).returncode


def _names(tree: ast.AST, own: str) -> set[tuple[str, str]]:
    """(module, name) of everything of holdfast that a file uses; `own` is the file's module."""
    aliases, used = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "holdfast":
            for a in node.names:
                used.add((node.module, a.name))
                aliases[a.asname or a.name] = f"{node.module}.{a.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            used.add((aliases[node.value.id], node.attr))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add((own, node.id))
    return used


def unused() -> int:
    """Definitions of the library's modules that nothing names, also where something else has the same name: vulture
    looks at bare names only. What a definition says of itself does not count."""
    source, wrong, used, defined = Path("src/holdfast"), [], set(), {}
    for path in [*sorted(source.rglob("*.py")), *Path("scripts").glob("*.py"), *Path("benchmarks").glob("*.py"),
                 *Path("examples").glob("*.py"), *Path("parity").glob("*.py")]:  # fmt: skip
        inside = path.is_relative_to(source)
        parts = [p for p in path.relative_to(source).with_suffix("").parts if p != "__init__"] if inside else []
        own = ".".join(["holdfast", *parts]) if inside else str(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            targets = [t for t in getattr(node, "targets", [getattr(node, "target", None)]) if isinstance(t, ast.Name)]
            names = {t.id for t in targets} | ({node.name} if hasattr(node, "name") else set())
            used |= {(module, name) for module, name in _names(node, own) if not (module == own and name in names)}
            if inside and not getattr(node, "decorator_list", []):
                defined |= {(own, name): path for name in names if name not in CALLED.get(path.parent.name, ())}
        used |= {(module, name) for module, name in _names(tree, own) if module != own}
    ruled = set(words_of_the_rules().split())
    for (module, name), path in sorted(defined.items()):
        if (module, name) not in used and name not in ruled and not name.startswith("__"):
            wrong.append(f"{path}: nothing uses {name}")
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return int(bool(wrong))


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
    sys.exit(max([dead_code(), unused(), rules()]))
