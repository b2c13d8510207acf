"""Answers for people: drawn over arms and labels, once each, and taken back by `holdfast calibrate`."""

from __future__ import annotations

import csv
import random
from collections import Counter

import pytest

from holdfast import statistics
from holdfast.cli import arguments
from holdfast.cli.main import main
from holdfast.errors import DataError
from holdfast.judges import calibration, refusal, sampling
from holdfast.record import csvfiles, jsonfiles, tables


def judged(folder, arm, labels, task="t", judge="refusal"):
    """A model whose answers to hazards have these labels, and one row of its task."""
    folder = folder / arm
    rows = [{"id": f"h{i}", "set": "hazard", "base_id": f"h{i}", "category": "c", "judge": judge, "label": label,
             "outcome": "refusal" if "refusal" in label else "compliance", "score": None, "text": "", "flexible": False,
             "parsed": "", "gold": ""} for i, label in enumerate(labels)]  # fmt: skip
    task_row = rows[0] | {"id": "x", "set": f"task:{task}", "judge": "gsm8k", "label": "correct", "outcome": "correct"}
    tables.write([*rows, task_row], folder / "verdicts.parquet", "verdicts")
    answers = [{"id": r["id"], "set": r["set"], "base_id": r["id"], "category": "c", "prompt": f"ask {r['id']}",
                "text": f"{arm} says {r['label']} {r['id']}", "tokens": 3, "finish": "stop"}
               for r in [*rows, task_row]]  # fmt: skip
    tables.write(answers, folder / "responses.parquet", "responses")
    jsonfiles.write_json(folder / "metrics.json", {"task": task, "arm": arm, "seed": 0})
    return folder / "metrics.json"


@pytest.fixture
def metrics(tmp_path):
    rare = ["full_refusal"] * 40 + ["compliance"] * 2 + ["partial_refusal"]
    return [judged(tmp_path, "full", rare), judged(tmp_path, "warp", ["full_refusal"] * 40)]


def test_what_is_rare_is_among_them(metrics):
    rows = sampling.draw(metrics, 12)
    assert Counter((r["arm"], r["judge_label"]) for r in rows) == {
        ("full", "full_refusal"): 5, ("full", "compliance"): 2, ("full", "partial_refusal"): 1,
        ("warp", "full_refusal"): 4,
    }  # fmt: skip
    assert all(r["label"] == r["remark"] == "" and r["set"] == "hazard" for r in rows)
    assert all(r["response"].endswith(f"{r['judge_label']} {r['id']}") for r in rows)
    assert rows == sampling.draw(metrics, 12) and len(sampling.draw(metrics, 999)) == 83


def test_the_same_answer_to_the_same_prompt_comes_once(tmp_path, metrics):
    twin = tmp_path / "twin"
    for path in metrics[0].parent.iterdir():
        twin.mkdir(exist_ok=True)
        (twin / path.name).write_bytes(path.read_bytes())
    assert len(sampling.draw([metrics[0], twin / "metrics.json"], 999)) == 43


def test_a_judge_that_was_not_asked_is_named(metrics):
    with pytest.raises(DataError, match="was not asked") as error:
        sampling.draw(metrics, 5, "world")
    assert "found:    refusal" in error.value.block()


def test_labels_come_back_and_what_is_empty_is_left_out(tmp_path, metrics):
    path = tmp_path / "label.csv"
    csvfiles.write_csv(path, sampling.draw(metrics, 20), sampling.COLUMNS)
    with pytest.raises(DataError, match="no answer has a label yet"):
        calibration.read([path])
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    for r in rows[:7]:
        r["label"] = r["judge_label"]
    csvfiles.write_csv(path, rows, sampling.COLUMNS)
    found = calibration.read([path])
    assert [(r["prompt"], r["label"]) for r in found] == [(r["prompt"], r["judge_label"]) for r in rows[:7]]
    assert any("Drawn over arms and labels" in line for line in calibration.table(found))
    given = [{k: v for k, v in r.items() if k != calibration.DRAWN} for r in found]
    assert not any("Drawn" in line for line in calibration.table(given))
    rows[0]["label"] = "maybe"
    csvfiles.write_csv(path, rows, sampling.COLUMNS)
    with pytest.raises(DataError, match="is not a labelled answer"):
        calibration.read([path])


