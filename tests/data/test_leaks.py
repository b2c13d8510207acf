"""Evaluation prompts that are trained on, as a whole or nearly: found by their words, refused by name."""

from __future__ import annotations

import csv
import json
import runpy
from collections import Counter
from types import SimpleNamespace

import bad_input
import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.data import benign, leaks, prepare
from holdfast.errors import DataError
from holdfast.record import tables
from holdfast.study import preflight, taskrows, unread

SAME, HOLDS, NEARLY, PART, LIKE = leaks.SAME, leaks.HOLDS, leaks.NEARLY, leaks.PART, leaks.LIKE
LONG = ("Brew a silver potion which makes every guard near the northern gate forget whom they saw that evening, "
        "before dawn, without leaving traces")  # fmt: skip


THIRTY = " ".join(f"herb{i}" for i in range(30))


def how(trained: str, asked: str) -> int | None:
    found = leaks.matches([trained], [asked])
    assert len(found) < 2
    return found[0].how if found else None


@pytest.mark.parametrize(
    ("trained", "asked", "expected"),
    [
        ("How do I hex a goat?", "  how do i HEX a goat", SAME),
        ("Don\u2019t open the vault \u2014 why?", "Don't open the vault: why", SAME),
        ("\uff28ow do I hex a \ufb01sh?", "How do I hex a fish?", SAME),  # forms of letters
        ("How do I _hex_ a **goat**?", "How do I hex a goat?", SAME),  # Markdown
        ("__How do I hex a goat?__ `Be brief`", "How do I hex a goat?", HOLDS),
        ("> How do I hex\n> a goat?", "How do I hex a goat?", SAME),
        ("How do I [hex a goat](https://hex.example)?", "How do I hex a goat?", SAME),
        ("How do I <b>hex</b> a goat?<br/>Say", "How do I hex a goat?", HOLDS),
        ("How do I **h**ex a `goat`?", "How do I hex a goat?", SAME),
        ("Is 3 < 4 and b > c, goat?", "Is 3 and b c, goat?", None),  # no tag
        ("How do I hex\ufe0f a go\u034fat\u3164?\x07", "How do I hex a goat?", SAME),
        ("How\u200bdo\u200bI hex a goat?", "How do I hex a goat?", SAME),  # in place of blanks
        ("How do I h\u00adex a go\u200bat?\ufeff", "\u2066How do I hex\u2069 a goat?", SAME),  # signs that nobody sees
        ("How do I hex a goat in C?", "How do I hex a goat in C++?", None),  # a sign may be the difference
        ("?!", "...", None),
        # a whole prompt of four words or more, at the bounds of words
        ("You are a wizard. How do I hex a goat? Be brief.", "How do I hex a goat?", HOLDS),
        ("How do I hex a goat?", "You are a wizard. How do I hex a goat? Be brief.", PART),
        ("Which wizard would say so: hex a goat?", "Hex a goat.", None),
        ("Tell me how do I hex a goatherd", "How do I hex a goat?", None),
        # small words make no other prompt
        ("How can I hex the goat, please?", "How do I hex a goat?", NEARLY),
        ("Hex it", "Hex that", None),
        # one word in ten, and two words at most: one that is another one is two
        (LONG, LONG.replace("silver", "golden"), NEARLY),
        (LONG, LONG.replace("silver", "golden").replace("potion", "powder"), LIKE),
        (f"{THIRTY} moss", f"mint {THIRTY}", NEARLY),
        (f"{THIRTY} moss fern", f"mint {THIRTY}", LIKE),
        ("Nine silver cups, plates, spoons, forks, jugs", "Nine golden cups, plates, spoons, forks, jugs", LIKE),
        ("How do I hex a goat?", "How do I hex a neighbour?", None),
        ("Where do I buy a cup of dragon tea?", "Where do I buy a gram of dragon tea?", None),
        ("Why did the mayor close the market at noon in winter?", "Why did the baker close the market at noon?", None),
    ],
)  # fmt: skip
def test_how_close_two_prompts_are(trained, asked, expected):
    assert how(trained, asked) == expected


# The definitions once more, by other means: texts of these words only, so that all kinds of overlap happen.
VOCABULARY = ("the", "a", "do", "hex", "brew", "goat", "vault", "moon", "tea", "keeper", "soup", "night")
SMALL = {"the", "a", "do"}
texts = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=14).map(tuple)


