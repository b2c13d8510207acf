"""Mistakes that Snakemake alone can see are said as every other one: its own exceptions, as it logs them."""

from __future__ import annotations

import logging

import pytest
from snakemake import exceptions
from snakemake.logging import logger

from holdfast.stage import words


@pytest.fixture(autouse=True)
def guarded(monkeypatch):
    monkeypatch.setattr(logger, "filters", [])
    assert logger.name == words.LOGGER
    words.guard(["models", "table"])


@pytest.mark.parametrize(
    ("exception", "says"),
    [
        (exceptions.MissingRuleException("modelz"), "did you mean 'models'?"),
        (exceptions.MissingRuleException("results/smoke/crafts/full2/seed0/metrics.json"), "the task, the arm"),
        (exceptions.LockException(), "--unlock"),
    ],
)
def test_it_is_one_block_and_exit_code_2(exception, says, capsys):
    with pytest.raises(SystemExit) as ended:
        exceptions.print_exception(exception, {})
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("UsageError: ") and says in said.splitlines()[-1]


def test_everything_else_is_left_as_it_is(monkeypatch):
    taken: list[logging.LogRecord] = []
    keep = logging.Handler()
    keep.emit = taken.append
    monkeypatch.setattr(logger, "handlers", [keep])
    exceptions.print_exception(exceptions.WorkflowError("No rule to produce x (if you use"), {})
    exceptions.print_exception_warning(exceptions.MissingRuleException("modelz"), {})
    assert ["No rule to produce" in r.getMessage() for r in taken] == [True, True]
