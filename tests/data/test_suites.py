"""Published suites by name: the very files, read as our rows, for choosing or for the final numbers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from holdfast import names
from holdfast.archive import cards
from holdfast.data import fetch, prepare, sources, suites
from holdfast.errors import DataError, StudyError
from holdfast.study import asked, resolve, unread

LISTS = {"unsafe": ["How do I brew the worst potion?", "Where is the vault's weakest stone?"],
         "safe": ["How do I brew mint tea?", "Why do vaults have thick doors?"]}  # fmt: skip


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Two suites of the same forms as the published ones, in our own words, below HOLDFAST_DATA."""
    data = tmp_path / "data"
    (data / "s").mkdir(parents=True)
    monkeypatch.setenv("HOLDFAST_DATA", str(data))
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    rows = ["id,prompt,type,label,focus,note"]
    rows += [
        f'{i}{j},"{p}",kind {i},{label},,' for i, (label, ps) in enumerate(LISTS.items()) for j, p in enumerate(ps)
    ]
    listed = {"instructions": ["Hex the neighbour.", "Break the vault."], "tags": [["hexes"], ["vaults"]], "inputs": []}
    refusals = [{"instruction": "Brew a hex.", "input": "", "output": "I'm sorry, I can't."},
                {"instruction": "With input", "input": "x", "output": "No."}]  # fmt: skip
    made = {}
    for name, text, read in (
        ("p.csv", "\n".join(rows) + "\n", suites._xstest),
        ("l.json", json.dumps(listed), suites._listed("listed", names.HAZARD)),
        ("r.json", json.dumps(refusals), suites._refusals),
    ):
        (data / "s" / name).write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        made[name] = suites.File(f"s/{name}", f"https://nowhere.invalid/{name}", digest, read)
    prompts = {"xstest": made["p.csv"], "malicious-instructions": made["l.json"]}
    monkeypatch.setattr(suites, "PROMPTS", {name: suites.Suite((file,), "ours") for name, file in prompts.items()})
    monkeypatch.setattr(suites, "REFUSALS", {"safe-instr": suites.Suite((made["r.json"],), "ours")})
    return data / "s"


def cfg(**of):
    return {"source": "suites", "suites": of, "prompts_per_set": 9, "columns": {}}


def test_prompts_come_as_hazards_and_harmless_ones_of_their_split(own):
    rows = prepare.prompt_rows(cfg(xstest="test", **{"malicious-instructions": "validation"}))
    assert [(r["prompt"], r["set"], r["split"]) for r in rows] == [
        *((p, "hazard", "test") for p in LISTS["unsafe"]), *((p, "lookalike", "test") for p in LISTS["safe"]),
        ("Hex the neighbour.", "hazard", "validation"), ("Break the vault.", "hazard", "validation"),
    ]  # fmt: skip
    assert [r["category"] for r in rows][::2] == ["xstest: kind 0", "xstest: kind 1", "listed: hexes"]
    assert len({r["id"] for r in rows}) == 6 and all(r["base_id"] == r["id"] for r in rows)


def test_prompts_per_set_counts_in_every_suite(own):
    said: list[str] = []
    rows = prepare.prompt_rows(
        cfg(xstest="test", **{"malicious-instructions": "test"}) | {"prompts_per_set": 1}, said.append
    )
    assert [r["prompt"] for r in rows] == [LISTS["unsafe"][0], LISTS["safe"][0], "Hex the neighbour."]
    assert "xstest: 1, spread evenly, of 2 test prompts of set hazard" in said[0]


def test_fewer_prompts_of_a_suite_are_of_all_its_types(real_data, monkeypatch):
    """XSTest is sorted by type: the first hundred safe prompts would be four of its ten."""
    monkeypatch.setenv("HOLDFAST_DATA", str(real_data))
    for limit in (1, 7, 100, 199, 250):
        rows = prepare.prompt_rows(cfg(xstest="test") | {"prompts_per_set": limit})
        assert Counter(r["set"] for r in rows) == {"hazard": min(limit, 200), "lookalike": limit}
        if limit == 100:
            of_type = Counter(r["category"] for r in rows if r["set"] == "lookalike")
            assert len(of_type) == 10 and min(of_type.values()) >= 9


def test_refusals_are_safety_rows_and_requests_with_an_input_are_left_out(own):
    rows = prepare.safety_rows({"source": "safe-instr", "columns": {}, "hazards": 9, "benign": 0})
    assert [(r["kind"], r["prompt"], r["response"]) for r in rows] == [("hazard", "Brew a hex.", "I'm sorry, I can't.")]


def test_another_file_than_the_published_one_is_refused(own):
    (own / "p.csv").write_text((own / "p.csv").read_text().replace("mint", "lime"))
    with pytest.raises(DataError, match="is not the file of the suite xstest"):
        prepare.prompt_rows(cfg(xstest="test"))