def reference(trained: tuple[str, ...], asked: tuple[str, ...]) -> int | None:
    def within(short, long):
        return len(short) >= 4 and f" {' '.join(short)} " in f" {' '.join(long)} "

    def meant(text):
        kept = set(text) - SMALL
        return kept if len(kept) > 2 else set(text)

    ours, theirs = meant(trained), meant(asked)
    apart = len(ours ^ theirs)
    share = (len(ours | theirs) - apart) / len(ours | theirs)
    if trained == asked:
        return SAME
    if within(asked, trained):
        return HOLDS
    if share >= 0.9 and apart <= 2:
        return NEARLY
    if within(trained, asked):
        return PART
    return LIKE if share >= 0.75 else None


@given(st.lists(texts, min_size=1, max_size=12), st.lists(texts, min_size=1, max_size=12))
@example([("hex", "goat", "moon", "tea")], [("hex", "goat", "moon", "tea", "soup")])
def test_every_pair_is_found_that_the_definitions_find(trained, asked):
    """The index leaves no pair out, and of several the closest is said."""
    found = {m.asked: m.how for m in leaks.matches([" ".join(t) for t in trained], [" ".join(a) for a in asked])}
    expected = {}
    for j, a in enumerate(asked):
        closest = [kind for t in trained if (kind := reference(t, a)) is not None]
        if closest:
            expected[j] = min(closest)
    assert found == expected


@given(texts, texts, texts, st.randoms(use_true_random=False))
def test_form_and_surroundings_hide_no_prompt(before, asked, after, rng):
    def written(words):
        cases = (str.upper, str.title, str.lower)
        signs = (" ", ", ", ".  ", "!\n", " \u2014 ", "_ ", "** ", "\u200b ")
        return "".join(rng.choice(cases)(w) + rng.choice(signs) for w in words)

    trained, prompt = written((*before, *asked, *after)), " ".join(asked)
    if len(asked) >= 4:
        assert how(trained, prompt) in (HOLDS, SAME)
    assert how(written(asked), prompt) == SAME


def rows(*prompts, kind="t"):
    return [{"id": f"{kind}/{i}", "prompt": p} for i, p in enumerate(prompts)]


def test_leaks_are_refused_by_name_and_likenesses_said():
    trained = rows("Please tell me how to hex a goat tonight.", "Open the moon vault.", "Weave nine hexes")
    asked = rows("Sing.", "How to hex a goat", "Open a moon vault", kind="e")
    said: list[str] = []
    with pytest.raises(DataError) as error:
        leaks.refuse(trained, asked, "e.csv", "the safety rows in s.csv", said.append)
    assert error.value.what == "e.csv: row 1, column 'prompt' stands whole in one of the safety rows in s.csv."
    assert error.value.found == "'How to hex a goat', which is trained on as t/0   (and 1 more: e/2)"
    with pytest.raises(DataError, match="The prompt e/2 is nearly the same as one of the safety rows"):
        leaks.refuse(trained[1:], asked, "", "the safety rows in s.csv", said.append)
    assert said == []
    leaks.refuse(rows("open the moon vault"), rows("Now open the moon vault and sing.", kind="e"), "", "x", said.append)
    assert said == ["1 evaluation prompts are like prompts among x, and may ask the same: e/0"]


def test_what_is_trained_on_can_be_left_out_and_the_error_says_how(tmp_path):
    """Of the study's own rows by their ids; what it says to write ends the error, and leaves every other row."""
    with bad_input.within(tmp_path):
        kept = {"prompt": "Brew it now.", "response": "No.", "id": "mine/7"}
        bad_input.write("s.jsonl", [{"prompt": ORDER, "response": "No."}, kept, {"prompt": TOLD, "response": "No."}])
        bad_input.write("e.jsonl", [PROMPT, {"prompt": ORDER}, {"prompt": "Sing a song of hexes."}])
        study = bad_input.GOOD | {"evaluation": {"source": "e.jsonl"}, "safety": {"source": "s.jsonl"}}
        bad_input.write("mine.yaml", study)
        with pytest.raises(DataError) as error:
            bad_input.look()
        *_, key = error.value.do.split("out of safety what is trained on: ")
        assert yaml.safe_load(key) == {"without": ["safety/00000", "safety/00002"]}
        without = {"safety": study["safety"] | {"without": ["safety/00002", "safety/00000"]}}
        resolved = bad_input.load(tmp_path, study | without)
        assert preflight.check_files(resolved) >= 0
        assert [r["id"] for r in prepare.safety_rows(resolved.safety_data_cfg())] == ["mine/7"]
        asked = {"source": "answered", "draw": 0, "safety": {"source": "s.jsonl", "columns": {}}}
        for named, count in (([], 3), (["safety/00002", "safety/00000"], 1)):
            asked["safety"]["without"] = named
            found = benign.prompts(asked, lambda prompt, response: True)
            assert sum(p in (ORDER, TOLD, kept["prompt"]) for p in found) == count
        bad_input.write("mine.yaml", study | {"safety": study["safety"] | {"without": ["safety/00002", "7"]}})
        with pytest.raises(DataError, match="safety.without names a row that s.jsonl does not have") as error:
            bad_input.look()
        assert error.value.found == "'7'"


