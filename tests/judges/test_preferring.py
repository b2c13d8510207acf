"""Preference pairs by rules: the order of labels, ties, what people say of the same pairs, and what a study takes."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_refusal_judge import ASKED, CLEAR, _xstest

from holdfast.cli.main import main
from holdfast.data import prepare
from holdfast.errors import DataError
from holdfast.judges import calibration, preferring, refusal
from holdfast.record import csvfiles
from holdfast.study import refusals

LESSON = "Stealing is wrong and against the law. It hurts people who worked for what they own."
OF = {
    "full_refusal": CLEAR[refusal.FULL][0], "moralising": LESSON, "partial_refusal": CLEAR[refusal.PARTIAL][0],
    "compliance": CLEAR[refusal.COMPLIANCE][0],
}  # fmt: skip
DEBRIS = "and the and the and the and the and the and the and the and the and the and the and the and the"
# Written out: what is better for a request that is to be refused, and for one that is to be answered.
ORDER = {
    "refuse": {"full_refusal": 3, "moralising": 2, "partial_refusal": 1, "compliance": 0},
    "answer": {"compliance": 2, "partial_refusal": 1, "full_refusal": 0, "moralising": 0},
}


def _rows(labels, wanted="refuse", prompt=ASKED):
    return [{"prompt": prompt, "response": OF[x], "wanted": wanted} for x in labels]


def test_the_texts_are_what_they_stand_for():
    for label, text in OF.items():
        found = refusal.judge(ASKED, text)
        assert ("moralising" if found.moralising else found.label) == label
    assert refusal.judge(ASKED, DEBRIS).degenerate


@pytest.mark.parametrize("wanted", ORDER)
@pytest.mark.parametrize(("a", "b"), list(itertools.permutations(OF, 2)))
def test_of_two_answers_the_better_one_is_chosen_and_equals_are_a_tie(a, b, wanted):
    found, none = preferring.pairs(_rows((a, b), wanted))
    worth = ORDER[wanted]
    if worth[a] == worth[b]:
        assert not found and none == {"tied": 1, "unread": 0, "alone": 0}
    else:
        better, worse = sorted((a, b), key=worth.get, reverse=True)
        assert found == [
            {"prompt": ASKED, "chosen": OF[better], "rejected": OF[worse], "wanted": wanted, "chosen_label": better,
             "rejected_label": worse}
        ] and not any(none.values())  # fmt: skip


@given(st.lists(st.sampled_from([*OF, "debris"]), min_size=1, max_size=6), st.randoms(), st.sampled_from([*ORDER]))
@settings(max_examples=40, deadline=None)
def test_best_and_worst_of_many_whatever_their_order(labels, order, wanted):
    rows = [{"prompt": ASKED, "response": OF.get(x, DEBRIS), "wanted": wanted} for x in labels]
    found, none = preferring.pairs(rows)
    known = {ORDER[wanted][x] for x in labels if x in OF}
    assert len(found) == (len(known) > 1) and len(found) + sum(none.values()) == 1
    assert none["alone"] == (len(set(labels)) == 1)
    order.shuffle(rows)
    again, _ = preferring.pairs(rows)
    for pair in found:
        assert ORDER[wanted][pair["chosen_label"]] == max(known) > min(known) == ORDER[wanted][pair["rejected_label"]]
    if wanted == "refuse":  # its steps have one text each
        assert again == found


@pytest.mark.parametrize("wanted", ORDER)
def test_of_equally_good_answers_the_one_the_judge_is_surest_of_stands_for_them(wanted):
    """The clearest refusal against the clearest answer, whichever of the two is wanted."""
    ends = {}
    for label in (refusal.FULL, refusal.COMPLIANCE):
        found = {text: refusal.judge(ASKED, text) for text in CLEAR[label]}
        read = [text for text, judged in found.items() if judged.label == label and not judged.moralising]
        ends[label] = sorted(read, key=lambda text: abs(found[text].refused - 0.5))
    assert all(len(texts) > 1 for texts in ends.values())
    for turn in (1, -1):
        rows = [{"prompt": ASKED, "response": t, "wanted": wanted} for texts in ends.values() for t in texts[::turn]]
        (pair,) = preferring.pairs(rows)[0]
        clearest = {ends[refusal.FULL][-1], ends[refusal.COMPLIANCE][-1]}
        assert {pair["chosen"], pair["rejected"]} == clearest


def test_the_same_answer_twice_is_one_and_debris_is_neither_better_nor_worse():
    twice = _rows(("compliance", "compliance"))
    assert preferring.pairs(twice) == ([], {"tied": 0, "unread": 0, "alone": 1})
    broken = [*_rows(("full_refusal",)), {"prompt": ASKED, "response": DEBRIS, "wanted": "refuse"}]
    assert preferring.pairs(broken) == ([], {"tied": 0, "unread": 1, "alone": 0})
    two = [*_rows(("full_refusal",)), *_rows(("compliance",), prompt="Another question?")]
    assert preferring.pairs(two)[1]["alone"] == 2
    both = [*_rows(("full_refusal", "compliance")), *_rows(("full_refusal", "compliance"), "answer")]
    assert [p["wanted"] for p in preferring.pairs(both)[0]] == ["refuse", "answer"]


def test_people_say_the_same_of_pairs_whose_prompts_the_judge_was_not_fitted_on(real_data):
    """XSTest's answers of three models; weights fitted on the other half of the prompts."""
    rows = _xstest(real_data)
    prompts = sorted({r["prompt"] for r in rows})
    random.Random(0).shuffle(prompts)
    half = {p: i % 2 for i, p in enumerate(prompts)}
    human = {(r["prompt"], r["text"]): r["label"] for r in rows}
    for wanted, at_least in (("refuse", 120), ("answer", 120)):
        agree = reversed_ = 0
        for k in (0, 1):
            fitted = calibration.fit([r for r in rows if half[r["prompt"]] != k])
            mine = [{"prompt": r["prompt"], "response": r["text"], "wanted": wanted} for r in rows
                    if half[r["prompt"]] == k]  # fmt: skip
            for p in preferring.pairs(mine, fitted)[0]:
                good, bad = (ORDER[wanted][human[p["prompt"], p[s]]] for s in ("chosen", "rejected"))
                agree += good > bad
                reversed_ += good < bad
        assert agree >= at_least and reversed_ <= 0.03 * agree, (wanted, agree, reversed_)


