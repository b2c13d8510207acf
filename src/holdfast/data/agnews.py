"""AG News: classify a headline into World, Sports, Business or Sci/Tech (Zhang et al., 2015).

Hub id `fancyzhx/ag_news`. Local files are CSV with the columns of the original release (class index
1-4, title, description, without a header line) or with a header `text,label` (label 0-3), or parquet
with text and label.
"""

from __future__ import annotations

import html
import re
from typing import Any

from holdfast import data, names

LABELS = ("World", "Sports", "Business", "Sci/Tech")
COLUMNS = ("text", "label")
TEXT_COLUMNS = ("text",)
METRIC = names.ACCURACY
INSTRUCTION = "Which topic is this news about: World, Sports, Business or Sci/Tech?"
HUB_ID, HUB_CONFIG = "fancyzhx/ag_news", None

_MENTION = {
    "World": re.compile(r"\bworld\b", re.I),
    "Sports": re.compile(r"\bsports?\b", re.I),
    "Business": re.compile(r"\bbusiness\b", re.I),
    "Sci/Tech": re.compile(r"\b(?:sci\s*/\s*tech|sci-tech|science|technology)\b", re.I),
}


def example(row: dict[str, Any], instruction: str | None = None) -> tuple[str, str]:
    """(prompt, response): the instruction, the news and one label word."""
    return f"{(instruction or INSTRUCTION).strip()}\nNews: {row['text']}", LABELS[int(row["label"])]


def parse_label(text: str) -> str | None:
    """The label that is mentioned first; None if none is (counted as invalid, never as correct)."""
    found = [(m.start(), label) for label, pattern in _MENTION.items() if (m := pattern.search(text))]
    return min(found)[1] if found else None


def score(text: str, row: dict[str, Any]) -> dict[str, Any]:
    label = parse_label(text)
    return {
        "correct": label == LABELS[int(row["label"])],
        "invalid": label is None,
        "parsed": label or "",
        "gold": LABELS[int(row["label"])],
    }


# Entities that lost their ampersand: the release wrote a space where the `&` was, which at the beginning is gone.
_LOST_AMPERSAND = re.compile(r"(?:^|[ &])(#\d{1,5};|(?:quot|amp|lt|gt|nbsp|hellip|mdash|ndash);)")
# A tag of HTML, perhaps with attributes: not a ticker (`<A.N>`), not what stands between two signs (`a<b and c>d`).
_TAG = re.compile(
    r"</?(?:a|b|i|u|p|br|em|strong|font|img|div|span|table|tr|td|li|ul|hr|h\d)"
    r"(?:\s+[\w:-]+\s*=\s*(?:\"[^\"]{0,500}\"|'[^']{0,500}'|[^\s\"'<>]{1,500}))*\s*/?>",
    re.I,
)


def clean(text: str) -> str:
    """Undo the release's escapes: `\\` stands for a line break (`\\$` for a dollar), entities are HTML.

    A stock ticker in angle brackets is text and stays; markup goes.
    """
    text = text.replace("\\$", "$").replace('\\"', '"').replace("\\", " ")
    text = html.unescape(html.unescape(_LOST_AMPERSAND.sub(r"&\1", text)))
    return re.sub(r"\s+", " ", _TAG.sub(" ", text)).strip()


def real_row(raw: dict[str, Any]) -> dict[str, Any]:
    """A raw row -> {text, label}. The release's headerless CSV has class index 1-4, title, description."""
    if "class" in raw:
        title, description = data.text(raw, "title"), data.text(raw, "description")
        return {"text": clean(f"{title}. {description}"), "label": data.integer(raw, "class") - 1}
    return {"text": clean(data.text(raw, "text")), "label": data.integer(raw, "label")}


CSV_HEADER = ("class", "title", "description")
FOLDER = "ag_news"