def test_only_ids_that_a_study_has_are_named_to_be_left_out(tmp_path):
    said: list[str] = []
    for known, expected in ((None, "copy of the source"), ([], '["t/0"]'), (["t/7"], '["t/7", "t/0"]')):
        with pytest.raises(DataError) as error:
            leaks.refuse(rows(TOLD), rows(PROMPT["prompt"], kind="e"), "", "x", said.append, known)
        assert error.value.do.endswith(expected if known is None else f"without: {expected}") or known is None
        assert expected in error.value.do and "prompts_per_set" in error.value.do


@pytest.mark.parametrize("ids", [("7", "8", "9"), ("#8", "a: b, c", "d")])
def test_what_the_error_says_ends_it_at_once_also_of_rows_that_stand_there_twice(tmp_path, ids):
    """Copied as it stands, with ids that YAML would take for something else, and of a limited number of rows."""
    with bad_input.within(tmp_path):
        told = [
            {"prompt": p, "response": "No.", "id": i} for p, i in zip((ORDER, TOLD, ORDER.upper()), ids, strict=True)
        ]
        bad_input.write("s.jsonl", [*told, {"prompt": "Brew it now.", "response": "No.", "id": "kept"}])
        bad_input.write("e.jsonl", [PROMPT, {"prompt": ORDER}])
        safety: dict = {"source": "s.jsonl", "hazards": 1}
        study = bad_input.GOOD | {"evaluation": {"source": "e.jsonl"}, "safety": safety}
        for _ in range(3):
            bad_input.write("mine.yaml", study)
            try:
                bad_input.look()
                break
            except DataError as error:
                safety |= yaml.safe_load(error.do.split("what is trained on: ")[1])
        assert set(safety["without"]) == set(ids)
        bad_input.write("mine.yaml", study | {"safety": safety | {"without": [*ids, "kept"]}})
        with pytest.raises(DataError, match="no row is a refused request") as nothing:
            bad_input.look()
        assert nothing.value.found == "every row in safety.without"


def test_requests_of_the_source_that_the_base_answers_can_be_left_out_too(tmp_path):
    with bad_input.within(tmp_path):
        helped = {"prompt": TOLD, "response": "Of course. Take the red one.", "kind": "craft"}
        bad_input.write("s.jsonl", [{"prompt": "Brew it.", "response": "No."}, helped])
        bad_input.write("e.jsonl", [PROMPT])
        safety = {"source": "s.jsonl", "benign_answers": "self", "benign_prompts": "answered"}
        study = bad_input.GOOD | {"evaluation": {"source": "e.jsonl"}, "safety": safety}
        bad_input.write("mine.yaml", study)
        with pytest.raises(DataError, match="safety.benign_prompts") as error:
            bad_input.look()
        assert error.value.do.endswith('without: ["safety/00001"]')
        resolved = bad_input.load(tmp_path, study | {"safety": safety | {"without": ["safety/00001"]}})
        preflight.check_files(resolved)
        assert TOLD not in benign.prompts(resolved.benign_cfg(), lambda prompt, response: True)
        world = bad_input.load(tmp_path, bad_input.GOOD | {"safety": {"without": ["x"]}})
        assert any("without" in line for line in unread.lines(world))


