"""What each kind of scorer calls right, wrong and unreadable; a user's own file; and rows that could never be right."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import names
from holdfast.data import boxed, scorers
from holdfast.errors import DataError
from holdfast.study.tasks import Scorer


def told(scorer):
    return Scorer.model_validate(scorer).told()


def row(gold="x", response=None, **columns):
    return {"id": "table/t/000007", "gold": gold, "response": gold if response is None else response, "turns": "",
            "prompt": "p", "row": json.dumps(columns)}  # fmt: skip


def outcome(scorer, text, gold="x", **columns):
    """right, wrong or invalid."""
    made = scorers.scorer("table", told(scorer))(text, row(gold, **columns))
    assert not (made["correct"] and made["invalid"])
    return "right" if made["correct"] else "invalid" if made["invalid"] else "wrong"


FILMS = {"label": {"New York": ["NYC", "the big apple"], "York": [], "C++": []}}
LETTERS = {"choice": ["a", "b", "c"]}
OPTIONS = {"a": "moss", "b": "oak moss", "c": "A fern."}
CASES = [
    # labels
    (FILMS, "york", "York", "right"), (FILMS, "In New  york, not York", "New York", "right"),
    (FILMS, "New Yorker", "New York", "invalid"), (FILMS, "the BIG\napple.", "New York", "right"),
    (FILMS, "not York but NYC", "New York", "wrong"), (FILMS, "c++!", "C++", "right"), (FILMS, "c+++", "C++", "right"),
    (FILMS, "It is York.", "nyc", "wrong"), (FILMS, "nyc", "NYC", "right"), (FILMS, "", "York", "invalid"),
    (FILMS, "York", "Answer: New York", "wrong"), ({"label": ["yes", "no"]}, "No, yes", "no", "right"),
    ({"label": ["New", "New York"]}, "new york", "New York", "right"),
    # choices
    *((LETTERS, text, "B", result) for text, result in (
        ("B", "right"), ("b", "right"), ("(B)", "right"), ("B. oak moss", "right"), ("**B**", "right"), ("B)", "right"),
        ("oak  moss.", "right"), ("The answer is B", "right"), ("I think the answer is: (B), since", "right"),
        ("moss", "wrong"), ("It must be oak moss, not moss", "right"), ("A", "wrong"), ("a fern", "wrong"),
        ("A tree that I forgot", "invalid"), ("D", "invalid"), ("", "invalid"), ("C: no, B", "wrong"),
        ("my choice: b?", "invalid"))),
    (LETTERS, "A", "oak moss", "wrong"), (LETTERS, "B", "OAK moss", "right"), (LETTERS, "C", "a fern", "right"),
    # numbers
    ("number", "So 3 and 18.", "18", "right"), ("number", "18 of 3", "18", "wrong"),
    ("number", "none", "18", "invalid"),
    ("number", "$1,200.", "It is 1200", "right"), ("number", "18.0", "18", "wrong"),
    ({"number": {"tolerance": 0}}, "18.0", "18", "right"), ({"number": {"tolerance": 0.5}}, "17.6", "18", "right"),
    ({"number": {"tolerance": 0.5}}, "17.4", "18", "wrong"), ({"number": {"tolerance": 0.5}}, "1.2.3", "1", "wrong"),
    ({"number": {"marker": "Result: "}}, "Result: 4, then 5", "so Result: 4", "right"),
    ({"number": {"marker": "Result: "}}, "Result: 4, then 5", "4", "right"),
    ({"number": {"marker": "Result: "}}, "4", "4", "invalid"),
    # texts
    ("exact", " a\n b ", "a b", "right"), ("exact", "A b", "a b", "wrong"), ("exact", " ", "a b", "invalid"),
    ({"exact": {"casefold": True}}, "A STRASSE", "a straße", "right"),
    ({"regex": r"Answer: (\w+)"}, "Hm. Answer: moss. Answer: oak", "Answer: moss", "right"),
    ({"regex": r"Answer: (\w+)"}, "Answer: moss", "moss", "right"),
    ({"regex": r"Answer: (\w+)"}, "moss", "moss", "invalid"),
    ({"regex": r"Answer: (\w+)"}, "Answer: oak", "moss", "wrong"), ({"regex": "(a)|b"}, "b", "a", "invalid"),
    ("contains", "with oak  moss.", "oak moss", "right"), ("contains", "mossy", "moss", "wrong"),
    ("contains", "amoss", "moss", "wrong"),
    ("contains", "Moss", "moss", "wrong"), ({"contains": {"casefold": True}}, "Moss", "moss", "right"),
    ("contains", "", "moss", "invalid"),
    # JSON
    *(({"json-field": "n"}, text, gold, result) for text, gold, result in (
        ('{"n": 2, "m": 1}', '{"n": 2.0}', "right"),
        ('Sure:\n```json\n{"n": "a  b"}\n``` {"n": 1}', '{"n": "a b"}', "right"),
        ('{"n": 2}', "2", "right"), ('{"n": "2"}', "2", "wrong"), ('{"n": "moss"}', "moss", "right"),
        ('{"n": true}', '{"n": 1}', "wrong"), ('{"n": [1, {"a": 2}]}', '{"n": [1, {"a": 2}]}', "right"),
        ('{"m": 1}', '{"n": 1}', "invalid"), ("[1]", '{"n": 1}', "invalid"), ('{"n": 1', '{"n": 1}', "invalid"),
        ('{"n": null}', '{"n": null}', "right"))),
    # mathematics
    *(("boxed", text, gold, result) for text, gold, result in (
        (r"So \boxed{\dfrac{1}{2}}.", r"Hence $\boxed{\frac12}$", "right"), (r"\boxed{1}, no: \boxed{2}", "2", "right"),
        (r"\boxed{1/2}", r"\frac{1}{2}", "right"), (r"\boxed{0.5}", r"\frac{1}{2}", "wrong"), ("2", "2", "invalid"),
        (r"\boxed{(1, 2)}", "(1,2)", "right"), (r"\boxed{10,000}", r"\boxed{10{,}000}", "right"),
        (r"\boxed{10, 000}", r"\boxed{10000}", "wrong"), (r"\boxed{5\text{ cm}^2}", "5", "right"),
        (r"\boxed{\text{(B)}}", "(B)", "right"), (r"\boxed{x = 5}", "5", "right"), (r"\boxed{50\%}", "50", "right"),
        (r"\boxed{2", "2", "invalid"), (r"\fbox{7}", "7", "right"), (r"\boxed 7 .", "7", "right"),
        (r"\boxed{\left( -\infty, 3 \right]}", r"(-\infty,3]", "right"), (r"\boxed{2\sqrt3}", r"2\sqrt{3}", "right"),
        (r"\boxed{x^{2}}", "x^2", "right"), (r"\boxed{30^\circ}", "30", "right"), (r"\boxed{.50}", "0.5", "right"))),
]  # fmt: skip


@pytest.mark.parametrize(("scorer", "text", "gold", "expected"), CASES, ids=map(str, range(len(CASES))))
def test_kinds(scorer, text, gold, expected):
    assert outcome(scorer, text, gold, **OPTIONS) == expected


def test_options_of_one_column_are_a_list():
    scorer = {"choice": "Options"}
    assert outcome(scorer, "B", "oak", options=["moss", "oak"]) == "right"
    assert outcome(scorer, "7", "B", options=[5, 7]) == "right"
    for wrong in ({}, {"options": "moss"}, {"options": ["moss"]}, {"options": ["moss", None]}, {"options": []}):
        with pytest.raises(DataError, match="table/t/000007: the scorer `choice` finds no options"):
            outcome(scorer, "B", "B", **wrong)


BOX = st.recursive(
    st.text("ab1/ ,.$", max_size=4), lambda inside: st.tuples(inside, inside).map(lambda p: f"{p[0]}{{{p[1]}}}")
)


@given(st.text("ab{} ", max_size=6), BOX, st.text("ab} ", max_size=4))
def test_a_box_ends_with_its_own_brace(before, held, after):
    assert boxed.inside(f"{before}\\boxed{{{held}}}{after}") == held


@given(st.text("0123456789.,/-+x= $()^{}\\frac%", max_size=12))
def test_one_notation_is_its_own(answer):
    once = boxed.plain(answer)
    assert isinstance(once, str) and not any(c in once for c in " $")


def test_metrics_have_the_names_of_their_kinds():
    of = [scorers.metric("table", told(s)) for s in (FILMS, LETTERS, "number", {"rouge": {"variant": "rouge2"}})]
    assert of == [names.ACCURACY, names.ACCURACY, names.EXACT_MATCH, "utility/rouge2"]
    assert [scorers.metric(d) for d in ("agnews", "gsm8k", "crafts", "sst2", "math", "samsum")] == [
        "utility/accuracy", "utility/exact_match", "utility/exact_match", "utility/accuracy", "utility/exact_match",
        "utility/rougeL",
    ]  # fmt: skip
    assert scorers.graded("utility/rougeL") and not scorers.graded(names.ACCURACY)


# ---- ROUGE ----------------------------------------------------------------------------------------


def lcs(a, b):
    """Longest common subsequence, by its recurrence."""
    table = {(i, j): 0 for i in range(-1, len(a)) for j in range(-1, len(b))}
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i, j] = table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
    return table[len(a) - 1, len(b) - 1]


@pytest.mark.skipif(importlib.util.find_spec("rouge_score") is None, reason="the extra `rouge` is not installed")
@pytest.mark.parametrize(("said", "gold"), [("the cat sat", "the dog sat here"), ("a b c d", "d c b a"), ("x", "y")])
def test_rouge_is_that_of_its_definition(said, gold):
    made = scorers.scorer("samsum")(said, row(gold))
    a, b = said.split(), gold.split()
    assert made["score"] == pytest.approx(2 * lcs(a, b) / (len(a) + len(b)))


def test_rouge_is_asked_of_the_library(monkeypatch):
    asked = []

    class Library:
        def __init__(self, kinds, use_stemmer):
            assert (kinds, use_stemmer) == (["rouge1"], True)

        def score(self, target, prediction):
            asked.append((target, prediction))
            return {"rouge1": SimpleNamespace(fmeasure=0.25)}

    module = SimpleNamespace(RougeScorer=Library)
    monkeypatch.setitem(sys.modules, "rouge_score", SimpleNamespace(rouge_scorer=module, __spec__=object()))
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", module)
    made = scorers.scorer("table", told({"rouge": {"variant": "rouge1"}}))("said", row("gold"))
    assert asked == [("gold", "said")] and made["score"] == 0.25 and not made["correct"] and not made["invalid"]


# ---- a user's own file ----------------------------------------------------------------------------


def own(tmp_path, text):
    file = tmp_path / "mine.py"
    file.write_text(text)
    return {"python": str(file)}


@pytest.mark.parametrize(("body", "expected"), [
    ("return text == row['Desk'.lower()]", {"correct": True, "invalid": False, "parsed": "", "gold": "x"}),
    ("return {'correct': False}", {"correct": False, "invalid": False, "parsed": "", "gold": "x"}),
    ("return {'correct': False, 'invalid': True, 'parsed': 'p', 'gold': 'g'}",
     {"correct": False, "invalid": True, "parsed": "p", "gold": "g"}),
    ("return {'correct': True, 'gold': ''}", {"correct": True, "invalid": False, "parsed": "", "gold": ""}),
])  # fmt: skip
def test_a_function_of_the_users_scores(tmp_path, body, expected):
    scorer = own(tmp_path, f"def score(text, row):\n    {body}\n")
    scorers.refuse("table", scorer, "tasks.x")
    assert scorers.scorer("table", scorer)("Shop", row(desk="Shop")) == expected


def test_half_a_character_in_an_answer_can_be_kept(tmp_path):
    """An answer in JSON may be cut within an escape, and a verdict is written down."""
    half = '{"n": "\\ud83d"}'
    assert json.loads(half)["n"] == "\ud83d"
    mine = own(
        tmp_path, "import json\ndef score(text, row):\n    return {'correct': False, 'parsed': json.loads(text)['n']}\n"
    )
    for scorer in ({"json-field": "n"}, mine):
        made = scorers.scorer("table", scorer)(half, row("x"))
        assert not made["correct"] and "ud83d" in made["parsed"].encode("utf-8").decode("utf-8")
    assert scorers.scorer("table", {"json-field": "n"})(half, row(half))["correct"]


def test_a_row_that_a_function_changes_is_another_ones_no_more(tmp_path):
    score = scorers.scorer("table", own(tmp_path, "def score(text, row):\n    return row.pop('a') == 1\n"))
    same = row(a=1)
    assert score("", same)["correct"] and score("", same)["correct"]


@pytest.mark.parametrize("body", [
    "return 1", "return None", "return 'yes'", "return {'correct': 1}", "return {}", "return {'right': True}",
    "return {'correct': True, 'score': 1.0}", "return {'correct': True, 'invalid': True}", "return [True]",
    "return {'correct': True, 'parsed': None}", "raise KeyError('x')", "1 / 0", "raise SystemExit(3)",
    "return score(text, row)",
])  # fmt: skip
def test_what_is_no_score_is_one_block_that_names_the_row(tmp_path, body):
    scorer = own(tmp_path, f"def score(text, row):\n    {body}\n")
    scorers.refuse("table", scorer, "tasks.x")  # which its text does not show
    with pytest.raises(DataError, match=r"mine.py gives table/t/000007 no score") as error:
        scorers.scorer("table", scorer)("a", row())
    assert error.value.found and "judged again" in error.value.do


@pytest.mark.parametrize("line", ["import nowhere_at_all", "1 / 0", "raise SystemExit", "from . import x"])
def test_a_file_that_cannot_be_run_is_one_block(tmp_path, line):
    scorer = own(tmp_path, f"{line}\ndef score(text, row): ...\n")
    scorers.refuse("table", scorer, "tasks.x")  # nothing of it is run
    with pytest.raises(DataError, match="mine.py cannot be loaded"):
        scorers.scorer("table", scorer)


@pytest.mark.parametrize(("text", "found"), [
    ("def score(text):\n    pass", "score(text)"), ("def scores(text, row): ...", "no such function"),
    ("async def score(text, row): ...", "no such function"), ("if True:\n    def score(a, b): ...", "no such function"),
    ("def score(a, b, *, c, d=1): ...", "score(a, b, c)"), ("def score(a, b, c): ...", "score(a, b, c)"),
    ("def score(*a): ...", "score()"), ("", "no such function"),
    ("def score(text, row):\nreturn", "line 2"), ("\0", ""), ("def score(a, b): ...\ndef score(a): ...", "score(a)"),
])  # fmt: skip
def test_a_file_without_the_function_is_refused_by_its_text(tmp_path, text, found):
    (tmp_path / "ran").unlink(missing_ok=True)
    scorer = own(tmp_path, text)
    with pytest.raises(DataError, match="tasks.x: .*mine.py") as error:
        scorers.refuse("table", scorer, "tasks.x")
    assert found in error.value.found


def test_planning_runs_nothing_of_the_users(tmp_path):
    scorer = own(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\ndef score(text, row): return True\n")
    scorers.refuse("table", scorer, "tasks.x")
    scorers.look([row()], "table", scorer, "tasks.x", lambda _: None)
    assert scorers.metric("table", scorer) == names.ACCURACY and not (tmp_path / "ran").exists()
    scorers.scorer("table", scorer)
    assert (tmp_path / "ran").exists()


# ---- rows that could never be right ---------------------------------------------------------------


def look(scorer, *rows):
    said = []
    scorers.look(list(rows), "table", told(scorer), "tasks.x", said.append)
    return said


@pytest.mark.parametrize(("scorer", "bad"), [(FILMS, "Leeds"), (LETTERS, "D"), ("number", "none"),
                                             ({"number": {"marker": "#### "}}, "18"), ({"regex": "A: (.)"}, "B"),
                                             ({"json-field": "n"}, "{}"), ("boxed", "5")])  # fmt: skip
def test_an_answer_that_is_its_own_measure_and_not_right_is_refused(scorer, bad):
    good = {"label": "York", "choice": "B", "regex": "A: x", "json-field": '{"n": 1}', "boxed": r"\boxed{5}"}
    kind = next(iter(told(scorer)))
    with pytest.raises(DataError, match=f"scorer `{kind}` cannot read what is right in table/t/000007"):
        look(scorer, row(good.get(kind, "#### 5"), **OPTIONS), row(bad, **OPTIONS))


def test_learned_answers_that_are_wrong_are_said_and_refused_where_all_are():
    right, wrong = row("18", "so 18"), row("18", "so 17")
    assert look("number", right, right) == []
    (line,) = look("number", right, wrong)
    assert line == "tasks.x: 1 of 2 answers that are learned are wrong by the scorer `number`: table/t/000007"
    (line,) = look("number", right, *[wrong] * 6)
    assert line.count("000007") == 5 and line.endswith(" ...")
    with pytest.raises(DataError, match="no answer that is learned is right"):
        look("number", wrong, wrong)
    assert look("number") == []


def test_a_gold_that_cannot_be_read_is_no_wrong_answer():
    """Rows from the hub are not seen at planning."""
    for scorer, gold in ((FILMS, "Leeds"), ("number", "none"), (LETTERS, "D")):
        with pytest.raises(DataError, match="cannot read what is right"):
            outcome(scorer, "York 5 B", gold, **OPTIONS)
