"""One block, exit code 2, nothing written: for every mistake of tests/bad_input.py."""

from __future__ import annotations

import re

import bad_input
import pytest


@pytest.mark.parametrize("case", bad_input.CASES, ids=lambda c: f"{c.group}: {c.title}")
def test_a_mistake_is_one_block_that_names_it(case, tmp_path):
    said, code, wrote = bad_input.block(case, tmp_path)
    assert code == 2, said
    assert re.fullmatch(r"\w+(Error|Mismatch): .+(\n  (found|expected|do): +.+){1,3}", said), said
    assert all(word in said for word in case.says), said
    assert not wrote


def test_the_study_and_folder_that_the_cases_break_are_good(tmp_path):
    with bad_input.within(tmp_path):
        bad_input.write("mine.yaml", bad_input.GOOD)
        bad_input.look()
        bad_input.checkpoint(tmp_path / "base")
        bad_input.write("mine.yaml", bad_input.changed("base.source", "./base"))
        bad_input.look()


def test_there_are_many_and_the_document_lists_them():
    assert len(bad_input.CASES) >= 80
    assert bad_input.DOCUMENT.read_text() == bad_input.document()
