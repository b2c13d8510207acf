"""What errors of other libraries say, in one line of a block."""

from __future__ import annotations

import pytest
import yaml

from holdfast.errors import said


@pytest.mark.parametrize(("text", "line"), [
    ("", "ValueError"), (" \n ", "ValueError"), ("one\n  two\n", "one two"), ("x" * 300, f"{'x' * 236} ..."),
    (f"cannot open /{'long/' * 60}", f"cannot open /{'long/' * 60}"[:236] + " ..."), ("x" * 240, "x" * 240),
])  # fmt: skip
def test_all_lines_are_one_and_long_words_are_cut(text, line):
    assert said(ValueError(text)) == line


def test_what_points_at_something_above_it_is_left_out():
    with pytest.raises(yaml.YAMLError) as error:
        yaml.safe_load("a: b: c")
    assert "^" not in said(error.value) and "line 1, column 5" in said(error.value)
