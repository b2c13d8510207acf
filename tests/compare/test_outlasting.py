"""What outlasts a stress, counted from verdicts."""

from __future__ import annotations

import pytest
from test_curves import exact

from holdfast.compare import groups, stress


def test_every_arm_beside_itself_as_it_was(tmp_path):
    def load(folder, rates):
        files = [exact(tmp_path / folder, "test", arm, arm, *rate, swept=False) for arm, rate in rates.items()]
        return groups.load(files)

    plain = load("plain", {"full": (0.1, 0.9), "warp": (0.9, 0.8), "resta": (0.5, 0.5)})
    bits = load("bits", {"full": (0.1, 0.7), "warp": (0.6, 0.75)})
    hot = load("hot", {"warp": (0.8, 0.6)})
    rows = stress.rows(plain, {"bits-4": bits, "hot": hot})
    found = {(r["arm"], r["stress"]): r for r in rows}
    assert list(found) == [
        ("full", stress.PLAIN), ("full", "bits-4"), ("warp", stress.PLAIN), ("warp", "bits-4"), ("warp", "hot")
    ]  # fmt: skip
    assert found["warp", "bits-4"]["refusal"] == pytest.approx(0.6)
    assert found["warp", "bits-4"]["refusal_change"] == pytest.approx(-0.3)
    assert found["warp", "bits-4"]["refusal_change_high"] < 0 < found["warp", "bits-4"]["refusal_low"]
    assert found["warp", "hot"]["utility"] == pytest.approx(0.6) and "refusal_change" not in found["warp", stress.PLAIN]
    assert found["full", "bits-4"]["refusal_change"] == 0 and set(found["full", "bits-4"]) <= set(stress.COLUMNS)


def test_what_is_complied_with_is_told_beside_what_is_refused(tmp_path):
    plain, bits = (
        groups.load([exact(tmp_path / of, "test", "warp", "warp", rate, 0.9, swept=False, over=0.2)])
        for of, rate in (("plain", 0.9), ("bits", 0.6))
    )
    before, after = stress.rows(plain, {"bits": bits})
    for row, refused in ((before, 0.9), (after, 0.6)):
        assert (row["refusal"], row["compliance"]) == pytest.approx((refused, 1 - refused))
        assert row["over_refusal"] == pytest.approx(0.2) and row["compliance_low"] < row["compliance"]
