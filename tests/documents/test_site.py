"""The site: every page is in its menu, links and anchors lead somewhere, nothing is loaded, and it builds."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from holdfast.documents import cited, site
from holdfast.errors import DocumentError

CONFIG = yaml.load(re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text()), Loader=yaml.BaseLoader)
PAGES = site.pages(ROOT)
ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe|source|object)\b[^>]*?(?:src|href|data)\s*=\s*[\"']?(?:https?:)?//", re.I
)


def slugs(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    out = set()
    for title in re.findall(
        r"^#{1,6} +(.+?) *#*$", site.CODE.sub(lambda m: m[0].strip("`") if "\n" not in m[0] else "", text), re.M
    ):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        out.add(slug if not found[slug] else f"{slug}-{found[slug]}")
        found[slug] += 1
    return out


def in_the_menu(entries: list) -> list[str]:
    inside = [next(iter(e.values())) if isinstance(e, dict) else e for e in entries]
    return [p for e in inside for p in (in_the_menu(e) if isinstance(e, list) else [e])]


def test_every_page_is_in_the_menu_once():
    assert sorted(in_the_menu(CONFIG["nav"])) == sorted(PAGES)


def test_a_page_that_is_in_no_menu_would_be_noticed(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/new.md").write_text("# New\n")
    assert "new.md" in site.pages(tmp_path) and "new.md" not in in_the_menu(CONFIG["nav"])


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_anchors_and_pictures_of_a_page(name):
    text = PAGES[name].read_text()
    for found in site.links(text):
        link = found["target"]
        file, anchor = site.target(ROOT, PAGES[name], link)
        if file is None:
            continue
        assert file.is_file() and file.is_relative_to(ROOT), link
        if anchor:
            assert file.suffix == ".md" and anchor in slugs(file.read_text()), link
    assert not re.findall(r"!\[\s*\]", text), "a picture without a text"
    assert all(len(alt.split()) >= 3 for alt in re.findall(r"!\[([^\]]*)\]", site.CODE.sub("", text)))
    assert not ELSEWHERE.search(text), "a script, picture or style from elsewhere"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_no_word_in_angle_brackets_is_taken_for_a_tag(name):
    text = site.CODE.sub("", PAGES[name].read_text())
    assert not re.findall(r"<(?!!--|/?sub>)/?[A-Za-z][^>\n]*>", text), "a browser shows nothing: put it into backticks"


def test_pictures_are_files_of_ours_and_drawings_load_nothing():
    for name, path in PAGES.items():
        for link in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", path.read_text()):
            assert not link.startswith("http"), (name, link)
    for path in ROOT.glob("docs/concepts/*.svg"):
        tree = ET.parse(path).getroot()
        assert tree.find("{http://www.w3.org/2000/svg}title").text and "href" not in path.read_text(), path


def test_links_become_those_of_the_site():
    page = ROOT / "docs/results.md"
    text = "[a](../config/README.md#x) [b](demo/risk.csv) [c](#here) [d](../Makefile) [e](https://x.org) `[f](../a)`\n"
    assert site.rewritten(ROOT, page, text) == (
        "[a](study-keys.md#x) [b](demo/risk.csv) [c](#here) [d](files/Makefile) [e](https://x.org) `[f](../a)`\n"
    )
    assert site.rewritten(ROOT, ROOT / "docs/real/README.md", "[a](../lead.md)") == "[a](../lead.md)"
    assert site.rewritten(ROOT, ROOT / "README.md", "[a](docs/lead.md)") == "[a](lead.md)"
    number = "<!-- = a.csv b=c d -->[1 %](a.csv)<!-- / --> of `<!-- / -->`"
    assert site.rewritten(ROOT, ROOT / "docs/lead.md", number) == "[1 %](a.csv) of `<!-- / -->`"
    assert ROOT / "src/holdfast/methods/full.py" in site.carried(ROOT)


def test_a_picture_that_stands_alone_leads_to_its_file_and_code_stays():
    text = "![a](x.png)\nSee ![b](y.png) here.\n```text\n![c](z.png)\n```\n![d](w.svg)\n"
    assert site.opened(text) == (
        "[![a](x.png)](x.png)\nSee ![b](y.png) here.\n```text\n![c](z.png)\n```\n[![d](w.svg)](w.svg)\n"
    )


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


# ---- numbers --------------------------------------------------------------------------------------


def page_of(tmp_path: Path, comment: str) -> tuple[Path, str]:
    (tmp_path / "a.csv").write_text(
        "arm,task,x,x_low,x_high,effect,low,high\nw,t,0.117,0,0.334,-0.0173,-0.0523,0.018\nf,t,,,,,,\n"
    )
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers/p.csv").write_text("what,value,low,high,unit,how\ntime,17,16,18,s,by the clock\n")
    (tmp_path / "numbers/t.csv").write_text('what,case,ours / plain,\none,a,"1.1 [1, 2]",1 x\ntwo,,,fast\n')
    page = tmp_path / "p.md"
    return page, cited.filled(page, tmp_path, f"It is <!-- = {comment} -->old<!-- / -->.")


@pytest.mark.parametrize(
    ("comment", "written"),
    [("a.csv arm=w x", "[12 %](a.csv) [0, 33]"), ("a.csv arm=w x %", "[12 %](a.csv)"),
     ("a.csv arm=w x number", "[12](a.csv)"),
     ("a.csv arm=w effect points.1", "[−1.7](a.csv) [−5.2, 1.8]"), ("a.csv arm=w effect points", "[−2](a.csv) [−5, 2]"),
     ("a.csv arm=w x text", "[0.117](a.csv)"), ("a.csv arm=w x digits.2", "[0.12](a.csv)"),
     ("p/time", "[17 s](numbers/p.csv) [16, 18]"), ("time", "[17 s](numbers/p.csv) [16, 18]"),
     ("time value", "[17](numbers/p.csv)"), ("numbers/t.csv what=one ours_/_plain first", "[1.1](numbers/t.csv)")],
)  # fmt: skip
def test_a_number_is_written_from_its_file(tmp_path, comment, written):
    assert page_of(tmp_path, comment)[1] == f"It is <!-- = {comment} -->{written}<!-- / -->."


@pytest.mark.parametrize(
    "comment",
    ["b.csv arm=w x", "a.csv task=t x", "a.csv arm=f x", "a.csv arm=w y", "a.csv arm=w x many", "tim", "q/time",
     "time rate", "a.csv arm=w x value"],
)  # fmt: skip
def test_a_number_that_is_not_to_be_found_is_refused(tmp_path, comment):
    with pytest.raises(DocumentError, match="not to be found"):
        page_of(tmp_path, comment)


def test_a_table_is_written_from_its_file_without_its_keys(tmp_path):
    page, _ = page_of(tmp_path, "time")
    text = cited.filled(page, tmp_path, "a\n<!-- table numbers/t.csv -->\nold\n<!-- /table -->\nb")
    assert text == (
        "a\n<!-- table numbers/t.csv -->\n\n| case | ours / plain |  |\n|---|--:|---|\n| a | 1.1 [1, 2] | 1 x |\n"
        "|  |  | fast |\n\n<sub>[t.csv](numbers/t.csv)</sub>\n<!-- /table -->\nb"
    )
    with pytest.raises(DocumentError, match="not to be found"):
        cited.filled(page, tmp_path, "<!-- table numbers/u.csv --><!-- /table -->")


def test_numbers_beside_intervals_are_all_written_from_files():
    """In the pages of results an interval stands only where `holdfast documents` writes it."""
    for name in ("docs/results.md", "docs/real/README.md", "README.md"):
        text = re.sub(r"<!-- (= .+?|[a-z]+|table \S+) -->.*?<!-- /\w* ?-->", "", (ROOT / name).read_text(), flags=re.S)
        assert not re.findall(r"\d+ ?%? \[[−\d]", text), name


# ---- built ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    if not all(map(importlib.util.find_spec, ("mkdocs", "material"))):
        pytest.skip("the extra `site` is not installed: pip install -c constraints.txt -e '.[site]'")
    out = tmp_path_factory.mktemp("site")
    # Not with -q: a warning that is not said does not count.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(built):
    pages = sorted(built.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for path in pages:
        assert not ELSEWHERE.search(path.read_text()), path
    assert (built / "assets/iframe-worker.js").is_file() and (built / "search/search_index.js").is_file()
    assert "rotation" in (built / "search/search_index.js").read_text()


def test_files_that_pages_link_to_are_on_the_site(built):
    for page in built.rglob("*.html"):
        for link in re.findall(r'href="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / link).exists() or page.name == "404.html", (page.name, link)


def test_search_finds_a_page_that_was_opened_from_a_file(built, tmp_path):
    import browser

    if browser.CHROMIUM is None:
        pytest.skip("no Chromium here")
    done = subprocess.run(
        [browser.CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=8000", "--dump-dom", f"{(built / 'demo/index.html').as_uri()}?q=rotation"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    results = re.findall(r'<a href="([^"]+)" class="md-search-result__link"', done.stdout)
    assert any("concepts.html" in link for link in results), results
