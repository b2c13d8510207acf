"""Every merge on a machine with a pretended GPU, through the driver: the same weights as without one, bit by bit.

Tensors are read, merged and written on the host whatever the machine has. What a merge loads as a model is on the GPU:
SOMF learns its mask there.
"""

from __future__ import annotations

import pretend
import pytest
import torch
from test_merging import MERGES, family, gram_file, merge  # noqa: F401 - fixtures

SHORT = {"epochs": 0.5, "batch_size": 6, "pairs_at_once": 3}
CASES = [(name, SHORT if name == "somf" else {}) for name in MERGES]
CASES += [("somf", SHORT | given) for given in (
    {"fusion": "ties_merging", "export": "binary_mask"}, {"reference": "mask", "mask": "shuffled"},
)]  # fmt: skip
CASES += [("nlsr", {"probability": 1.0}), ("lead-merge", {"energy": 0.9})]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_a_merge_is_the_same_where_there_is_a_gpu(name, settings, merge):  # noqa: F811
    with pretend.plain():
        expected, alone = merge(name, settings, out="here")
    with pretend.gpu():
        found, there = merge(name, settings, out="there")
    assert expected.keys() == found.keys() and all(torch.equal(found[k], v) for k, v in expected.items())
    assert there["machine"]["gpu"] == "pretended"
    told = {k for k in alone if k != "machine" and not k.startswith("cost/")}
    assert {k: alone[k] for k in told} == {k: there[k] for k in told}
