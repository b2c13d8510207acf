"""docs/gate.md says what is so: its study key, its GitHub workflow, its numbers."""

from __future__ import annotations

import importlib
import re

import yaml
from conftest import ROOT

from holdfast import limits
from holdfast.cli.main import VERBS
from holdfast.study.asked import Gate

PAGE = (ROOT / "docs/gate.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)


def test_the_key_that_is_shown_has_the_defaults():
    shown = Gate.model_validate(yaml.safe_load(BLOCKS[0])["gate"])
    assert shown.arm == "mine" and shown.model_copy(update={"arm": None}) == Gate()


def test_the_workflow_is_one_and_its_commands_exist():
    workflow = yaml.load(BLOCKS[1], Loader=yaml.BaseLoader)  # in which `on` is a word
    assert workflow.keys() >= {"name", "on", "jobs"} and "pull_request" in workflow["on"]
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] and all(("run" in step) != ("uses" in step) for step in job["steps"])
    run = "\n".join(step.get("run", "") for step in job["steps"])
    commands = [
        c.split(" > ")[0].split() for c in re.findall(r"holdfast [^|\n]+", run) if not c.startswith("holdfast/")
    ]
    assert [c[:4] for c in commands] == [["holdfast", "gate", "mine", "--arm"]]
    for _, verb, *words in commands:
        assert verb in VERBS
        known = {o for p in importlib.import_module(f"holdfast.cli.{verb}").command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= known
    assert "results/mine/gate.json" in run and (ROOT / "constraints.txt").exists()


def test_the_least_numbers_of_prompts_are_those_that_planning_asks_for():
    needs, three, five, one = (
        int(re.search(rf"{before} (\d+)", PAGE)[1])
        for before in ("two\nseeds needs", "over three", "over five", "of one model")
    )
    assert [needs, three, five, one] == [limits.least_prompts(0.05, 0.05, n) for n in (2, 3, 5, 1)]


def test_what_planted_studies_gave_is_within_the_level():
    rows = re.findall(r"^\| [a-z-]+ \| \d × \d \| .* \| (\d+\.\d) % \|(?: +\d+ % \|){3}$", PAGE, re.M)
    assert len(rows) >= 30 and max(map(float, rows)) <= 5 + 2 * 100 * (0.05 * 0.95 / 1000) ** 0.5