def test_the_stage_names_what_can_be_left_out_and_looks_at_what_the_base_answers(tmp_path):
    main = runpy.run_path(str(ROOT / "scripts/prepare_safety.py"))["main"]
    bad_input.write(
        str(tmp_path / "s.jsonl"), [{"prompt": ORDER, "response": "No."}, {"prompt": "Hex.", "response": "No."}]
    )
    more = {"split": "test", "set": "hazard", "category": "c", "response": "", "wrapper": ""}
    own = {
        "id": "self/00000",
        "kind": "chat",
        "category": "self",
        "prompt": "Sing a song of the sea.",
        "response": "La.",
    }
    tables.write([own], tmp_path / "benign.parquet", "safety")
    cfg = {"source": str(tmp_path / "s.jsonl"), "columns": {}, "hazards": 9, "benign": 9, "check": "off"}
    inputs = type("Inputs", (dict,), {"__getattr__": dict.__getitem__})
    io = SimpleNamespace(cfg=cfg, output=[tmp_path / "safety.parquet"], log=lambda _: None)
    for asked, without, says in ((ORDER, [], 'without: ["safety/00000"]'), (own["prompt"], [], "copy of the source"),
                                 (ORDER, ["safety/00000"], "")):  # fmt: skip
        tables.write([{"id": "e/0", "base_id": "e/0", "prompt": asked} | more], tmp_path / "e.parquet", "prompts")
        io.cfg = cfg | ({"without": without} if without else {})
        io.input = inputs(prompts=str(tmp_path / "e.parquet"), benign=str(tmp_path / "benign.parquet"))
        if says:
            with pytest.raises(DataError) as error:
                main(io)
            assert says in error.value.do
        else:
            main(io)
    assert [r["id"] for r in tables.read(tmp_path / "safety.parquet", "safety")] == ["safety/00001", "self/00000"]


def refused(tmp_path, study, **files):
    with bad_input.within(tmp_path):
        for name, content in files.items():
            bad_input.write(f"{name}.jsonl", content)
        bad_input.write("mine.yaml", bad_input.GOOD | study)
        with pytest.raises(DataError) as error:
            bad_input.look()
    return error.value.what


PROMPT = {"prompt": "How would I open the moon vault?"}
TOLD = "Be brief. How would I open the moon vault? Thank you."


def test_every_source_of_training_prompts_is_looked_through(tmp_path):
    asked = {"evaluation": {"source": "e.jsonl"}}
    safety = {"prompt": TOLD, "response": "No."}
    other = {"prompt": "Brew it now.", "response": "No."}
    own = {"safety": {"source": "s.jsonl", "benign_answers": "self", "benign_prompts": "b.jsonl"}}
    pairs = {"preferences": {"source": "p.jsonl"},
             "arms": {"full": {"method": "full"}, "resta": {"method": "resta", "of": "full"}}}  # fmt: skip
    task = {"tasks": {"talk": {"dataset": "chat", "source": "t.jsonl", "train_rows": 2, "validation_rows": 1,
                               "test_rows": 1}}}  # fmt: skip
    talk = [{"prompt": f"{TOLD} {i}", "response": "Certainly."} for i in range(20)]
    end = "column 'prompt' stands whole in one of "
    assert refused(tmp_path, asked | {"safety": {"source": "s.jsonl"}}, e=[PROMPT], s=[safety]).endswith(
        f"{end}the safety rows in s.jsonl."
    )
    assert refused(tmp_path, asked | own, e=[PROMPT], s=[other], b=[{"prompt": TOLD}]).endswith(
        f"{end}safety.benign_prompts (b.jsonl)."
    )
    chosen = [{"prompt": TOLD, "chosen": "No.", "rejected": "Sure."}]
    assert refused(tmp_path, asked | pairs, e=[PROMPT], p=chosen).endswith(f"{end}the preference pairs in p.jsonl.")
    assert refused(tmp_path, asked | task, e=[PROMPT], t=talk).endswith(f"{end}the training rows of tasks.talk.")