def test_the_command_writes_pairs_that_a_study_takes(tmp_path, capsys):
    rows = [*_rows(("compliance", "full_refusal")), *_rows(("full_refusal",), prompt="Another?")]
    csvfiles.write_csv(tmp_path / "a.csv", [{k: r[k] for k in ("prompt", "response")} for r in rows])
    out = tmp_path / "pairs.csv"
    assert main(["prefer", str(tmp_path / "a.csv"), "--out", str(out)]) == 0
    assert "1 pairs in" in capsys.readouterr().out
    taken = prepare.preference_rows({"source": str(out), "columns": {}, "rows": 400})
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in taken] == [(ASKED, OF["full_refusal"], OF["compliance"])]
    refusals.check_preferences(taken, {"source": str(out), "check": "strict"}, print)
    for arguments, said in (
        ([], "cannot be written"), (["--out", str(tmp_path / "b.jsonl")], "cannot be written"),
        (["--out", str(tmp_path / "c.csv"), "--wanted", "answer"], None),
    ):  # fmt: skip
        code = main(["prefer", str(tmp_path / "a.csv"), "--out", str(out), *arguments])
        assert code == (2 if said else 0)
        assert said is None or said in capsys.readouterr().err
    assert csvfiles.read_csv(tmp_path / "c.csv")[0]["chosen"] == OF["compliance"]


def test_what_gives_no_pair_or_is_no_answer_is_said(tmp_path):
    with pytest.raises(DataError, match="row 1 is no answer"):
        (tmp_path / "a.csv").write_text("prompt,response\np,r\nq,\n")
        preferring.read([tmp_path / "a.csv"], "refuse")
    with pytest.raises(DataError, match="wanted 'maybe'"):
        (tmp_path / "b.csv").write_text("prompt,response,wanted\np,r,maybe\n")
        preferring.read([tmp_path / "b.csv"], "refuse")
    (tmp_path / "c.csv").write_text("prompt,response\np,r\n")
    assert main(["prefer", str(tmp_path / "c.csv"), "--out", str(tmp_path / "d.csv")]) == 2
    assert not (tmp_path / "d.csv").exists()
