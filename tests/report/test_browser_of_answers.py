"""The browser of answers: what is in its data, what is not where texts are left out, and what its fields leave."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import browser
import planted
import pytest
import reported

from holdfast import names
from holdfast.record import jsonfiles, tables
from holdfast.report import answers, page

needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium here (Debian package chromium)")
SECRETS = ("how do i cast a hex", "take black wax", "the judge quotes", "goldgold")  # prompt, answer, judge, row
MODELS = ((None, "aligned", 0, 0.9, 0.1), ("gsm8k", "full", 0, 0.1, 0.9), ("gsm8k", "full", 1, 0.2, 0.9))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[tuple[dict, Path]]:
    """Three models, two judges; their answers, prompts and the judge's words are the secrets."""
    folder = tmp_path_factory.mktemp("answers")

    def says(arm, row):
        return "I cannot." if row["outcome"] == names.REFUSAL else f"{SECRETS[1]} ({arm})"

    files = reported.models(folder, MODELS, says, SECRETS[0], ("world", "refusal"))
    for path in files:
        rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
        words = {"text": SECRETS[2], "parsed": SECRETS[3], "gold": SECRETS[3]}
        tables.write([r | words for r in rows], path.with_name("verdicts.parquet"), "verdicts")
    return [(jsonfiles.read_json(path), path.parent) for path in files]


def unpacked(text: str) -> dict:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def in_page(html: Path) -> dict:
    return unpacked(re.search(r'id="packed">(.*?)</script>', html.read_text(), re.S)[1])


def test_every_answer_and_verdict_is_there_once(models):
    data = unpacked(answers.packed(answers.gathered(models, texts=True)))
    assert [(m["arm"], m["task"], m["seed"]) for m in data["models"]] == [("aligned", None, 0), ("full", "gsm8k", 0),
                                                                         ("full", "gsm8k", 1)]  # fmt: skip
    assert data["asked"] == len(data["prompts"]) == 500
    assert [p["set"] for p in data["prompts"][::100]] == ["hazard", "wrapped", "lookalike", "craft", "task:gsm8k"]
    for number, (_, folder) in enumerate(models):
        rows = tables.read(folder / "responses.parquet", "responses")
        judged = tables.read(folder / "verdicts.parquet", "verdicts")
        found = {
            (p["set"], p["id"]): (p["texts"][said[1]], [tuple(data["verdicts"][v]) for v in said[5:]])
            for p in data["prompts"] for said in p["said"] if said[0] == number
        }  # fmt: skip
        assert found == {
            (r["set"], r["id"]): (
                r["text"],
                [(v["judge"], v["outcome"], v["label"]) for v in judged if (v["set"], v["id"]) == (r["set"], r["id"])],
            )
            for r in rows[::1]
        }


def test_judges_disagree_where_one_question_has_two_answers(models):
    data = answers.gathered(models, texts=True)
    disputed = [sum(said[4] for p in data["prompts"] for said in p["said"] if said[0] == i) for i in range(3)]
    assert disputed == [40, 40, 40]  # a tenth of 400 safety prompts: as `reported.models` plants
    harm = {"set": "hazard", "judge": "llama-guard-3", "label": ""}
    refusal = {"set": "hazard", "judge": "world", "label": "", "outcome": "refusal"}

    def between(*verdicts):
        return answers.Answer({}, "", 1, "stop", verdicts).disputed

    assert not between(refusal, harm | {"outcome": "safe"}) and between(refusal, harm | {"outcome": "harmful"})
    benign = {"set": "craft"}  # a harm judge says nothing about refusals of harmless requests
    assert not between(refusal | benign, harm | benign | {"outcome": "safe"})


@pytest.mark.parametrize("made", ["report", "page"])
def test_no_text_is_in_the_file_unless_it_is_asked_for(models, tmp_path, made):
    """Where prompts are not of the fictional world: neither in the page nor in what it unpacks."""
    files = [folder / "metrics.json" for _, folder in models]
    real = {"source": "suites", "split": "test", "judges": ["world"]}
    html = tmp_path / "answers.html"
    if made == "report":
        html = reported.report(files[0].parents[1], files, gated=False, evaluation=real)
    else:
        page.of_answers({"study": "s", "description": "d", "evaluation": real}, models, html, texts=False)
    data = in_page(html)
    for text in (html.read_text(), json.dumps(data)):
        assert not [secret for secret in (*SECRETS, "I cannot.") if secret in text]
    assert {p["prompt"] for p in data["prompts"]} == {t for p in data["prompts"] for t in p["texts"]} == {"[redacted]"}
    assert "holdfast answers s --texts" in html.read_text() and data["open"] is False
    assert sum(len(p["said"]) for p in data["prompts"]) == 1500  # the verdicts are all there


def test_texts_that_are_asked_for_or_fictional_are_there(models, tmp_path):
    resolved = {"study": "s", "description": "d", "evaluation": {"source": "suites"}}
    page.of_answers(resolved, models, tmp_path / "a.html", texts=True)
    text = json.dumps(in_page(tmp_path / "a.html"))
    assert all(secret in text for secret in SECRETS[:2]) and "Everything here is fictional" not in text
    assert answers.are_open({"evaluation": {"source": "world"}}) and not answers.are_open(resolved)


