"""The fenced blocks of the pages: what each is, whether it runs, and what it should print.

A block that cannot run says why in a comment on the line above: `<!-- not run: needs a cluster -->`, or which test
runs it: `<!-- run by tests/... -->`. A `text` block right below one that runs is what it prints, `...` standing for
anything. A block below a line that is only a file's name in backticks and a colon is that file.
"""

from __future__ import annotations

import doctest
import re
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import ROOT

from holdfast.documents import site

FENCE = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`:\n\n)?(?:^<!-- (?P<mark>(?:not run|run by)[^>]*) -->\n)?"
    r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
RUN = ("sh", "python")
KNOWN = (*RUN, "text", "yaml", "json")
WRITTEN_ELSEWHERE = ("errors.md",)  # of blocks that tests/bad_input.py makes and tests


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    file: str
    prints: str | None = None

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.mark and not self.file

    def wrong(self, said: str) -> str:
        """What it printed where that is not what its page says."""
        if self.prints is None:
            return ""
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        # After a line of dots the checker wants anything, also nothing.
        same = doctest.OutputChecker().check_output(re.sub(r"\A\.\.\.\n", "...", self.prints), said, flags)
        return "" if same else f"the page says:\n{self.prints}\nit printed:\n{said}"


def blocks(page: str, text: str) -> list[Block]:
    """All of a page, in order."""
    found: list[Block] = []
    end = 0
    for m in FENCE.finditer(text):
        if m["language"] == "text" and found and found[-1].runs and not m["file"] and not text[end : m.start()].strip():
            found[-1] = replace(found[-1], prints=m["text"])
        else:
            line = text.count("\n", 0, m.start("language")) + 1
            found.append(Block(page, line, m["language"], m["text"], m["mark"] or "", m["file"] or ""))
        end = m.end()
    return found


def of_all_pages() -> dict[str, list[Block]]:
    """Place on the site -> its blocks."""
    pages = {name: path for name, path in site.pages(ROOT).items() if name not in WRITTEN_ELSEWHERE}
    return {name: blocks(str(path.relative_to(ROOT)), path.read_text()) for name, path in pages.items()}


def unsaid(block: Block) -> str:
    """Why a block may not stand as it does: nothing runs it, and it does not say why."""
    if block.language not in KNOWN:
        return f"its language is none of {', '.join(KNOWN)}"
    kind, _, rest = block.mark.partition(":")
    if kind == "not run" and len(rest.split()) < 3:
        return "it gives no reason"
    if block.mark.startswith("run by"):
        path = Path(ROOT, block.mark.removeprefix("run by").strip())
        if not path.is_file() or Path(block.page).name not in path.read_text():
            return "the test that it names does not read this page"
    return ""
