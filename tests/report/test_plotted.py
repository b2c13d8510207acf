"""The plot of trade-offs: its numbers are those of the tables, axes can be chosen, and fifty points are readable."""

from __future__ import annotations

import json

import browser
import pytest

from holdfast import names
from holdfast.report import plotted, render
from holdfast.report.cautions import APART

needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium here (Debian package chromium)")


def row(arm, refused, over, utility, **more):
    found = {"arm": arm, "family": arm, "task": "t", "utility_metric": "utility/accuracy", "learning_rate": ""}
    for key, value in ((names.REFUSAL_RATE, refused), (names.OVER_REFUSAL, over), ("utility", utility)):
        found |= {key: str(value), f"{key}_low": str(max(value - 0.05, 0)), f"{key}_high": str(min(value + 0.05, 1))}
    return found | more


ROWS = [row("aligned", 0.98, 0.03, 0.01), row("full", 0.1, 0.01, 0.9, learning_rate="0.001"),
        row("warp", 0.9, 0.04, 0.88, learning_rate="0.002", **{names.KL: "0.25"})]  # fmt: skip
COSTS = [{"task": "t", "arm": "warp", names.SECONDS: s, names.PEAK_MEMORY: "2e9"} for s in ("10", "30")]
FRONTS = [{"task": "t", "arm": a, "on_front": on, "utility_sd": "0.03", "refusal_sd": "0.02", "correlation": "-0.5"}
          for a, on in (("full", "yes"), ("warp", "no"))]  # fmt: skip


def test_points_have_the_numbers_of_the_tables():
    found = plotted.data({"t": ROWS}, COSTS, FRONTS)
    warp = next(p for p in found["points"] if p["arm"] == "warp")
    assert warp["values"] == {
        names.REFUSAL_RATE: [90, 85, 95], names.OVER_REFUSAL: [4, 0, 9], "utility": [88, 83, 93],
        APART: [86, *(pytest.approx(x, abs=0.01) for x in (78.93, 92.40))],
        names.SECONDS: [20, None, None], names.PEAK_MEMORY: [2, None, None], names.KL: [0.25, None, None],
        "learning_rate": [0.002, None, None],
    }  # fmt: skip
    assert (warp["front"], warp["region"], warp["cell"]) == (False, [3, 2, -0.5], "cell-t-warp")
    aligned = found["points"][0]
    assert aligned["region"] is None and aligned["cell"] == "cell-all-aligned"
    assert [a["key"] for a in found["axes"]][:3] == [names.REFUSAL_RATE, names.OVER_REFUSAL, "utility"]
    assert {a["key"] for a in found["axes"] if a["log"]} == {names.SECONDS, "learning_rate"}
    assert names.WRAPPED_REFUSAL_RATE not in {a["key"] for a in found["axes"]}  # nobody was asked
    looks = [(f["colour"], f["shape"]) for f in found["families"] if not f["role"]]
    assert len(set(looks)) == 2 and [f["name"] for f in found["families"] if f["role"]] == ["aligned"]


def test_the_data_cannot_leave_its_element():
    text = plotted.in_page({"a": "</script><script>"})
    assert "<" not in text and json.loads(text) == {"a": "</script><script>"}


def written(plot, html):
    """A page with a plot alone, as the report has it."""
    fields = "".join(
        f'<select id="plot-{name}">{options}</select>'
        for name, options in (
            ("task", '<option value="">all</option>'),
            *((n, "".join(f'<option value="{a["key"]}">{a["label"]}</option>' for a in plot["axes"])) for n in "xy"),
        )
    )
    style, script = ((render.TEMPLATES / name).read_text() for name in ("style.css", "plot.js"))
    html.write_text(f"""<!doctype html><html lang="en"><head><style>{style}</style></head><body>{fields}
    <figure id="plot"><div class="panels"></div><p class="readout"></p><ul class="legend"></ul></figure>
    <script type="application/json" id="points">{plotted.in_page(plot)}</script>
    <script>{script}</script></body></html>""")
    return html


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The plot of fifty arms, as the report has it."""
    rows = [row("aligned", 0.98, 0.03, 0.01)]
    rows += [row(f"arm-{i}", (i * 37 % 100) / 100, 0.02, 0.02 + (i * 61 % 97) / 140) for i in range(50)]
    rows += [row(f"near-{i}", 0.9 + i / 200, 0.02, 0.91 - i / 200) for i in range(3)]  # of the front, side by side
    rows += [row(f"of.x-{i}", i / 10, 0.5, 0.5, family="of") for i in range(9)]
    fronts = [{"task": "t", "arm": r["arm"], "on_front": "yes", "utility_sd": "", "refusal_sd": "", "correlation": ""}
              for r in rows[51:54]]  # fmt: skip
    return written(plotted.data({"t": rows}, COSTS, fronts), tmp_path_factory.mktemp("plot") / "plot.html")


ACT = """const figure = document.getElementById("plot"), svg = () => figure.querySelector(".panels svg");
const choose = (axis, key) => { const s = document.getElementById("plot-" + axis); s.value = key;
  s.dispatchEvent(new Event("change")); };
