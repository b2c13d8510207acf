"""Which folders of a study are versioned? All that its rules write below work/, whatever its methods are."""

from __future__ import annotations

import json
import re

import pytest
from bad_input import GOOD, load
from conftest import ROOT

from holdfast.archive import remote
from holdfast.study import resolve


def folders(study):
    return {f.removeprefix(f"work/{study.name}/") for _, found in remote.families(study).values() for f in found}


@pytest.mark.parametrize("arm", ["full", "lead", "soup"])
def test_a_study_without_masks_has_gram_matrices_and_bases_too(tmp_path, arm):
    """What changed in the weights is told along the safety basis; `lead` reads directions that lie beside it."""
    found = folders(load(tmp_path, GOOD | {"arms": {"full": {"method": "full"}, arm: {"method": arm}}}))
    assert {"gram", "basis", "aligned", "base", "data"} <= found and "masks" not in found


def test_the_model_that_safety_training_starts_from_is_one_of_them(tmp_path):
    (tmp_path / "chat").mkdir()
    study = load(tmp_path, GOOD | {"aligned": {"source": str(tmp_path / "chat"), "training": {"epochs": 1}}})
    assert {"start", "aligned"} <= folders(study)


def test_every_folder_that_rules_write_is_in_a_family():
    text = "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    outputs = "".join(
        re.findall(r"output:\n(?:(?: {8,}.*)?\n)+?(?= *(?:log|threads|wildcard_constraints|params):)", text)
    )
    written = set(re.findall(r'f"\{W\}/(?:\{\{rep\}\})?(\w+)/', outputs))
    assert {"gram", "basis", "importance", "neurons", "masks", "attack", "data"} <= written
    found = set()
    for name in ("smoke-methods", "smoke-attack", "demo"):
        found |= {f.rpartition("/")[2] for f in folders(resolve.load(name, ROOT / "config"))}
    assert written <= found, json.dumps(sorted(written - found))
