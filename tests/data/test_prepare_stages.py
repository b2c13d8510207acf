"""What planning cannot read, because it lies at an address or is too large, the preparing stage refuses."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import pytest
from conftest import ROOT

from holdfast.errors import DataError
from holdfast.study import resolve


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"split": "validation"}, "no prompt is of the split test, which is asked"),
        ({"set": "lookalike"}, "must be refused"),
    ],
)
def test_prompts_that_nobody_would_be_asked_are_refused_by_the_stage(tmp_path, row, says):
    path, out = tmp_path / "p.jsonl", tmp_path / "prompts.parquet"
    main = runpy.run_path(str(ROOT / "scripts/prepare_prompts.py"))["main"]
    cfg = {"source": str(path), "columns": {}, "prompts_per_set": 9, "splits": ["test"]}
    path.write_text(json.dumps({"prompt": "p", "set": "hazard", "split": "test"} | row) + "\n")
    with pytest.raises(DataError, match=says):
        main(SimpleNamespace(cfg=cfg, output=[out], log=lambda _: None))
    assert not out.exists()
    path.write_text(json.dumps({"prompt": "p", "set": "hazard", "split": "test"}) + "\n")
    main(SimpleNamespace(cfg=cfg, output=[out], log=lambda _: None))
    assert out.exists()


def test_the_split_is_a_setting_of_own_prompts_only(tmp_path):
    """Another split of the world asks the same table."""
    assert "splits" not in resolve.load("demo", ROOT / "config").prompts_cfg()
    (tmp_path / "p.csv").write_text("prompt\nx\n")
    (tmp_path / "mine.yaml").write_text(
        f"extends: {ROOT}/config/smoke.yaml\nevaluation: {{source: p.csv, judges: [refusal]}}\n"
    )
    assert resolve.load(str(tmp_path / "mine.yaml")).prompts_cfg()["splits"] == ["test"]