def test_every_row_stands_for_the_answers_of_its_arm_and_label(tmp_path, metrics):
    """43 answers of one arm and 40 of the other: one of three compliances is a refusal to people, all else as judged.
    By hand: weights 40/5 and 40/4 of whole refusals, 2/2 and 1/1 of the others; (83 - 1) / 83 agree."""
    path = tmp_path / "label.csv"
    rows = sampling.draw(metrics, 12)
    assert {(r["arm"], r["judge_label"]): r["among"] for r in rows} == {
        ("full", "full_refusal"): 40, ("full", "compliance"): 2, ("full", "partial_refusal"): 1,
        ("warp", "full_refusal"): 40,
    }  # fmt: skip
    wrong = next(i for i, r in enumerate(rows) if r["judge_label"] == "compliance")
    labelled = [r | {"label": "full refusal" if i == wrong else r["judge_label"]} for i, r in enumerate(rows)]
    csvfiles.write_csv(path, labelled, sampling.COLUMNS)
    found = calibration.read([path])
    assert sum(r[calibration.WEIGHT] for r in found) == pytest.approx(83)
    (line,) = (x for x in calibration.table(found) if x.startswith("weighted"))
    (plain,) = (x for x in calibration.table(found) if x.startswith("all  "))
    squares = 5 * 8**2 + 2 + 1 + 4 * 10**2
    low, high = statistics.wilson(82 / 83 * 83**2 / squares, 83**2 / squares)
    assert line.split()[:6] == ["weighted,", "as", "all", "answers", "are", "12"]
    assert f"{100 * 82 / 83:.1f} [{100 * low:4.1f}, {100 * high:5.1f}]" in line and f"{100 * 11 / 12:.1f} [" in plain
    # One of twelve is labelled by a second person, in a copy of the file: it weighs what is left of its pile.
    csvfiles.write_csv(tmp_path / "first.csv", [r | {"label": ""} if i == 0 else r for i, r in enumerate(labelled)],
                       sampling.COLUMNS)  # fmt: skip
    csvfiles.write_csv(tmp_path / "second.csv", labelled[:1], sampling.COLUMNS)
    both = calibration.read([tmp_path / "first.csv", tmp_path / "second.csv"])
    assert sorted(r[calibration.WEIGHT] for r in both) == sorted(r[calibration.WEIGHT] for r in found)
    # What a spreadsheet makes of the numbers; and files of two draws, over the labels of two judges.
    csvfiles.write_csv(path, [r | {"among": f" {r['among']}.0 "} for r in labelled], sampling.COLUMNS)
    assert [r[calibration.WEIGHT] for r in calibration.read([path])] == [r[calibration.WEIGHT] for r in found]
    others = [r | {"judge": "other", "prompt": f"{r['prompt']}?"} for r in labelled]
    csvfiles.write_csv(tmp_path / "other.csv", others, sampling.COLUMNS)
    assert sum(r[calibration.WEIGHT] for r in calibration.read([path, tmp_path / "other.csv"])) == pytest.approx(166)
    csvfiles.write_csv(path, [{k: v for k, v in r.items() if k != "among"} for r in labelled])  # of an older version
    lines = calibration.table(calibration.read([path]))
    assert not any(x.startswith("weighted") for x in lines) and lines[-1].endswith("among all answers.")


@pytest.mark.parametrize(("count", "draws"), [(60, 30), (9999, 1)])
def test_answers_that_arms_share_weigh_as_often_as_they_stand_in_the_study(tmp_path, monkeypatch, count, draws):
    """Twelve arms give 40 refusals in the same words and 20 each in their own; people call the own ones answers.
    12 * 40 of 12 * 60 agree: of all answers exactly, of draws in the mean."""
    files = []
    for arm in range(12):
        path = judged(tmp_path, f"arm{arm}", ["full_refusal"] * 60)
        answers = tables.read(path.with_name("responses.parquet"), "responses")
        for r in answers:
            r["text"] = "No." if r["id"] in {f"h{i}" for i in range(40)} else r["text"]
        tables.write(answers, path.with_name("responses.parquet"), "responses")
        files.append(path)
    kept = random.Random
    right = total = 0.0
    for draw in range(draws):
        monkeypatch.setattr(random, "Random", lambda seed, draw=draw: kept(f"{seed}{draw}"))
        rows = sampling.draw(files, count)
        assert len(rows) == min(count, 40 + 12 * 20) == len({(r["prompt"], r["response"]) for r in rows})
        labelled = [r | {"label": "full_refusal" if r["times"] == 12 else "compliance"} for r in rows]
        csvfiles.write_csv(tmp_path / "label.csv", labelled, sampling.COLUMNS)
        found = calibration.read([tmp_path / "label.csv"])
        right += sum(r[calibration.WEIGHT] for r in found if r["label"] == "full_refusal")
        total += sum(r[calibration.WEIGHT] for r in found)
    near = 1e-9 if count > 280 else 0.1
    assert total / draws == pytest.approx(720, rel=near) and right / draws == pytest.approx(480, rel=near)


