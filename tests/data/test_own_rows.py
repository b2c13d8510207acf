"""Rows of a user: nothing is guessed in silence, nothing becomes the word for something else."""

from __future__ import annotations

import json

import pytest

from holdfast.data import fetch, gsm8k, leaks, prepare
from holdfast.errors import DataError
from holdfast.record import userfiles

CFG = {"columns": {}, "prompts_per_set": 50, "hazards": 50, "benign": 50, "rows": 50}


def jsonl(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return CFG | {"source": str(path)}


def prompts(tmp_path, rows):
    said: list[str] = []
    return prepare.prompt_rows(jsonl(tmp_path, rows), said.append), said


def telling(column, values, **more):
    return [{"prompt": f"p{i}", column: v, **more} for i, v in enumerate(values)]


HIDDEN = {
    "XSTest's words": telling("label", ["safe", "unsafe", "safe"]),
    "with an empty cell": telling("label", ["safe", "unsafe", ""]),
    "with nothing in a cell": telling("label", ["safe", None, "unsafe"]),
    "capitals": telling("Type", ["Safe", "UNSAFE"]),
    "harmful and unharmful": telling("prompt_harm_label", ["harmful", "unharmful"]),
    "harmless": telling("kind_of", ["harmful", "harmless"]),
    "numbers": telling("label", [1, 0, 1]),
    "truth": telling("is_safe", [True, False]),
    "yes and no": telling("safe", ["yes", "no"]),
    "a set of nothing": telling("label", ["safe", "unsafe"], set=None),
    "not in the first row": [{"prompt": "a"}, *telling("label", ["safe", "unsafe"])],
}


@pytest.mark.parametrize("rows", HIDDEN.values(), ids=HIDDEN)
def test_a_column_that_says_who_is_safe_is_asked_about(tmp_path, rows):
    with pytest.raises(DataError, match="no column `set` says"):
        prompts(tmp_path, rows)


@pytest.mark.parametrize("rows", [telling("topic", ["safes", "locks"]), telling("label", ["a", "b", "c", "d", "e"]),
                                  telling("label", ["unsafe", "unsafe"])])  # fmt: skip
def test_other_columns_are_no_label(tmp_path, rows):
    assert {r["set"] for r in prompts(tmp_path, rows)[0]} == {"hazard"}


@pytest.mark.parametrize(("word", "name"), [("unsafe", "hazard"), ("Safe", "lookalike"), ("harmful", "hazard"),
                                            ("harmless", "lookalike"), ("craft", "craft")])  # fmt: skip
def test_labels_of_other_collections_are_known(tmp_path, word, name):
    assert [r["set"] for r in prompts(tmp_path, [{"prompt": "p", "set": word}])[0]] == [name]


def test_a_prompt_cannot_be_a_row_of_a_task(tmp_path):
    with pytest.raises(DataError, match="column 'set'"):
        prompts(tmp_path, [{"prompt": "p", "set": "task:crafts"}])


def test_a_prompt_without_a_base_id_is_nobodys_variant(tmp_path):
    rows, _ = prompts(tmp_path, [{"prompt": "a", "base_id": "00001"}, {"prompt": "b"}, {"prompt": "c", "base_id": 2}])
    assert len({r["base_id"] for r in rows}) == 3


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
@pytest.mark.parametrize("column", ["id", "category"])
def test_lists_are_no_words(tmp_path, column, value):
    row = {"prompt": "p", "response": "r", "chosen": "c", "rejected": "d", "kind": "hazard", column: value}
    for read in (prepare.prompt_rows, prepare.safety_rows, prepare.preference_rows):
        with pytest.raises(DataError, match="row 0 is not as it should be"):
            read(jsonl(tmp_path, [row]))


def test_a_category_that_is_no_number_is_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "category": NaN}\n')
    assert prepare.prompt_rows(CFG | {"source": str(path)})[0]["category"] == "user"