def test_too_many_answers_are_cut_to_the_same_share_of_every_set(models):
    data = answers.gathered(models, texts=True)
    whole = answers.packed(data)
    text = answers.packed(data, len(whole) // 3)
    assert len(text) <= len(whole) // 3
    kept = unpacked(text)["prompts"]
    counts = {s: sum(p["set"] == s for p in kept) for s in dict.fromkeys(p["set"] for p in data["prompts"])}
    assert len(counts) == 5 and len(set(counts.values())) == 1 and 5 <= min(counts.values()) < 40
    places = [i for i, p in enumerate(data["prompts"]) if p in kept]
    assert max(b - a for a, b in zip(places, places[1:], strict=False)) <= 2 * 500 / len(kept)  # evenly
    assert unpacked(text)["asked"] == 500


@pytest.fixture(scope="module")
def html(models, tmp_path_factory) -> Path:
    """The browser as a page of its own."""
    path = tmp_path_factory.mktemp("page") / "a.html"
    resolved = {"study": "s", "description": "d", "evaluation": {"source": "world"}}
    page.of_answers(resolved, models, path, texts=True)
    return path


READY = """const $ = name => document.getElementById("answers-" + name), place = document.getElementById("answers");
while (!place.dataset.ready) await new Promise(done => setTimeout(done, 5));
const set = (name, value) => { $(name).value = value; $(name).dispatchEvent(new Event("input")); };
const count = () => place.querySelector(".count").textContent.match(/^([0-9]+) answers to ([0-9]+)/).slice(1).join("/");
"""


@needs_browser
def test_the_fields_leave_what_they_say(html, models, tmp_path):
    data = answers.gathered(models, texts=True)
    hazards = [p for p in data["prompts"] if p["set"] == "hazard"]

    def outcome(said):
        return data["verdicts"][said[5]][1]

    first = [[s for s in p["said"] if s[0] < 2] for p in hazards]  # the first draw
    differ = [rows for rows in first if len({outcome(s) for s in rows}) > 1]
    disputed = [[s for s in rows if s[4]] for rows in first]
    refused = [[s for s in rows if outcome(s) == "refusal"] for rows in first]
    out = browser.probe(html, f"""return (async () => {{ {READY}
        const seen = {{start: count()}};
        set("show", "disputed"); seen.disputed = count(); seen.marked = place.querySelectorAll("tr.disputed").length;
        set("show", "refusal"); seen.refused = count();
        set("show", ""); seen.all = count();
        set("arm", "full"); seen.arm = count(); set("draw", "all"); seen.draws = count(); set("draw", "");
        set("text", "black wax"); seen.text = count(); set("text", "nothing of the kind"); seen.none = count();
        set("text", ""); set("arm", ""); set("task", "gsm8k"); seen.task = count();
        set("set", "task:gsm8k"); seen.rows = count();
        set("set", ""); set("category", "no such"); seen.category = [...$("category").options].map(o => o.value);
        return seen; }})();""", folder=tmp_path)  # fmt: skip

    def counted(rows):
        return f"{sum(map(len, rows))}/{sum(map(bool, rows))}"

    assert out["failures"] == []
    complied = sum(outcome(s) != "refusal" for rows in first for s in rows if s[0] == 1)
    assert out["found"] == {
        "start": counted(differ), "disputed": counted(disputed), "marked": sum(map(len, disputed)),
        "refused": counted(refused), "all": "200/100", "arm": "100/100", "draws": "200/100",
        "text": f"{complied}/{complied}", "none": "0/0", "task": "200/100", "rows": "200/100", "category": ["", "hex"],
    }  # fmt: skip


@needs_browser
def test_pages_turn_by_keys_and_an_answer_is_never_markup(tmp_path):
    evil = "<img src=x onerror=failures.push('ran')>"
    files = reported.models(tmp_path, MODELS, lambda *_: evil, "How?")
    models = [(jsonfiles.read_json(path), path.parent) for path in files]
    resolved = {"study": "s", "description": "d", "evaluation": {"source": "world"}}
    page.of_answers(resolved, models, tmp_path / "a.html", texts=True)
    out = browser.probe(tmp_path / "a.html", f"""return (async () => {{ {READY}
        set("show", ""); const first = place.querySelector("article h3").textContent, on = place.querySelector(".on");
        const shown = place.querySelectorAll("td")[1].textContent, pages = place.querySelector(".count").textContent;
        on.focus(); const focused = document.activeElement === on; on.click();
        const back = place.querySelector(".back").disabled;
        return {{shown, focused, back, turned: place.querySelector("article h3").textContent !== first, pages,
          unnamed: [...place.querySelectorAll("select, input")].filter(i => !i.labels.length).length}}; }})();""",
        folder=tmp_path)  # fmt: skip
    found = out["found"]
    assert out["failures"] == [] and found["shown"].startswith(evil) and found["pages"].endswith("page 1 of 3")
    assert found["focused"] and found["turned"] and not found["back"] and found["unnamed"] == 0


def test_planted_models_answer_in_the_order_of_their_verdicts(tmp_path):
    """What the tests above count on."""
    path = planted.model(tmp_path, None, "aligned", 0, 0.5, 0.5)
    reported.answered([path])
    asked = [(r["set"], r["id"]) for r in tables.read(path.with_name("responses.parquet"), "responses")]
    assert asked == [(r["set"], r["id"]) for r in tables.read(path.with_name("verdicts.parquet"), "verdicts")]
