"""Which files are pages of the site, and where a link of a page leads there. MkDocs calls the two hooks at the end.

Pages are the Markdown files of docs/, and those in `BESIDE`. Their links are those of the repository, so that they can
be read there too; a link to a file that is no page takes the file along, below files/: the site is whole by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A page beside docs/ -> its place on the site.
BESIDE = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
    "config/README.md": "study-keys.md", "examples/README.md": "optimizer.md",
    "parity/README.md": "parity.md",
}  # fmt: skip
CARRIED = "files"  # its folder of files that are linked to
CODE = re.compile(r"^( *)(`{3,}).*?^\1\2`*\s*?$|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s]+)")
# Looked up last: diaries, which have every word, and blocks that repeat the same ones.
LAST = dict.fromkeys(("decisions.md", "changelog.md", "errors.md"), {"boost": 0.3})
PICTURE = re.compile(r"^!\[[^\]]*\]\((?P<target>[^)\s]+)\)$", re.M)  # one that stands alone
NUMBERED = re.compile(r"<!-- (?:= .+?|/) -->")  # around a number that is written from a file


def pages(root: Path) -> dict[str, Path]:
    """Place on the site -> file, of every page."""
    docs = root / "docs"
    return {str(p.relative_to(docs)): p for p in sorted(docs.rglob("*.md"))} | {
        place: root / name for name, place in BESIDE.items()
    }


def _outside_code(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    inside = [m.span() for m in CODE.finditer(text)]
    for found in pattern.finditer(text):
        if not any(start <= found.start() < end for start, end in inside):
            yield found


def links(text: str) -> Iterator[re.Match[str]]:
    """Every link and picture of a page outside code; its target is the group `target`."""
    return _outside_code(LINK, text)


def target(root: Path, page: Path, link: str) -> tuple[Path | None, str]:
    """(file, anchor) that a link of a page means; no file where it leads to the web."""
    if re.match(r"[a-z]+:", link):
        return None, ""
    name, _, anchor = link.partition("#")
    return ((page.parent / name).resolve() if name else page.resolve()), anchor


def place(root: Path, file: Path) -> str:
    """Where a file of the repository is on the site."""
    name = str(file.relative_to(root))
    if name in BESIDE:
        return BESIDE[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{CARRIED}/{name}"


def carried(root: Path) -> list[Path]:
    """Files beside docs/ that are linked to and are no pages."""
    files = set()
    for page in pages(root).values():
        for found in links(page.read_text(encoding="utf-8")):
            file, _ = target(root, page, found["target"])
            if file is not None and file.is_file() and place(root, file).startswith(f"{CARRIED}/"):
                files.add(file)
    return sorted(files)


def rewritten(root: Path, page: Path, text: str) -> str:
    """The text of a page with its links as they are on the site."""
    here, changes = Path(place(root, page)).parent, {m.span(): "" for m in _outside_code(NUMBERED, text)}
    for found in links(text):
        file, anchor = target(root, page, found["target"])
        if file is not None and file != page.resolve():
            changes[found.span()] = os.path.relpath(place(root, file), here) + (f"#{anchor}" if anchor else "")
    pieces, done = [], 0
    for (start, end), new in sorted(changes.items()):
        pieces += [text[done:start], new]
        done = end
    return "".join([*pieces, text[done:]])


def opened(text: str) -> str:
    """The text with every picture that stands alone as a link to its file, where small letters are large.

    >>> opened("![a plot](x.png)")
    '[![a plot](x.png)](x.png)'
    """
    for found in reversed(list(_outside_code(PICTURE, text))):
        text = f"{text[: found.start()]}[{found[0]}]({found['target']}){text[found.end() :]}"
    return text


# ---- called by MkDocs -----------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the pages beside docs/ and what they link to."""
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent.resolve()
    for file in [*(root / name for name in BESIDE), *carried(root)]:
        added = File.generated(config, place(root, file), abs_src_path=str(file))
        files.append(added)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the links of the repository into those of the site, and pictures into links; have diaries found last."""
    root = Path(config.config_file_path).parent.resolve()
    if page.file.src_uri in LAST:
        page.meta["search"] = LAST[page.file.src_uri]
    return opened(rewritten(root, Path(page.file.abs_src_path).resolve(), markdown))
