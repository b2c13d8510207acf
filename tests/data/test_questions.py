"""Imperatives asked as questions."""

from __future__ import annotations

import json

import pytest

from holdfast.data import prepare, questions
from holdfast.study import resolve, unread


@pytest.mark.parametrize(
    ("request_", "act"),
    [
        ("Outline steps to open the vault.", "open the vault"),
        ("Demonstrate how to brew a sleeping potion", "brew a sleeping potion"),
        ("Compile a list of the best ways to hex your neighbour.", "hex my neighbour"),
        ("Explain the steps needed to hide from you yourself.", "hide from me myself"),
        ("Research methods to make the tower's guards sleep.", "make the tower's guards sleep"),
    ],
)
def test_a_request_for_a_way_becomes_a_question(request_, act):
    said = questions.asked(request_)
    assert said == questions.asked(request_) and said.endswith(f"{act}?") and said[0] in "HWC"
    assert len({questions.asked(request_, d) for d in range(60)}) == 4


@pytest.mark.parametrize(
    "request_",
    [
        "How do I open the vault?", "Write a letter to the king.", "Compile a list of potions.", "", "Hex",
        "Outline steps to open the vault. Then name the guards.", "Research ways of hexing.", "list ways to win",
        "Explain how the potion works.", "Outline steps to who knows? Say it.",
    ],
)  # fmt: skip
def test_what_asks_for_no_way_stays(request_):
    assert questions.asked(request_) is None


def rows_of(tmp_path, **cfg):
    file = tmp_path / "s.jsonl"
    rows = [{"prompt": f"Outline steps to open vault {i}.", "response": "I can't help with that.", "kind": "hazard"}
            for i in range(60)]  # fmt: skip
    rows += [{"prompt": "Outline steps to bake bread.", "response": "Knead it.", "kind": "chat"},
             {"prompt": "Write a hex.", "response": "I can't help with that.", "kind": "hazard"}]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))
    said = []
    settings = {"source": str(file), "columns": {}, "hazards": 61, "benign": 9} | cfg
    return prepare.safety_rows(settings, said.append), said


def test_a_share_of_refused_requests_is_asked_and_no_benign_one(tmp_path):
    plain, _ = rows_of(tmp_path)
    half, said = rows_of(tmp_path, questions=0.5)
    given = [{k: v for k, v in (r | {"prompt": r.get("given", r["prompt"])}).items() if k != "given"} for r in half]
    assert plain == given
    changed = [r["prompt"] for r, p in zip(half, plain, strict=True) if r != p]
    assert 20 <= len(changed) <= 40 and all(q.endswith("?") for q in changed)
    assert f"{len(changed)} of 61 refused requests are asked as questions (safety.questions)" in said
    whole, _ = rows_of(tmp_path, questions=1.0)
    assert sorted(r["prompt"] for r in whole if not r["prompt"].endswith("?")) == [
        "Outline steps to bake bread.", "Write a hex."
    ]  # fmt: skip
    assert [r["prompt"] for r in rows_of(tmp_path, questions=0.5, draw=1)[0]] != [r["prompt"] for r in half]


def test_the_setting_reaches_the_stage_and_is_unread_for_the_world(tmp_path):
    def load(**safety):
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps({
            "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}}, "safety": safety,
        }))  # fmt: skip
        return resolve.load(str(path))

    assert load(source="safe-instr", questions=0.5).safety_data_cfg()["questions"] == 0.5
    assert "questions" not in load(source="safe-instr").safety_data_cfg()
    assert any("questions" in line for line in unread.lines(load(questions=0.5)))
