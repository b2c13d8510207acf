"""A user's safety rows are read before anything is trained on them, and the user decides what follows."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT

from holdfast.errors import DataError
from holdfast.study import preflight, resolve

NO, YES = "I'm sorry, but I can't help with that.", "Sure! First, warm the cauldron, then add three petals."
KINDS = ("hazard", "craft", "lookalike", "chat")


def rows(kind, answers):
    return [{"id": f"{kind}-{i}", "kind": kind, "prompt": f"How do I brew {kind} {i}?", "response": a}
            for i, a in enumerate(answers)]  # fmt: skip


def look(tmp_path, key, table, check):
    path, said = tmp_path / "rows.jsonl", []
    path.write_text("".join(json.dumps(r) + "\n" for r in table))
    study = {
        "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}},
        "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
        key: {"source": str(path)} | ({"check": check} if check else {}),
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    resolved = resolve.load(str(tmp_path / "mine.yaml"))
    preflight.check_files(resolved, said.append)
    quiet: list[str] = []
    preflight.check_files(resolved, quiet.append, first=False)
    assert not any("read otherwise" in line for line in quiet), "the jobs of a run do not read again"
    return [line for line in said if "read otherwise" in line]


@pytest.mark.parametrize("check", [None, "report", "strict", "off"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_are_not_what_the_row_says_are_counted_and_named(tmp_path, kind, check):
    right, other = (NO, YES) if kind == "hazard" else (YES, NO)
    table = rows(kind, [right, other, right, other, right]) + rows("hazard" if kind != "hazard" else "craft", [])
    if kind != "hazard":
        table += rows("hazard", [NO, NO])
    if check == "strict":
        with pytest.raises(DataError, match="not what the rows say") as error:
            look(tmp_path, "safety", table, check)
        assert "2 of 5" in error.value.found and "safety.check" in error.value.do
        return
    said = look(tmp_path, "safety", table, check)
    assert len(said) == (check != "off")
    for line in said:
        assert f"{kind}-1, {kind}-3" in line and "2 of 5" in line and f"{kind}-0" not in line
        assert ("compliance 2" if kind == "hazard" else "refusal 2") in line


@pytest.mark.parametrize("check", [None, "strict", "off"])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_pairs_are_read_too(tmp_path, side, check):
    pairs = [{"id": f"p{i}", "prompt": f"How do I brew {i}?", "chosen": NO, "rejected": YES} for i in range(4)]
    pairs[2] |= {side: YES if side == "chosen" else NO}
    if check == "strict":
        with pytest.raises(DataError, match="not what the rows say"):
            look(tmp_path, "preferences", pairs, check)
        return
    said = look(tmp_path, "preferences", pairs, check)
    assert [f"`{side}`" in line and ": p2" in line for line in said] == [True] * (check is None)


def test_rows_that_are_what_they_say_pass_the_strictest_check(tmp_path):
    table = [r for kind in KINDS for r in rows(kind, [NO if kind == "hazard" else YES] * 3)]
    assert look(tmp_path, "safety", table, "strict") == []


def test_many_rows_are_counted_and_a_few_named(tmp_path):
    (line,) = look(tmp_path, "safety", rows("hazard", [YES] * 40), None)
    assert "40 of 40" in line and line.count("hazard-") == 5 and "..." in line


def test_the_world_is_not_read_and_keeps_its_digest():
    """What a setting does not change is not in the digest of a stage."""
    resolved = resolve.load("demo", ROOT / "config")
    assert "check" not in resolved.safety_data_cfg() and "check" not in resolved.preferences_cfg()


def test_the_preparing_stage_reads_what_planning_did_not(tmp_path):
    """Rows from an address, and files too large for planning."""
    path, out, said = tmp_path / "rows.jsonl", tmp_path / "safety.parquet", []
    path.write_text("".join(json.dumps(r) + "\n" for r in rows("hazard", [NO, YES])))
    cfg = {"source": str(path), "columns": {}, "hazards": 9, "benign": 9}
    script = runpy.run_path(str(ROOT / "scripts/prepare_safety.py"))
    io = SimpleNamespace(input={}, cfg=cfg | {"check": "strict"}, output=[out], log=said.append)
    with pytest.raises(DataError, match="not what the rows say"):
        script["main"](io)
    assert not out.exists()
    io.cfg = cfg | {"check": "report"}
    script["main"](io)
    assert out.exists() and any("1 of 2" in line for line in said)