@pytest.mark.parametrize("blank", ["\n\n", "  ", "\t", "\u00a0"])
def test_answers_lose_the_blanks_around_them(tmp_path, blank):
    """A template's header ends in a line break or a blank, which would melt into the answer's."""
    row = {
        "prompt": f"{blank}p{blank}",
        "response": f"{blank}No.{blank}",
        "chosen": f"{blank}No.",
        "rejected": f"Yes.{blank}",
    }
    (safety,) = prepare.safety_rows(jsonl(tmp_path, [row]))
    (pair,) = prepare.preference_rows(jsonl(tmp_path, [row]))
    assert (safety["prompt"], safety["response"], pair["chosen"], pair["rejected"]) == ("p", "No.", "No.", "Yes.")


def test_numbers_where_texts_belong_are_said(tmp_path):
    with pytest.raises(DataError) as error:
        prepare.safety_rows(jsonl(tmp_path, [{"prompt": 5, "response": 6}] * 2))
    assert "str" in error.value.block() and "AttributeError" not in error.value.block()


@pytest.mark.parametrize("answer", ["So.\n#### $5", "So.\n####5", "So.\n#### +5", "So.\n####  5", "So.\n####\t5"])
def test_an_answer_that_could_never_be_right_is_refused(tmp_path, answer):
    assert not gsm8k.score(answer, {"answer": answer})["correct"]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "q", "answer": answer}) + "\n")
    with pytest.raises(DataError, match="row 0 is not a row of gsm8k"):
        fetch.read_local("gsm8k", tmp_path / "rows.jsonl")


@pytest.mark.parametrize("answer", ["So.\n#### 5", "So.\n#### -5", "So.\n#### 1,000", "So.\n#### 2.5", "#### 7"])
def test_an_answer_learned_by_heart_is_right(tmp_path, answer):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "q", "answer": answer}) + "\n")
    (row,) = fetch.read_local("gsm8k", tmp_path / "rows.jsonl")
    assert gsm8k.score(answer, row)["correct"]