def test_piles_are_those_of_a_task(tmp_path):
    """Two tasks with arms of one name: 30 answers of one pile, of which one is labelled, beside one of one."""
    files = [judged(tmp_path / "a", "full", ["full_refusal"] * 30, task="a"),
             judged(tmp_path / "b", "full", ["full_refusal"], task="b")]  # fmt: skip
    for path in files:  # in their own words
        answers = tables.read(path.with_name("responses.parquet"), "responses")
        tables.write([r | {"text": f"{path.parent.parent.name} {r['text']}"} for r in answers],
                     path.with_name("responses.parquet"), "responses")  # fmt: skip
    rows = sampling.draw(files, 2)
    csvfiles.write_csv(tmp_path / "label.csv", [r | {"label": "compliance"} for r in rows], sampling.COLUMNS)
    assert sorted(r[calibration.WEIGHT] for r in calibration.read([tmp_path / "label.csv"])) == [1, 30]


def test_an_answer_that_arms_share_stands_for_any_of_them(tmp_path):
    files = [judged(tmp_path, f"arm{i}", ["full_refusal"] * 40) for i in range(4)]
    for path in files:
        answers = tables.read(path.with_name("responses.parquet"), "responses")
        tables.write([r | {"text": "No."} for r in answers], path.with_name("responses.parquet"), "responses")
    rows = sampling.draw(files, 999)
    assert len(rows) == 40 and min(Counter(r["arm"] for r in rows).values()) >= 3 and {r["piles"] for r in rows} == {4}


def test_what_the_weighted_line_leaves_out_is_said(tmp_path, metrics, monkeypatch, capsys):
    """Four pairs of arm and label; a pile of which nobody labelled an answer is not in the line."""
    path = tmp_path / "label.csv"

    def last(rows):
        csvfiles.write_csv(path, rows)
        return calibration.table(calibration.read([path]))[-1]

    rows = [r | {"label": r["judge_label"]} for r in sampling.draw(metrics, 12)]
    whole = last(rows)
    assert whole.endswith("for which the weighted line is.")
    partly = [r | {"label": r["label"] * (r["judge_label"] == "full_refusal")} for r in rows]
    said = "The weighted line leaves answers out: nobody labelled one of {} of 4 pairs of arm and label, task by task."
    assert last(partly) == said.format(2)
    assert last([r | {"label": r["judge_label"]} for r in sampling.draw(metrics, 3)]) == said.format(1)
    assert last([{k: v for k, v in r.items() if k != "piles"} for r in partly]) == whole  # of an older version
    monkeypatch.setattr(arguments, "judged", lambda study: (tmp_path, metrics))
    assert main(["label", "smoke", "--count", "3", "--out", str(tmp_path / "few.csv")]) == 0
    assert "Of 4 pairs of arm and label 1 have no answer in it (--count 4 or more)" in capsys.readouterr().out
    assert main(["label", "smoke", "--count", "4", "--out", str(tmp_path / "all.csv")]) == 0
    assert "pairs of arm" not in capsys.readouterr().out


def test_what_is_left_out_is_known_over_several_files(tmp_path, metrics):
    """Every pair of arm and label is labelled, over two files: one of before there was a column, one of a study that
    has grown, one drawn over the labels of another judge, whose answers are the same."""
    rows = [r | {"label": r["judge_label"]} for r in sampling.draw(metrics, 12)]
    halves = [[r for r in rows if (r["arm"] == "full") == first] for first in (True, False)]
    older = [{k: v for k, v in r.items() if k != "piles"} for r in halves[0]]
    grown = [r | {"piles": 3} for r in halves[0]]
    other = [r | {"judge": "other"} for r in rows]
    for first, second in (
        (older, halves[1]),
        (grown, halves[1]),
        (halves[1], grown),
        (rows, other),
        (rows[:6] + other[6:], rows[6:] + other[:6]),
    ):
        csvfiles.write_csv(tmp_path / "a.csv", first)
        csvfiles.write_csv(tmp_path / "b.csv", second)
        found = calibration.read([tmp_path / "a.csv", tmp_path / "b.csv"])
        lines = calibration.table(found)
        assert not any("leaves answers out" in line for line in lines)
        assert sum(r[calibration.WEIGHT] for r in found) == pytest.approx(
            83 * len({r["judge"] for r in first + second})
        )
        assert next(line for line in lines if line.startswith("all  ")).split()[1] == "12"  # each answer once
        assert len(calibration.fitted_on(found)) == 12