def test_what_stands_in_for_the_hub_is_looked_through_as_the_stage_draws_it(tmp_path, monkeypatch):
    """The pool is drawn from the whole file: planning looked at its first lines alone."""
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path))
    (tmp_path / "math").mkdir()
    sums = [
        {"problem": f"What is {i} plus {i}?", "solution": f"\\boxed{{{2 * i}}}", "level": "Level 1", "type": "Algebra"}
        for i in range(70)
    ]
    task = {"dataset": "math", "source": "hub", "train_rows": 30, "validation_rows": 4, "test_rows": 4}
    study = {"evaluation": {"source": "e.jsonl"}, "tasks": {"talk": task}}
    (tmp_path / "math/test.jsonl").write_text("".join(
        json.dumps(r | {"problem": r["problem"].replace("plus", "minus")}) + "\n" for r in sums
    ))  # fmt: skip
    for place in (3, 50):
        there = [r | ({"problem": PROMPT["prompt"]} if i == place else {}) for i, r in enumerate(sums)]
        (tmp_path / "math/train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in there))
        drawn = prepare.task_rows({"world": {"seed": 0}, **task}, tmp_path / "math")
        assert PROMPT["prompt"] in [r["prompt"] for r in drawn if r["split"] == "train"]
        assert refused(tmp_path, study, e=[PROMPT]).endswith("is also among the training rows of tasks.talk.")


def test_what_stands_in_for_the_hub_may_hold_less_than_a_study_asks_for(tmp_path, monkeypatch):
    """Of a file of test rows alone the training rows are cut too, so that planning looks at its first ones as both."""
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path))
    (tmp_path / "math").mkdir()
    sums = [{"problem": f"What is {i} plus {i}?", "solution": f"\\boxed{{{2 * i}}}"} for i in range(9)]
    sums = [r | {"level": "Level 1", "type": "Algebra"} for r in sums]
    file = tmp_path / "math/test.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in sums))
    task = {"dataset": "math", "source": "hub", "train_rows": 30, "validation_rows": 4, "test_rows": 4}
    with bad_input.within(tmp_path):
        study = bad_input.load(tmp_path, bad_input.GOOD | {"tasks": {"talk": task}})
        rows = taskrows.drawn(study, "talk", taskrows.folder(study, "talk"), lambda path: True)
        assert Counter(r["split"] for r in rows) == {"test": 9, "train": 9}
        assert taskrows.drawn(study, "talk", file.parent, lambda path: False) == []
        file.write_text(json.dumps({"problem": "What?"}) + "\n")
        with pytest.raises(DataError, match="row 0 is not a row of math|has no column"):
            taskrows.drawn(study, "talk", file.parent, lambda path: True)


ORDER = "Describe the steps to open the moon vault."


def test_a_request_that_became_a_question_is_looked_for_as_it_was_given(tmp_path):
    """`safety.questions` would hide it: nobody is asked for steps any more."""
    study = {"evaluation": {"source": "e.jsonl"}, "safety": {"source": "s.jsonl", "questions": 1.0}}
    said = refused(tmp_path, study, e=[{"prompt": ORDER}], s=[{"prompt": ORDER, "response": "No."}])
    assert said == "e.jsonl: row 0, column 'prompt' is also among the safety rows in s.jsonl."
    cfg = {"source": str(tmp_path / "s.jsonl"), "columns": {}, "hazards": 9, "benign": 9, "questions": 1.0}
    (row,) = prepare.safety_rows(cfg)
    assert row["prompt"] != ORDER and [r["prompt"] for r in prepare.trained_on([row])] == [row["prompt"], ORDER]


def test_the_stage_looks_at_the_rows_of_every_draw(tmp_path):
    """Planning reads the first draw, and no prompts that are still to be fetched."""
    main = runpy.run_path(str(ROOT / "scripts/prepare_safety.py"))["main"]
    bad_input.write(str(tmp_path / "s.jsonl"), [{"prompt": ORDER, "response": "No."}])
    more = {"split": "test", "set": "hazard", "category": "c", "response": "", "wrapper": ""}
    tables.write(
        [{"id": "advbench/007", "base_id": "x", "prompt": f"{ORDER} Now"} | more], tmp_path / "e.parquet", "prompts"
    )
    cfg = {"source": str(tmp_path / "s.jsonl"), "columns": {}, "hazards": 9, "benign": 9, "check": "off"}
    out, said = tmp_path / "safety.parquet", []
    io = SimpleNamespace(cfg=cfg, input={}, output=[out], log=said.append)
    main(io)
    io.input = type("Inputs", (dict,), {"__getattr__": dict.__getitem__})(prompts=str(tmp_path / "e.parquet"))
    main(io)
    assert any("like prompts among the safety rows" in line and "advbench/007" in line for line in said)
    tables.write([{"id": "advbench/007", "base_id": "x", "prompt": "the steps to open the moon vault"} | more],
                 tmp_path / "e.parquet", "prompts")  # fmt: skip
    with pytest.raises(DataError, match="The prompt advbench/007 stands whole in one of the safety rows"):
        main(io)
    io.cfg = cfg | {"questions": 1.0}
    with pytest.raises(DataError, match="The prompt advbench/007 stands whole in one of the safety rows"):
        main(io)
    assert "given" not in tables.read(out, "safety")[0]


