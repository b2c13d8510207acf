"""No measured number is typed: in the pages of the site it is written from a file, or it stands below with a reason."""

from __future__ import annotations

import csv
import re

import pytest
from conftest import ROOT

from holdfast.documents import cited, site

# Written by holdfast as a whole, or a diary, whose entries stay as they were.
WHOLE = ("methods.md", "which-remedy.md", "api.md", "study-keys.md", "errors.md", "parity.md")
DIARIES = ("decisions.md", "changelog.md")
PAGES = {name: path for name, path in site.pages(ROOT).items() if name not in WHOLE + DIARIES}
WRITTEN = re.compile(
    rf"{cited.NUMBER.pattern}|{cited.TABLE.pattern}|<!-- (?P<mark>[a-z]+) -->.*?<!-- /(?P=mark) -->", re.S
)
MEASURED = re.compile(
    r"[\d.,]*\d ?%|[\d.,]*\d (?:ms|s|seconds?|min|minutes?|hours?|[kMG]B|GFLOP/s|points)\b"
    r"|[\d.,]*\d ?[×x](?! ?\d|\w)|\d \[[−+]?\d|\b(?:p|kappa) =? ?\d[\d.e-]*"
)
CONFIDENCE = re.compile(r"95 %(?=\s+(?:intervals?|over)\b)")
GPU = "what a GPU has"
TARGET, PUBLISHED, DEFINED, SETTING = "what was aimed at", "published by others", "a definition", "a setting"
# Page -> words of it, with a number that was not measured here -> what it is instead.
ALLOWED: dict[str, dict[str, str]] = {
    "cluster.md": {"(at least 1 GB)": DEFINED, "four GPUs of 80 GB": GPU, "two of 141 GB": GPU},
    "curves.md": {"at most 1, 3 or 5 points": DEFINED, '"within 3 points"': DEFINED},
    "gate.md": {
        "exactly five points from 100 %": DEFINED, "Near 0 and 100 %": DEFINED, "1.5 is from 50 to 82 %": DEFINED,
        "5.03 points with 58": "the formula before it", "at a rate of 50 %": SETTING, "5 % is nearly reached": DEFINED,
        "300 prompts, at 99.5 %": SETTING, "At 6 %": SETTING,
    },
    "lead.md": {
        "safety mixing 1.1 ×": DEFINED, "not more than 5 points": TARGET, "with 2 % of refusals": SETTING,
        "at most 1.10 × plain": TARGET, ", 1.30 × at 4": TARGET, "at most 1.5 × plain": TARGET,
    },
    "mlflow.md": {"above 80 %": DEFINED},
    "own-models.md": {"1 GB a matrix": DEFINED},
    "performance.md": {
        "2 to 2.5 ×)": PUBLISHED, "target supposed 3.7 ×": TARGET, "published: 53 s": PUBLISHED,
        "and 708 s on a GPU": PUBLISHED, "published 53 s and 708 s": PUBLISHED, "400 to 536 s": PUBLISHED,
        "≤ 150 s": TARGET, "jobs that sleep 0.3 s": SETTING,
    },
    "real/README.md": {"comes near 90 %": TARGET, "At most 4 GB was the aim": TARGET},
    "report.md": {
        "at least 90 % of": DEFINED, "less than 10 points": DEFINED, "less than 5 points": DEFINED,
        "at most 2.5 MB": DEFINED,
    },
    "results.md": {"within 3 points": DEFINED, "among the 600 (1 %)": SETTING, "WaRP with 30 % frozen": SETTING},
}  # fmt: skip


def left(text: str, phrases: tuple[str, ...] = ()) -> list[str]:
    """Numbers that look measured, outside code and what is written from files."""
    for pattern in (site.CODE, WRITTEN, CONFIDENCE, *map(re.compile, map(re.escape, phrases))):
        text = pattern.sub(lambda m: "·" * ("\n" not in m[0]) + "\n" * m[0].count("\n"), text)
    return [f"{i}: {m[0]}" for i, line in enumerate(text.splitlines(), 1) for m in MEASURED.finditer(line)]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_no_measured_number_is_typed(name):
    allowed = ALLOWED.get(name, {})
    text = PAGES[name].read_text()
    assert left(text, tuple(allowed)) == [], "put it into docs/numbers/ with how it was measured, and cite it"
    assert [p for p in allowed if p not in text] == [], "allowed, and not there any more"


def test_the_forms_of_measured_numbers_are_seen_and_written_ones_are_not():
    typed = "It took 17 s and 1.2x, 3.0 MB, 81 % of it, 1.11 × plain, 4 points, 0.5 [0.1, 0.9], p = 0.03, in 9 min."
    assert len(left(typed)) == 9
    written = (
        "<!-- = time -->[17 s](a.csv)<!-- / --> of `17 s`, 95 % intervals\n<!-- results -->\n17 s\n<!-- /results -->\n"
        "<!-- table a.csv -->\n| 17 s |\n<!-- /table -->\n4 × 128 × 1 tokens\n```sh\n17 s\n```\n"
    )
    assert left(written) == []
    assert left(written + typed)[0].startswith("12: ") and left("in 17 s.", ("in 17 s",)) == []


def test_every_record_says_how_and_is_used():
    used = "".join(p.read_text() for p in site.pages(ROOT).values())
    for path in (ROOT / "docs/numbers").glob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if "how" not in rows[0]:
            assert f"<!-- table numbers/{path.name} -->" in used, path.name
            continue
        for row in rows:
            assert all(row[k] for k in ("what", "value", "how")), row
            asked = rf"<!-- = (?:{path.stem}/)?{re.escape(row['what'])}(?: value)? -->"
            assert re.search(asked, used), f"{path.name}: nothing cites {row['what']}"


def test_no_line_begins_with_a_comment_before_words():
    """GitHub shows such a line as it stands, links and all."""
    for name, path in site.pages(ROOT).items():
        assert not re.findall(r"^ *(?:[-*] )?<!-- = .*", path.read_text(), re.M), name