def test_a_study_that_had_fewer_pairs_hides_none_that_is_left_out(tmp_path, metrics):
    rows = [r | {"label": r["judge_label"]} for r in sampling.draw(metrics, 12)]
    older = [r | {"piles": 3} for r in rows if r["arm"] == "full" and r["judge_label"] != "compliance"]
    whole = [r for r in rows if r["arm"] == "warp"]
    for first, second in ((older, whole), (whole, older)):
        csvfiles.write_csv(tmp_path / "a.csv", first)
        csvfiles.write_csv(tmp_path / "b.csv", second)
        assert (
            "one of 1 of 4 pairs" in calibration.table(calibration.read([tmp_path / "a.csv", tmp_path / "b.csv"]))[-1]
        )


@pytest.mark.parametrize("key", ["among", "times", "piles"])
@pytest.mark.parametrize("value", ["1,0", "", "0", "inf", "1e200", "many"])
def test_a_number_that_somebody_changed_is_no_row_less(tmp_path, metrics, key, value):
    path = tmp_path / "label.csv"
    rows = [r | {"label": r["judge_label"]} for r in sampling.draw(metrics, 12)]
    csvfiles.write_csv(path, [*rows[:4], rows[4] | {key: value}, *rows[5:]], sampling.COLUMNS)
    with pytest.raises(DataError, match=f"row 4, column '{key}' holds no number of answers"):
        calibration.read([path])


def test_what_is_not_labelled_yet_is_said_to_be(tmp_path):
    path = tmp_path / "mine.csv"
    for rows, says in (
        ([{"judge_label": "compliance"}], "found:    no column label"),
        ([{"judge_label": "compliance", "label": ""}], "found:    an empty column label"),
        ([{"label": "compliance"}, {"label": ""}], "do:       label the row, or take it out"),
        ([{"label": "comply"}], "do:       correct the file"),
    ):
        csvfiles.write_csv(path, [{"prompt": "How?", "response": "So.", **r} for r in rows])
        with pytest.raises(DataError) as error:
            calibration.read([path])
        assert says in error.value.block()


def test_answers_from_elsewhere_count_as_tables_would_count_them():
    """Debris and another language are neither a refusal nor an answer, whoever sees them."""
    french = "Je ne peux pas vous aider avec cette demande, je suis vraiment désolé."
    rows = [{"prompt": "How do I brew it?", "text": text} for text in ("!!!!! ????", "and the " * 40, french)]
    assert [calibration.shipped(r) for r in rows] == ["other"] * 3
    assert [calibration.shipped(r, refusal.weights()) for r in rows] == ["other"] * 3
    assert calibration.shipped(rows[0] | {calibration.DRAWN: refusal.FULL}) == refusal.FULL


def test_what_cannot_be_fitted_is_one_block_and_writes_nothing(tmp_path):
    rows = [{"prompt": f"how {i}", "text": "First do this.", "label": label, "model": model}
            for i, (label, model) in enumerate([("compliance", "a"), ("other", "a"), ("other", "b")])]  # fmt: skip
    with pytest.raises(DataError, match="Nothing can be fitted"):
        calibration.refit(rows, tmp_path / "weights.json")
    assert not (tmp_path / "weights.json").exists()
    more = [*rows, rows[0] | {"text": "I cannot help with that.", "label": "full_refusal"}]
    calibration.refit(more, tmp_path / "weights.json")
    assert jsonfiles.read_json(tmp_path / "weights.json")["fitted_on"] == {"a": 2}
    assert len(calibration.left_out(more)) == 2  # b, left out; nothing is left to fit where a is


def test_the_label_of_the_tables_is_what_people_are_compared_with(tmp_path):
    """Debris is no compliance, and a lesson a whole refusal; not judged anew, and of another judge not taken."""
    labels = ["degenerate", "moralising", "other-language", "compliance", "partial_refusal"]
    people = ["other", "full_refusal", "other", "compliance", "partial_refusal"]
    path = tmp_path / "label.csv"
    rows = sampling.draw([judged(tmp_path, "full", labels)], 9)
    rows = [r | {"label": dict(zip(labels, people, strict=True))[r["judge_label"]]} for r in rows]
    csvfiles.write_csv(path, rows, sampling.COLUMNS)
    found = calibration.read([path])
    assert [calibration.shipped(r) for r in found] == [r["label"] for r in found]
    assert all(line.count("100.0 [") == 2 for line in calibration.table(found)[1:3])
    assert calibration.fit(found) == calibration.fit([r for r in found if r["label"] != "other"])
    csvfiles.write_csv(path, [r | {"judge": "world"} for r in rows], sampling.COLUMNS)
    anew = [refusal.judge(r["prompt"], r["response"]).label for r in rows]
    assert [calibration.shipped(r) for r in calibration.read([path])] == anew


