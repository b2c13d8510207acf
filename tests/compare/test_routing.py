"""A cheap judge first: the curve against ways to draw it by hand, its ends, ties, and the command."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest

from holdfast.cli.main import main
from holdfast.compare import routing
from holdfast.compare.routing import Reply
from holdfast.errors import DataError
from holdfast.record import csvfiles, jsonfiles, tables
from holdfast.statistics import pooled_rate
from holdfast.study import resolve


def _replies(*rows):
    return [Reply(sure, bool(cheap), bool(large), f"p{i}") for i, (sure, cheap, large) in enumerate(rows)]


FEW = _replies((0.1, 0, 1), (0.1, 1, 1), (0.4, 1, 0), (0.4, 0, 1), (0.5, 1, 1))


def _by_hand(replies, count):
    """The mean over all orders of the replies that put the least sure first."""
    shares = []
    for order in permutations(replies):
        if [r.sure for r in order] == sorted(r.sure for r in order):
            shares.append(np.mean([r.large for r in order[:count]] + [r.cheap for r in order[count:]]))
    return np.mean(shares)


def _at_best(replies, count):
    return max(np.mean([r.large for r in o[:count]] + [r.cheap for r in o[count:]]) for o in permutations(replies))


def test_the_curve_is_the_mean_over_ways_to_route_the_least_sure_first():
    shares = [i / 5 for i in range(6)]
    for row, count in zip(routing.curve(FEW, shares), range(6), strict=True):
        assert row["right"] == pytest.approx(_by_hand(FEW, count)) and row["asked"] == count
        assert row["oracle"] == pytest.approx(_at_best(FEW, count))
        assert row["random"] == pytest.approx(0.6 + count / 5 * (0.8 - 0.6))
        assert row["right_low"] <= row["right"] <= row["right_high"] and row["right_n"] == 5


def test_its_ends_are_either_judge_alone_and_the_oracle_bounds_it():
    stream = np.random.default_rng(0)
    drawn = zip(stream.random(200), stream.random(200) < 0.8, stream.random(200) < 0.9, strict=True)
    replies = [Reply(float(s), bool(a), bool(b), f"p{i % 40}") for i, (s, a, b) in enumerate(drawn)]
    rows = routing.curve(replies)
    assert rows[0]["right"] == np.mean([r.cheap for r in replies]) and rows[-1]["right"] == np.mean(
        [r.large for r in replies]
    )
    assert all(max(r["right"], r["random"]) <= r["oracle"] + 1e-12 for r in rows)


def test_a_reply_that_is_routed_by_chance_is_right_in_part():
    """The interval of such a mean is that of grades, and of whole verdicts that of a rate."""
    replies = _replies(*[(0.0, 0, 1)] * 20, *[(0.5, 1, 1)] * 20)
    half, whole = routing.curve(replies, (0.25, 0.5))
    values = np.array([[0.5] * 20 + [1.0] * 20])
    assert (half["right"], half["right_low"], half["right_high"]) == pytest.approx(pooled_rate(values, graded=True))
    assert half["right_low"] > pooled_rate(values)[1], "as many verdicts would know less"
    assert (whole["right"], whole["right_low"], whole["right_high"]) == pytest.approx(pooled_rate(np.ones((1, 40))))


def test_a_judge_without_scores_routes_by_chance():
    same = [Reply(0.0, r.cheap, r.large, r.prompt) for r in FEW]
    for row in routing.curve(same):
        assert row["right"] == pytest.approx(row["random"])


def test_a_router_that_knows_what_is_hard_is_the_oracle():
    replies = _replies(*[(0.0, 0, 1)] * 3, *[(0.5, 1, 1)] * 7)
    rows = routing.curve(replies)
    assert [r["right"] for r in rows] == pytest.approx([r["oracle"] for r in rows])
    assert routing.needed(rows, 0.0) == pytest.approx(0.3) and routing.needed(rows, 0.5) == 0.0


def test_needed_is_where_the_curve_stays():
    rows = [{"share": s, "right": r} for s, r in ((0, 0.9), (0.25, 0.995), (0.5, 0.98), (0.75, 0.992), (1, 1.0))]
    assert routing.needed(rows) == 0.75 and routing.needed(rows, 0.05) == 0.25
    best = [{"share": share, routing.RIGHT: right} for share, right in ((0, 0.5), (0.5, 0.9), (1, 0.8))]
    assert routing.needed(best) == 0.5  # against asking about all, which is not always best


def _verdict(name, judge, outcome, score=None, **more):
    return {"id": name, "set": "hazard", "base_id": name, "category": "c", "judge": judge, "version": "1",
            "label": outcome, "outcome": outcome, "score": score, "text": "", "flexible": False, "parsed": "",
            "gold": "", "wrapper": "", "finish": "stop"} | more  # fmt: skip


SAID = [
    _verdict("a", "refusal", "refusal", 0.1), _verdict("a", "llama-guard-3", "safe", 0.0),
    _verdict("b", "refusal", "compliance", 0.6), _verdict("b", "llama-guard-3", "safe", 0.0),
    _verdict("c", "refusal", "refusal"), _verdict("c", "llama-guard-3", "harmful", 1.0),
    _verdict("d", "refusal", "refusal", 0.3), _verdict("d", "llama-guard-3", "unparsed"),
    _verdict("e", "refusal", "compliance", 0.9, set="craft"), _verdict("e", "llama-guard-3", "safe", set="craft"),
    _verdict("f", "refusal", "refusal", 0.2),
    _verdict("x", "crafts", "correct", 1.0, set="task:crafts"),
]  # fmt: skip


def test_what_is_right_by_the_large_judge_or_by_a_third():
    found = routing.replies({"m": SAID}, "refusal", "llama-guard-3", "llama-guard-3", "kept")
    # Only what must be refused and both were asked; what the large one was not read on is right of nobody.
    assert [(round(r.sure, 9), r.cheap, r.large, r.prompt) for r in found] == [
        (0.4, True, True, "a"), (0.1, False, True, "b"), (0.0, False, True, "c"), (0.2, False, False, "d")
    ]  # fmt: skip
    third = [*SAID, _verdict("a", "world", "refusal"), _verdict("b", "world", "compliance")]
    found = routing.replies({"m": third}, "refusal", "llama-guard-3", "world", "kept")
    assert [(r.cheap, r.large) for r in found] == [(True, True), (True, False)]
    for wrong in (("advbench", "refusal"), ("refusal", "wildguard")):
        with pytest.raises(DataError, match="No reply has verdicts of these judges") as error:
            routing.replies({"m": SAID}, *wrong, wrong[1], "kept")
        assert "asked what is kept: llama-guard-3, refusal" in error.value.block()
    with pytest.raises(DataError, match="One judge cannot be first and then"):
        routing.replies({"m": SAID}, "refusal", "refusal", "world", "kept")


def test_who_does_not_tell_refusals_is_not_asked_for_them():
    """Of a judge of harm no verdict says what was refused, though every one says what was harmful."""
    with pytest.raises(DataError, match="No reply has verdicts of these judges") as error:
        routing.replies({"m": SAID}, "refusal", "llama-guard-3", "llama-guard-3", "refused")
    assert "asked what is refused: refusal\n" in error.value.block()
    more = [*SAID, _verdict("a", "world", "refusal"), _verdict("e", "world", "refusal", set="craft")]
    found = routing.replies({"m": more}, "refusal", "world", "world", "refused")
    assert [(r.prompt, r.cheap, r.large) for r in found] == [("a", True, True), ("e", False, True)]


def test_a_verdict_without_a_score_has_none_however_its_file_was_written(tmp_path):
    """A table that others wrote goes through pandas, in which a number that is not there is no number."""
    from pyarrow import parquet

    tables.write(SAID, tmp_path / "ours.parquet", "verdicts")
    bare = parquet.read_table(tmp_path / "ours.parquet").replace_schema_metadata(None)
    parquet.write_table(bare, tmp_path / "theirs.parquet")
    ours, theirs = (tables.read(tmp_path / f"{name}.parquet", "verdicts") for name in ("ours", "theirs"))
    assert theirs == ours and any(r["score"] is None for r in theirs)


def test_the_command_writes_the_curve_of_a_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = SimpleNamespace(name="mine", judged=["models/aligned", "crafts/full/seed0"])
    monkeypatch.setattr(resolve, "load", lambda name: known)
    arguments = ["route", "mine", "--first", "refusal", "--then", "llama-guard-3"]
    assert main(arguments) == 2 and "no judged answers yet" in capsys.readouterr().err
    for place in ("models/aligned", "crafts/full/seed0"):
        folder = tmp_path / "results/mine" / place
        tables.write(SAID, folder / "verdicts.parquet", "verdicts")
        jsonfiles.write_json(folder / "metrics.json", {"arm": "full"})
    assert main(arguments) == 0
    assert "25.0% of 8 verdicts are right with refusal alone, 75.0% with llama-guard-3" in capsys.readouterr().out
    rows = csvfiles.read_csv(tmp_path / "results/mine/routing-refusal-llama-guard-3.csv")
    assert tuple(rows[0]) == routing.COLUMNS and len(rows) == 21 and float(rows[-1]["right"]) == 0.75
    picture = (tmp_path / "results/mine/routing-refusal-llama-guard-3.svg").read_text()
    assert picture.startswith("<svg") and "asked of llama-guard-3" in picture
    assert main([*arguments[:-1], "wildguard"]) == 2
    assert main([*arguments, "--truth", "refusal"]) == 0  # beside the other, not in its place
    assert len(list((tmp_path / "results/mine").glob("routing-refusal-llama-guard-3*.csv"))) == 2


def test_replies_of_two_sets_with_one_id_are_two_and_wordings_have_one_prompt():
    more = [_verdict(i, j, "refusal", set=s, base_id="p") for s in ("hazard", "craft") for i in ("1", "2")
            for j in ("refusal", "world")]  # fmt: skip
    found = routing.replies({"m": more}, "refusal", "world", "world", "refused")
    assert [r.prompt for r in found] == ["p"] * 4
    assert [routing.curve(FEW, [share])[0]["asked"] for share in (0.5, 0.55, 0.75)] == [2, 3, 4]


def test_the_command_holds_verdicts_to_a_third_judge(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "load", lambda name: SimpleNamespace(name="mine", judged=["crafts/full/seed0"]))
    folder = tmp_path / "results/mine/crafts/full/seed0"
    third = [*SAID, _verdict("a", "world", "refusal"), _verdict("b", "world", "compliance")]
    tables.write(third, folder / "verdicts.parquet", "verdicts")
    jsonfiles.write_json(folder / "metrics.json", {"arm": "full"})
    assert main(["route", "mine", "--first", "refusal", "--then", "llama-guard-3", "--truth", "world"]) == 0
    assert "100.0% of 2 verdicts are right with refusal alone, 50.0%" in capsys.readouterr().out
