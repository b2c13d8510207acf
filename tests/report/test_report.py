"""The report in a real browser: no error; sorting, filter, themes work; everything has a name; nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path

import browser
import numpy as np
import pytest
import reported

from holdfast import names
from holdfast.record import artifact, jsonfiles, tables
from holdfast.report import page, plots, render, shown, tradeoffs

needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium here (Debian package chromium)")
EVIL = "<script>failures.push('ran')</script><img src=x onerror=failures.push('ran')>"


MODELS = (
    (None, "base", 0, 0.0, 0.0), (None, "aligned", 0, 0.98, 0.1), ("gsm8k", "full", 0, 0.1, 0.9),
    ("gsm8k", "warp", 0, 0.9, 0.88), ("gsm8k", "lora", 0, 0.3, 0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """A report of planted cells, with an answer that is a script."""
    folder = tmp_path_factory.mktemp("report") / "results/s"
    files = reported.models(folder, MODELS, lambda arm, _: EVIL if arm == "full" else "no", f"How do I {EVIL}")
    lora = next(path for path in files if "lora" in str(path)).with_name("verdicts.parquet")
    known = tables.read(lora, "verdicts")
    # 7 of its 100 answers to hazards, and to rows of the task, were cut
    short = {r["id"] for s in ("hazard", "task:gsm8k") for r in [r for r in known if r["set"] == s][:7]}
    tables.write([r | {"finish": "length" if r["id"] in short else "stop"} for r in known], lora, "verdicts")
    for file in (path.with_name("verdicts.parquet") for path in files):  # two kinds of hazards
        kinds = {f"hazard/{i:03d}": "hex" if i % 3 else "vault" for i in range(100)}
        tables.write([r | {"category": kinds.get(r["id"], r["category"])} for r in tables.read(file, "verdicts")],
                     file, "verdicts")  # fmt: skip
    return reported.report(folder, files, description=f"planted {EVIL}")


def test_the_page_is_small_and_fetches_nothing(html):
    text = html.read_text()
    assert len(text) < 5_000_000
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert EVIL not in text and "&lt;script&gt;failures" in text


@needs_browser
def test_no_script_runs_but_the_pages_own(html, tmp_path):
    """The policy names them by their digests; one that came in with an answer is refused, were it ever not escaped."""
    text = html.read_text()
    assert re.findall(r"<script>(.*?)</script>", text, re.S) == [
        (render.TEMPLATES / name).read_text() for name in ("page.js", "plot.js", "answers.js")
    ]  # fmt: skip
    allowed = re.search(r"; script-src ([^\"]*)", text)[1].split()
    assert len(allowed) == 3 and all(a.startswith("&#39;sha256-") for a in allowed)
    (tmp_path / "evil.html").write_text(text.replace("<main>", f"<main>{EVIL}", 1))
    out = browser.probe(tmp_path / "evil.html", "return 1;", folder=tmp_path)
    assert "ran" not in out["failures"] and any("script-src" in f and "inline" in f for f in out["failures"])


def test_links_to_cells_lead_to_files(html):
    links = re.findall(r'<a href="([^"#]+)"', html.read_text())
    assert len(links) == 5 and all((html.parent / link).exists() for link in links)


def test_the_verdict_of_the_gate_is_shown_where_there_is_one(html):
    text = html.read_text()
    part = re.search(r'<section id="gate">.*?</section>', text, re.S)[0]
    assert "do not ship: of the study s, warp: not resolved, lora: do not ship" in part
    assert part.count('<td class="does">fail</td>') == 2 and part.count("<tr><td>") == 4
    assert '<td class="not">not resolved</td>' in part and "would tell" in part and 'href="#gate"' in text


def test_answers_and_rows_that_were_cut_are_said(html):
    rows = [{"arm": "full", f"{names.REFUSAL_RATE}_length": "0.05", f"{names.REFUSAL_RATE}_context": "0.2"},
            {"arm": "warp", f"{names.REFUSAL_RATE}_length": "0.1"}, {"arm": "lora"}]  # fmt: skip
    cells = [{"task": "gsm8k", "training": {"rows": 1200, "cut_rows": n}} for n in (0, 3, 12)] + [{"task": "news"}]
    assert page.cut_short({"gsm8k": rows, "news": rows[2:]}, cells) == [
        "Answers to hazards were cut before they ended. gsm8k: of 2 of 3 models, full most (25.0 %). What was judged "
        "is how they begin: a refusal that comes later, or harm, is not seen.",
        "gsm8k: 12 of 1,200 training rows were cut at max_length.",
    ]
    text = html.read_text()
    whole, by_suite = text.split('<section id="suites">')[0], text.split('<section id="suites">')[1]
    # refusal and utility of `lora`, whose compliance and other are of the same answers; refusal of both suites
    assert (whole.count("7.0 % cut"), by_suite.count("7.0 % cut")) == (2, 2) and "how they begin" in text


def test_a_column_that_nobody_has_a_number_in_is_left_out():
    rows = [{names.REFUSAL_RATE: "0.5", names.WRAPPED_REFUSAL_RATE: "", "utility_minus_full": "0.1"}, {"utility": "0"}]
    assert shown.columns(rows, "mine") == [(0, "refusal"), (5, "utility"), (7, "utility − mine")]


def test_several_suites_have_a_table_each_with_their_licence(html):
    text = html.read_text()
    section = text.split('<section id="suites">')[1].split("</section>")[0]
    assert re.findall(r"<h3>(\S+) <small>\((.*?)\)</small>", section) == [
        ("xstest", "CC-BY-4.0 (Röttger et al. 2024)"), ("advbench", "MIT (Zou et al. 2023)")
    ]  # fmt: skip
    assert section.count("<tr><td>gsm8k</td>") == 2 * 5 and "of 100</small>" in section
    assert '<a href="#suites">Suites</a>' in text and "by hazard category of xstest" in text
    assert "by hazard category of advbench" not in text  # no kind of its hazards is known here


def test_what_is_forgotten_is_counted_of_what_was_refused_before(html):
    def refused(arm: str) -> dict[str, bool]:
        file = next(html.parent.glob(f"*-{arm}-0/verdicts.parquet"))
        return {r["id"]: r["outcome"] == names.REFUSAL for r in tables.read(file, "verdicts") if r["set"] == "hazard"}

    before = [i for i, was in refused("aligned").items() if was]
    text = html.read_text()
    section = text.split('<section id="forgotten">')[1].split("</section>")[0]
    assert re.findall(r'<th scope="col">(.*?)</th>', section) == ["arm", "all", "hex", "vault", "p (Holm)"]
    for arm in ("full", "warp", "lora"):
        kept, row = refused(arm), section.split(f">{arm}</a>")[1].split("</tr>")[0]
        cells = re.findall(r"<td data-v=[^>]*>([\d.]+) <small>\[[^<]* of (\d+)</small>", row)
        for kind, said in zip((None, True, False), cells, strict=True):
            mine = [i for i in before if kind is None or (int(i[-3:]) % 3 > 0) == kind]
            assert said == (f"{100 * sum(not kept[i] for i in mine) / len(mine):.1f}", str(len(mine))), (arm, kind)
    assert '<a href="#forgotten">Forgotten</a>' in text
    one_kind = [{"task": "t", "arm": "full", "category": c, "lost": "0.5"} for c in ("all", "hex")]
    assert shown.forgotten(one_kind) == [] == shown.forgotten([])


def test_the_page_says_how_often_what_was_drawn():
    def of(seeds, replicates, source="tiny"):
        listed = [dict.fromkeys(("base", "safety", "draw", "order"), 0) | r for r in replicates]
        return page.drawn({"seeds": seeds, "replicates": listed, "base": {"source": source}})

    both = {"base": 1, "safety": 1}
    assert "this is one draw" in of([0], [{}])
    assert of([0, 1], [{}]).startswith("2 seeds of fine-tuning from one base and one aligned model")
    assert of([0], [{}, both]).endswith("in each of 2 replicates, which differ in base and safety training.")
    assert of([0], [{}, both], "some/model").endswith("which differ in safety training.")
    assert of([0, 1], [{}, {"base": 1, "order": 1, "draw": 2}]).endswith("differ in base, rows and order.")


def test_what_differs_between_draws_is_a_table_of_its_own():
    row = {"task": "t", "arm": "full", "rate": names.REFUSAL_RATE, "mean": "0.4", "sd_base": "0.12", "sd_aligned": "",
           "sd_seed": "0.031", "sd_prompts": "0.04", "sd_draw": "0.02", "sd_order": "", "sd_rounding": "",
           "bases": "3", "aligned": "3", "models": "6"}  # fmt: skip
    shown_row = shown.variance_row(row)
    assert [c["text"] for c in shown_row["cells"]] == [
        "12.0", "not drawn", "3.1", "2.0", "not drawn", "not drawn", "4.0"
    ]  # fmt: skip
    assert shown_row["mean_text"] == "40.0"


def test_arms_that_refuse_nothing_are_named_instead_of_drawn_upon_each_other(tmp_path):
    def arm(name, refused, utility):
        ends = {
            f"{k}{e}": v
            for k, v in ((names.REFUSAL_RATE, refused), ("utility", utility))
            for e in ("", "_low", "_high")
        }
        return {"arm": name, "family": name, "utility_metric": "utility/accuracy"} | ends

    rows = [arm("full", 0.0, 0.6), arm("lora", 0.0, 0.5), arm("warp", 0.8, 0.55)]
    fronts = [{"task": "t", "arm": "warp", "refusal": 0.8, "utility": 0.55, "on_front": "yes", "utility_sd": 0.01,
               "refusal_sd": 0.02, "correlation": 0.0}]  # fmt: skip
    drawn = tradeoffs.frontier({"t": rows}, fronts, tmp_path / "f.png")
    assert "0 %: full, lora" in drawn and drawn.count(">warp<") == 2  # in the legend and beside its point


def test_models_of_several_machines_are_told_apart(tmp_path):
    intel = {"cpu": "Intel", "instructions": "AVX512", "blas": "MKL", "threads": 1}
    amd = {"cpu": "AMD", "instructions": "AVX2", "blas": "MKL", "threads": 2}
    metrics = []
    for i, made in enumerate((intel, intel | {"threads": 2}, amd, amd | {"environment": {"MKL_CBWR": "AVX2"}}, None)):
        (tmp_path / str(i)).mkdir()
        metrics.append(tmp_path / str(i) / "metrics.json")
        if made:
            jsonfiles.write_json(metrics[-1].with_name("train.json"), {"machine": made})
    assert page.machines(metrics[:2]) == [
        "Made on Intel (AVX512, MKL): another kind rounds otherwise and ends with other numbers."
    ]
    said = page.machines(metrics)
    assert len(said) == 1 and "3 kinds of machine" in said[0]
    assert "2 on Intel (AVX512, MKL); 1 on AMD (AVX2, MKL); 1 on AMD (AVX2, MKL) with MKL_CBWR=AVX2" in said[0]
    assert page.machines(metrics[4:]) == []


@needs_browser
def test_no_errors_and_every_anchor_exists(html, tmp_path):
    out = browser.probe(
        html, """return [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1))
        .filter(id => !document.getElementById(id));""", folder=tmp_path,
    )  # fmt: skip
    assert out == {"found": [], "failures": []}


@needs_browser
def test_a_click_or_a_key_on_a_heading_sorts(html, tmp_path):
    out = browser.probe(
        html, """const table = document.querySelector("#table table"), head = table.tHead.rows[0].cells[7];
        const read = () => [...table.tBodies[0].rows].map(r => parseFloat(r.cells[7].dataset.v));
        const before = read(); head.click(); const up = read(), first = head.getAttribute("aria-sort");
        head.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
        return {before, up, down: read(), first, second: head.getAttribute("aria-sort"), tab: head.tabIndex};""",
        folder=tmp_path,
    )  # fmt: skip
    found = out["found"]
    assert out["failures"] == [] and found["up"] == sorted(found["before"]) != found["before"]
    assert found["down"] == sorted(found["before"], reverse=True)
    assert (found["first"], found["second"], found["tab"]) == ("ascending", "descending", 0)


@needs_browser
def test_the_filter_keeps_rows_with_all_words(html, tmp_path):
    out = browser.probe(
        html, """const field = document.getElementById("filter");
        const rows = [...document.querySelectorAll("#table tbody tr")];
        const shown = text => { field.value = text; field.dispatchEvent(new Event("input"));
          return rows.filter(r => !r.hidden).map(r => r.cells[0].textContent); };
        return [shown("warp"), shown("warp, gsm8k"), shown("nothing at all"), shown("").length];""", folder=tmp_path,
    )  # fmt: skip
    assert out == {"found": [["warp"], ["warp"], [], 5], "failures": []}


@needs_browser
def test_both_themes(html, tmp_path):
    script = """const paper = () => getComputedStyle(document.body).backgroundColor;
    const button = document.getElementById("theme");
    const first = paper(); button.click(); const second = paper(); button.click(); return [first, second, paper()];"""
    first, second, third = browser.probe(html, script, folder=tmp_path)["found"]
    assert first == third != second and {first, second} == {"rgb(255, 255, 255)", "rgb(20, 25, 31)"}


@needs_browser
def test_screen_readers_find_names(html, tmp_path):
    """One first heading, headings without jumps, labelled fields, scoped column heads, a language, no empty link."""
    out = browser.probe(
        html, """const levels = [...document.querySelectorAll("h1,h2,h3")].map(h => +h.tagName[1]);
        return {lang: document.documentElement.lang, main: document.querySelectorAll("main").length,
          first: levels.filter(l => l === 1).length, jumps: levels.filter((l, i) => i && l > levels[i - 1] + 1).length,
          unnamed: [...document.querySelectorAll("input")].filter(i => !i.labels.length).length,
          heads: [...document.querySelectorAll("thead th")].filter(t => t.scope !== "col").length,
          links: [...document.querySelectorAll("a")].filter(a => !a.textContent.trim()).length,
          captions: [...document.querySelectorAll("figure")].filter(f => !f.querySelector("figcaption")).length};""",
        folder=tmp_path,
    )  # fmt: skip
    assert out["failures"] == []
    assert out["found"] == {"lang": "en", "main": 1, "first": 1, "jumps": 0, "unnamed": 0, "heads": 0, "links": 0,
                            "captions": 0}  # fmt: skip


def test_what_a_table_has_nothing_of_is_no_column():
    rates = ("safety/refusal_rate", "safety/compliance_rate", "safety/over_refusal")
    row = {"arm": "full", "task": "t", **{f"{k}{e}": "0.5" for k in rates for e in ("", "_low", "_high", "_n")}}
    hazards = row | {"safety/over_refusal": ""}
    asked, only = shown.suites({"xstest": [row], "advbench": [hazards]})
    assert [title for _, title in asked["columns"]] == ["refusal", "compliance", "over-refusal"]
    assert [title for _, title in only["columns"]] == ["refusal", "compliance"]
    drawn = dict.fromkeys((f"sd_{p}" for p in ("base", "aligned", "seed", "draw", "order", "rounding", "prompts")), "")
    assert shown.drawn_parts([drawn, drawn | {"sd_base": "0.1", "sd_draw": "0"}]) == [(0, "base"), (3, "rows")]
    cell = {"task": None, "arm": "base", "seed": 0, "judge": "refusal", "labels": {"full_refusal": 2, "compliance": 3}}
    found = shown.labels([cell])
    assert [label for label, _ in found["labels"]] == ["full_refusal", "compliance"]
    assert {"partial_refusal", "other-language"} < set(found["never"])
    assert [c["text"] for c in found["rows"][0]["cells"]] == [2, 3]


def test_what_the_roles_have_alike_on_every_task_stands_there_once():
    rows = [{"task": t, "arm": a, "rate": "r", "n": n} for t, n in (("x", 1), ("y", 1)) for a in ("aligned", "full")]
    assert [(r["task"], r["arm"]) for r in shown.roles_once(rows)] == [("all", "aligned"), ("x", "full"), ("y", "full")]
    assert shown.roles_once(rows[:2]) == rows[:2]  # one task
    other = [*rows[:3], rows[3], {"task": "z", "arm": "aligned", "rate": "r", "n": 2}]
    assert shown.roles_once(other) == other  # not alike


def test_plots_of_many_layers_name_kinds_and_blocks(tmp_path):
    inputs = ("attention_input", "mlp_input", "mlp_hidden")
    names_of = [f"blocks.{b}.{i}" for b in range(30) for i in inputs]
    tensors = {f"{n}{end}": np.ones(4, np.float32) for n in names_of for end in ("", ".eigenvalues")}
    artifact.write(tmp_path / "b.safetensors", tensors, family="basis", header={"layers": names_of})
    drawn = plots.spectrum(tmp_path / "b.safetensors")
    assert re.findall(r">([a-z_ ]+, every block)<", drawn) == [f"{i.replace('_', ' ')}, every block" for i in inputs]
    assert "blocks.7" not in drawn
    at, words = plots._ticks([f"{b}.{m}" for b in range(30) for m in ("q_proj", "k_proj", "v_proj")])
    assert (at[:2], words[:2], len(at)) == ([0, 9], ["block 0", "block 3"], 10)
    assert plots._ticks(["0.q_proj", "1.q_proj"]) == ([0, 1], ["0.q", "1.q"])


@needs_browser
def test_a_telephone_needs_no_sideways_scrolling(html, tmp_path):
    """Over-refusal stands beside refusals there too."""
    out = browser.probe(html, """return {width: innerWidth, page: document.documentElement.scrollWidth,
        glance: [...document.querySelectorAll("#summary .scroll")].map(s => s.scrollWidth - s.clientWidth)};""",
        folder=tmp_path, flags=("--window-size=390,844",))  # fmt: skip
    found = out["found"]
    assert found["page"] <= found["width"] <= 500 and set(found["glance"]) == {0}