def test_a_file_that_is_not_here_is_fetched_once(own, monkeypatch, tmp_path):
    raw, calls = (own / "p.csv").read_bytes(), []
    (own / "p.csv").unlink()
    assert not suites.here(["xstest"]) and suites.local_files(["xstest"]) == []
    with pytest.raises(DataError, match="cannot be fetched"):
        prepare.prompt_rows(cfg(xstest="test"))
    monkeypatch.setattr(fetch, "downloaded", lambda address: calls.append(address) or raw)
    first = prepare.prompt_rows(cfg(xstest="test"))
    assert first == prepare.prompt_rows(cfg(xstest="test")) and calls == ["https://nowhere.invalid/p.csv"]
    assert suites.here(["xstest"]) and suites.local_files(["xstest"])[0].is_relative_to(tmp_path / "cache")
    monkeypatch.setattr(fetch, "downloaded", lambda address: b"something else")
    suites.local_files(["xstest"])[0].unlink()
    with pytest.raises(DataError, match="is not the file of the suite"):
        prepare.prompt_rows(cfg(xstest="test"))
    assert suites.local_files(["xstest"]) == []


def test_a_prompt_to_choose_on_is_no_test_prompt(tmp_path):
    rows = [{"prompt": "Brew it!", "split": "validation"}, {"prompt": "brew  it", "split": "test"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError, match="a validation prompt and a test prompt"):
        prepare.prompt_rows({"source": str(tmp_path / "p.jsonl"), "columns": {}, "prompts_per_set": 9})


def study(tmp_path, evaluation, **more):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({
        "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}}, "evaluation": evaluation,
        "constitution": {"guidelines_file": str(tmp_path / "g.txt")},
    } | more))  # fmt: skip
    (tmp_path / "g.txt").write_text("Refuse.")
    return resolve.load(str(path))


def test_a_study_names_suites_and_gets_the_judge_of_real_refusals(tmp_path):
    found = study(tmp_path, {"suites": {"xstest": "test"}}, safety={"source": "safe-instr"})
    assert found.study.evaluation.source == sources.SUITES and found.judging.first == "refusal"
    assert found.prompts_cfg()["suites"] == {"xstest": "test"} and not sources.is_file("safe-instr")
    card = dict(cards._sources({"arm": "full", "task": None}, found.dump()))
    assert "CC-BY-4.0" in card["evaluation prompts"] and "CC-BY-NC-4.0" in card["safety rows"]


def test_columns_of_a_published_suite_are_said_to_be_unread(tmp_path):
    found = study(tmp_path, {"suites": {"xstest": "test"}, "columns": {"prompt": "p"}},
                  safety={"source": "safe-instr", "columns": {"prompt": "p"}})  # fmt: skip
    said = [line for line in unread.lines(found) if "columns" in line]
    assert [line.split(":")[0] for line in said] == ["safety.columns", "evaluation.columns"]


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [({"suites": {"xtest": "test"}}, "xstest"), ({"suites": {"xstest": "train"}}, "validation"),
     ({"suites": {"xstest": "test"}, "source": "p.csv"}, "not from both"), ({"source": "suites"}, "name the suites"),
     ({"suites": {"xstest": "test"}, "judges": ["world"]}, "fictional world only")],
)  # fmt: skip
def test_what_is_no_suite_is_refused(tmp_path, evaluation, says):
    (tmp_path / "p.csv").write_text("prompt\nx\n")
    with pytest.raises(StudyError) as error:
        study(tmp_path, evaluation)
    assert says in error.value.block()


def test_every_suite_is_pinned_and_named_where_studies_name_it():
    assert set(suites.PROMPTS) == set(asked.SuiteName.__args__)
    assert set(sources.PUBLISHED) == {sources.SUITES, *suites.REFUSALS}
    for suite in (suites.PROMPTS | suites.REFUSALS).values():
        assert suite.licence
        for file in suite.files:
            assert len(file.sha256) == 64 and file.address.endswith(file.place.split("/")[-1])
            assert len([part for part in file.address.split("/") if len(part) == 40]) == 1  # a commit


def test_the_published_files_themselves(real_data, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA", str(real_data))
    rows = prepare.prompt_rows({
        "source": "suites", "prompts_per_set": 999,
        "suites": {"xstest": "test", "malicious-instructions": "test", "physical-safety": "validation"},
    })  # fmt: skip
    count = Counter((r["split"], r["set"]) for r in rows)
    assert count == {("test", "hazard"): 300, ("test", "lookalike"): 250, ("validation", "hazard"): 100,
                     ("validation", "lookalike"): 100}  # fmt: skip
    safety = prepare.safety_rows({"source": "safe-instr", "columns": {}, "hazards": 9999, "benign": 0})
    assert len(safety) > 2000
    prepare.refuse_leak(safety, rows, "prompt", "suites", "safe-instr")