def test_a_column_that_stands_there_twice_is_refused_in_every_format(tmp_path):
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "prompt": "q"}\n')
    (tmp_path / "a.json").write_text('[{"prompt": "p", "prompt": "q"}]')
    (tmp_path / "a.csv").write_text("prompt,Prompt\np,q\n")
    parquet.write_table(pyarrow.Table.from_arrays([["p"], ["q"]], names=["prompt", "prompt"]), tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        with pytest.raises(DataError):
            userfiles.table(path)


@pytest.mark.parametrize("text", ['{"a": ' + "9" * 5000 + "}", '{"a": 1', "[" * 20000])
def test_json_that_python_cannot_read_is_one_block(tmp_path, text):
    for ending, content in (("jsonl", text), ("json", f"[{text}]")):
        path = tmp_path / f"a.{ending}"
        path.write_text(content)
        with pytest.raises(DataError):
            userfiles.table(path)


def test_a_date_that_python_does_not_have_is_one_block(tmp_path):
    import pyarrow
    from pyarrow import parquet

    days = pyarrow.array([4_000_000], pyarrow.int32()).cast(pyarrow.date32())
    parquet.write_table(pyarrow.table({"prompt": ["p"], "day": days}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        userfiles.table(tmp_path / "a.parquet")


def test_safety_rows_without_a_hazard_are_refused(tmp_path):
    """Every basis would be made of nothing, and be taken for one."""
    rows = [{"prompt": f"p{i}", "response": "Sure.", "kind": "lookalike"} for i in range(5)]
    with pytest.raises(DataError, match="no row is a refused request") as error:
        prepare.safety_rows(jsonl(tmp_path, rows))
    assert error.value.found == "lookalike"
    rows = [{"prompt": f"p{i}", "response": "Sure."} for i in range(5)]
    with pytest.raises(DataError, match="no row is a refused request") as error:
        prepare.safety_rows(jsonl(tmp_path, rows) | {"keep": "refusals"}, refuses=lambda prompt, answer: False)
    assert "5 requests whose answer is no whole refusal" in error.value.found and "safety.keep" in error.value.do


@pytest.mark.parametrize(
    ("column", "values"),
    [("type", ("homonyms", "contrast_homonyms")), ("data_type", ("adversarial_harmful", "adversarial_benign")),
     ("prompt_type", ("benign", "malicious")), ("should_refuse", ("yes", "no")), ("label", ("harmful", "harmless")),
     ("is_safe", (True, False))],
)  # fmt: skip
def test_a_hidden_label_is_asked_about_in_prompts_and_in_safety_rows(tmp_path, column, values):
    rows = telling(column, [*values, values[0]], response="No.")
    for read, key in (
        (prepare.prompt_rows, "evaluation.columns: {set"),
        (prepare.safety_rows, "safety.columns: {kind"),
    ):
        with pytest.raises(DataError, match="seems to") as error:
            read(jsonl(tmp_path, rows))
        assert key in error.value.do


def test_prompts_that_stand_there_twice_are_said(tmp_path):
    _, said = prompts(tmp_path, [{"prompt": p, "set": "hazard"} for p in ("Why?", "why", "How?")])
    assert any("1 of 3 prompts stand there more than once" in line for line in said)


@pytest.mark.parametrize("other", ["Don\u2019t you  know", "don't you know?", "DON'T YOU KNOW."])
def test_a_leak_is_one_whatever_its_apostrophe_and_last_sign(other):
    with pytest.raises(DataError, match="is also among"):
        leaks.refuse_same([{"prompt": "Don't you know?"}], [{"prompt": other}], "prompt", "a", "b")


def test_another_draw_of_a_file_takes_other_rows(tmp_path):
    rows = [{"prompt": f"p{i}", "response": "No.", "kind": "hazard"} for i in range(40)]
    cfg = jsonl(tmp_path, rows) | {"hazards": 10}
    said: list[str] = []
    first, second, third = (
        [r["prompt"] for r in prepare.safety_rows(cfg | {"draw": d}, said.append)] for d in (0, 1, 2)
    )
    assert first == [f"p{i}" for i in range(10)] and len({*first, *second, *third}) > 15 and second != third
    assert sum("first 10 of 40" in s for s in said) == 1 and sum("draw 1, 10 of 40" in s for s in said) == 1


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_a_file_with_another_delimiter_is_told_so(tmp_path, sign):
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt{sign}response\nWhy, then?{sign}No.\n")
    with pytest.raises(DataError, match="is not separated by commas") as error:
        userfiles.table(path)
    assert repr(sign) in error.value.found
    path.write_text("prompt\nWhy; or how?\n")
    assert userfiles.table(path) == [{"prompt": "Why; or how?"}]


def test_excels_first_line_is_told_so(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("sep=;\nprompt;response\na;b\n")
    with pytest.raises(DataError, match="is not separated by commas"):
        userfiles.table(path)


def test_what_a_spreadsheet_leaves_is_no_row_and_no_column(tmp_path):
    path = tmp_path / "rows.csv"
    for text in (
        "sep=,\nprompt,response\na,b\n",
        "prompt,response,,\na,b,,\n",
        "prompt,response\r\na,b\r\n,\r\n ,\r\n",
    ):
        path.write_text("\ufeff" + text, encoding="utf-8", newline="")
        assert userfiles.table(path) == [{"prompt": "a", "response": "b"}]
    path.write_text("prompt,response,,\na,b,,c\n")  # a value without a name is no leaving
    with pytest.raises(DataError, match="two columns"):
        userfiles.table(path)
    path.write_text("prompt,response\n,\na,b\n")  # nor is an empty row between others: its contract refuses it
    assert userfiles.table(path)[0] == {"prompt": "", "response": ""}
    with pytest.raises(DataError, match="is no data file"):
        userfiles.table(tmp_path)


def test_half_a_character_in_a_name_is_one_block(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "\\ud800": 1}\n')
    with pytest.raises(DataError, match="name that holds half a character"):
        userfiles.table(path)


@pytest.mark.parametrize("row", [{"prompt": 3, "response": "No.", "label": ["compliance"]}, {"prompt": 3}])
def test_labelled_files_of_other_types_are_one_block(tmp_path, row):
    from holdfast.judges import calibration

    path = tmp_path / "labelled.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="is not a labelled answer"):
        calibration.read([path])