def labelled_file(path, metrics, change=lambda rows: rows):
    rows = [r | {"label": r["judge_label"]} for r in sampling.draw(metrics, 20)]
    csvfiles.write_csv(path, change(rows), sampling.COLUMNS)
    return path, rows


def test_labels_come_back_whatever_a_person_made_of_their_capitals_and_blanks(tmp_path, metrics):
    def shouted(rows):
        return [r | {"label": f" {r['label'].upper().replace('_', ' ')} "} for r in rows]

    path, rows = labelled_file(tmp_path / "label.csv", metrics, shouted)
    assert [r["label"] for r in calibration.read([path])] == [r["judge_label"] for r in rows]


def test_a_row_that_stands_there_twice_counts_once_and_two_labels_for_it_are_refused(tmp_path, metrics):
    path, rows = labelled_file(tmp_path / "twice.csv", metrics, lambda rows: [*rows, *rows[:3]])
    assert len(calibration.read([path])) == len(rows)

    def other(rows):
        label = "compliance" if rows[1]["label"] != "compliance" else "full_refusal"
        return [*rows, rows[1] | {"label": label}]

    path, _ = labelled_file(tmp_path / "two.csv", metrics, other)
    with pytest.raises(DataError, match=r"row 20 is row 1 with another label"):
        calibration.read([path])


def test_an_answer_in_two_files_counts_once_and_two_peoples_labels_for_it_are_refused(tmp_path, metrics):
    path, rows = labelled_file(tmp_path / "a.csv", metrics)
    again, _ = labelled_file(tmp_path / "b.csv", metrics, lambda rows: rows[::-1])
    assert len(calibration.read([path, path, again])) == len(rows)

    def other(rows):
        label = "compliance" if rows[2]["label"] != "compliance" else "full_refusal"
        return [rows[2] | {"label": label}]

    another, _ = labelled_file(tmp_path / "c.csv", metrics, other)
    with pytest.raises(DataError, match=r"c\.csv: row 0 is row 2 of \S+a\.csv with another label"):
        calibration.read([path, another])


def test_a_verdict_without_its_answer_is_told(metrics):
    file = next(iter(metrics)).with_name("responses.parquet")
    rows = tables.read(file, "responses")
    tables.write([r for r in rows if r["id"] != rows[0]["id"]], file, "responses")
    try:
        with pytest.raises(DataError, match="does not hold"):
            sampling.draw(metrics, 20)
    finally:
        tables.write(rows, file, "responses")


def test_a_wrong_label_is_told_by_its_row_in_the_file(tmp_path, metrics):
    def partly(rows):
        return [r | {"label": "" if i < 5 else "maybe" if i == 7 else r["label"]} for i, r in enumerate(rows)]

    path, _ = labelled_file(tmp_path / "label.csv", metrics, partly)
    with pytest.raises(DataError, match="row 7 is not a labelled answer"):
        calibration.read([path])


@pytest.fixture
def finished(tmp_path, metrics, monkeypatch):
    monkeypatch.setattr(arguments, "judged", lambda study: (tmp_path, metrics))
    return tmp_path


@pytest.mark.parametrize("name", ["label.xlsx", "label", "there.csv"])
def test_labels_go_to_a_new_csv(finished, name, capsys):
    (finished / "there.csv").write_text("labels of hours\n")
    assert main(["label", "demo", "--out", str(finished / name)]) == 2
    assert "--out FILE.csv" in capsys.readouterr().err
    assert (finished / "there.csv").read_text() == "labels of hours\n" and not (finished / "label.xlsx").exists()


@pytest.mark.parametrize("name", ["responses", "verdicts"])
def test_a_table_that_is_not_there_is_told_as_missing(finished, metrics, name, capsys):
    metrics[0].with_name(f"{name}.parquet").unlink()
    assert main(["label", "demo"]) == 2
    said = capsys.readouterr().err
    assert f"There is no file {metrics[0].with_name(name)}.parquet" in said and "snakemake" in said


def test_what_neither_refuses_nor_answers_is_no_refusal_and_a_class_of_its_own():
    rows = [
        {"prompt": "how", "text": "First do this.", "label": label, "model": "a"} for label in ("other", "compliance")
    ]
    line = calibration.line("a", rows, calibration.shipped)
    assert "100.0 [" in line and "50.0 [" in line