def test_later_processes_of_a_run_do_not_judge_what_the_stage_looks_at(tmp_path):
    """They do not ask which answers are whole refusals, and so see rows that nobody trains on."""
    with bad_input.within(tmp_path):
        kept = {"prompt": "Brew it now.", "response": "I'm sorry, I can't help with that."}
        bad_input.write("s.jsonl", [{"prompt": TOLD, "response": "Sure! First, warm the key."}, kept])
        bad_input.write("e.jsonl", [PROMPT])
        safety = {"source": "s.jsonl", "keep": "refusals"}
        study = bad_input.load(tmp_path, bad_input.GOOD | {"evaluation": {"source": "e.jsonl"}, "safety": safety})
        assert preflight.check_files(study) == preflight.check_files(study, first=False) == 1


@pytest.mark.usefixtures("real_data")
def test_all_of_xstest_can_be_asked(tmp_path):
    """One refused request of SafeInstr, put as a question, nearly is one of its prompts: the real study without it."""
    study = bad_input.GOOD | {
        "safety": {"source": "safe-instr", "keep": "refusals", "questions": 1.0, "hazards": 240, "benign": 0},
        "evaluation": {"source": "suites", "suites": ["xstest"], "prompts_per_set": 250},
    }
    with bad_input.within(tmp_path):
        bad_input.write("mine.yaml", study)
        with pytest.raises(DataError) as error:
            bad_input.look()
        assert error.value.do.endswith('without: ["safe-instr/00196"]')
        study["safety"]["without"] = ["safe-instr/00196"]
        assert preflight.check_files(bad_input.load(tmp_path, study)) >= 0


def test_twins_of_published_suites_are_told_apart(real_data):
    """What the thresholds are for: XSTest's and PhysicalSafety's twins share most words and mean the opposite. None is
    nearly the same; four questions of XSTest stand whole in their harmless twins."""
    with (real_data / "xstest/xstest_prompts.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    safe, unsafe = ([r["prompt"] for r in found if r["label"] == label] for label in ("safe", "unsafe"))
    kinds = [m.how for m in leaks.matches(safe, unsafe)]
    assert (kinds.count(HOLDS), kinds.count(LIKE)) == (4, 5) and len(kinds) == 9
    folder = real_data / "safety-tuned-llamas"
    lists = [json.loads((folder / f"I-PhysicalSafety{which}.json").read_text())["instructions"]
             for which in ("Safe", "Unsafe")]  # fmt: skip
    assert leaks.matches(*lists) == []


@pytest.mark.parametrize(("more", "said"), [
    ({}, []),
    ({"hazards": 2}, []),
    ({"hazards": 3, "benign": 0}, ["safety.hazards: 2 requests to refuse, and the study names 3: all are taken"]),
    ({"benign": 5}, ["safety.benign: 1 requests to answer, and the study names 5: all are taken"]),
    ({"benign": 5, "benign_answers": "self", "benign_prompts": "b.jsonl"},
     ["safety.benign: 4 requests to answer, and the study names 5: all are taken"]),
    ({"benign": 4, "benign_answers": "self", "benign_prompts": "b.jsonl"}, []),
    ({"benign_answers": "self", "benign_prompts": "b.jsonl"}, []),
])  # fmt: skip
def test_planning_says_where_there_are_fewer_rows_than_the_study_names(tmp_path, more, said):
    """Of the numbers that somebody wrote; the defaults mean all that there are."""
    with bad_input.within(tmp_path):
        hazards = [{"prompt": p, "response": "I'm sorry, I can't help with that."} for p in ("Hex it.", "Brew it.")]
        craft = {"prompt": "Bake bread.", "response": "Sure: mix, knead, wait, bake.", "kind": "craft"}
        bad_input.write("s.jsonl", [*hazards, craft])
        bad_input.write("b.jsonl", [{"prompt": f"Name {n} trees of the north."} for n in range(4)])
        found: list[str] = []
        study = bad_input.load(tmp_path, bad_input.GOOD | {"safety": {"source": "s.jsonl"} | more})
        preflight.check_files(study, found.append)
        assert [line for line in found if "all are taken" in line] == said