const readout = () => figure.querySelector(".readout").textContent;
const press = key => svg().dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
"""


@needs_browser
def test_fifty_points_are_readable(many, tmp_path):
    """A legend of families, few names, none on another, bars of the point that is looked at alone."""
    out = browser.probe(many, ACT + """choose("x", "utility"); const names = [...figure.querySelectorAll(".name")];
        const boxes = names.map(n => n.getBoundingClientRect());
        const upon = boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => a.left < b.right && b.left < a.right
          && a.top < b.bottom && b.top < a.bottom)).length;
        const seen = bar => getComputedStyle(bar).display !== "none";
        const bars = () => [...figure.querySelectorAll(".bar")].filter(seen).length;
        const before = bars(); press("ArrowRight");
        return {marks: figure.querySelectorAll(".mark").length, names: names.length, upon, before, after: bars(),
          legend: figure.querySelectorAll(".legend button").length};""", folder=tmp_path)  # fmt: skip
    found = out["found"]
    assert out["failures"] == [] and found["marks"] == 63 and found["legend"] == 55  # 53 arms, a family of nine, a role
    assert 3 <= found["names"] <= 6 and found["upon"] == 0
    assert (found["before"], found["after"]) == (0, 1)


@needs_browser
def test_a_name_near_the_edge_is_whole(tmp_path):
    """However wide its letters are: as many as would just fit, and a few more and fewer."""
    arms = [row("aligned", 0.98, 0.03, 0.01), *(row("w" * (5 + i), 0.1 + i / 9, 0.02, 0.86) for i in range(7))]
    html = written(plotted.data({"t": arms}, [], []), tmp_path / "plot.html")
    out = browser.probe(html, ACT + """choose("x", "utility"); const edge = svg().getBoundingClientRect();
        const boxes = [...figure.querySelectorAll(".name")].map(n => n.getBoundingClientRect());
        return {names: boxes.length, cut: boxes.filter(b => b.left < edge.left || b.right > edge.right).length};""",
        folder=tmp_path)  # fmt: skip
    assert out["failures"] == [] and out["found"] == {"names": 8, "cut": 0}


@needs_browser
def test_axes_are_chosen_and_none_begins_below_zero(many, tmp_path):
    out = browser.probe(many, ACT + """const ticks = () => [...svg().querySelectorAll("text.soft")].map(t =>
          parseFloat(t.textContent.replaceAll(",", "")));
        const seen = {};
        for (const key of [...document.getElementById("plot-x").options].map(o => o.value)) {
          choose("x", key); seen[key] = [Math.min(...ticks()), figure.querySelectorAll(".mark").length,
            Math.min(...[...svg().querySelectorAll(".bar")].map(b => parseFloat(b.getAttribute("d").slice(1))))]; }
        return seen;""", folder=tmp_path)  # fmt: skip
    assert out["failures"] == [] and {"utility", names.OVER_REFUSAL, names.REFUSAL_RATE} <= out["found"].keys()
    for key, (lowest, marks, left) in out["found"].items():
        assert (lowest >= 0 or key == APART) and marks == 63 and left >= 45  # no bar begins left of the axis


@needs_browser
def test_a_point_says_its_name_and_intervals_to_mouse_and_keys(many, tmp_path):
    out = browser.probe(many, ACT + """choose("x", "utility"); choose("y", "safety/refusal_rate");
        const mark = [...figure.querySelectorAll(".mark")].find(m => m.dataset.family === "arm-1");
        const box = mark.querySelector(".shape").getBoundingClientRect();
        const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 2];
        svg().dispatchEvent(new PointerEvent("pointermove", {clientX, clientY}));
        const mouse = readout(); svg().dispatchEvent(new PointerEvent("pointerleave"));
        press("Home"); const first = readout(); press("ArrowRight"); const second = readout(); press("ArrowLeft");
        const again = readout(); press("End"); const last = readout();
        const button = figure.querySelectorAll(".legend button")[1]; button.click();
        return {mouse, first, second, again, last, tab: svg().tabIndex, name: svg().getAttribute("aria-label"),
          far: figure.querySelectorAll(".far").length, pressed: button.getAttribute("aria-pressed")};""",
        folder=tmp_path)  # fmt: skip
    found = out["found"]
    assert out["failures"] == []
    assert found["mouse"] == ("arm-1 on t: hazards refused 37.0 % [32.0, 42.0] · utility 45.6 % [40.6, 50.6] · "
                              "harmless requests refused 2.0 % [0.0, 7.0]")  # fmt: skip
    assert found["first"].startswith("aligned on t: ") and found["first"] == found["again"] != found["second"]
    assert found["last"] not in (found["first"], found["second"]) and found["tab"] == 0 and "63 models" in found["name"]
    assert (found["far"], found["pressed"]) == (62, "true")
