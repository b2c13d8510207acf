"""What is said of a user's mistake that Snakemake alone can see? The block, and the exit code, of every other one."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence

from holdfast.engines.snakemake import LOGGER
from holdfast.errors import HoldfastError, UsageError, meant

_NAMED = re.compile(r"No rule to produce (.+?) \(if you use")


def guard(rules: Sequence[str]) -> None:
    """Called by the Snakefile with the rules there are: end with the block in place of Snakemake's words."""

    def passes(record: logging.LogRecord) -> bool:
        if error := mistake(getattr(record, "exception", None), record.getMessage(), rules):
            sys.stderr.write(error.block() + "\n")
            sys.exit(error.exit_code)
        return True

    logging.getLogger(LOGGER).addFilter(passes)


def mistake(exception: str | None, said: str, rules: Sequence[str]) -> HoldfastError | None:
    """What to say in place of an exception that Snakemake logs by its name; None where its own words may stay.

    >>> print(mistake("MissingRuleException", "No rule to produce modelz (if you use input ...)", ["models", "table"]))
    UsageError: No rule is called so, and none makes such a file of this study.
      found:    modelz
      expected: a file of the study (docs/files.md), or one of models, table
      do:       did you mean 'models'?
    """
    if exception == "LockException":
        return UsageError(
            "Another run is making the same files.", found="a Snakemake that works in this folder",
            expected="one at a time; studies that share no file may run beside each other",
            do="wait for it, or stop it; if it was on a machine that is gone: the same command with --unlock",
        )  # fmt: skip
    named = _NAMED.search(said) if exception == "MissingRuleException" else None
    if not named:
        return None
    return UsageError(
        "No rule is called so, and none makes such a file of this study.", found=named[1],
        expected=f"a file of the study (docs/files.md), or one of {', '.join(sorted(rules))}",
        do=meant(named[1], rules, "correct it: a file names the study, the task, the arm and the seed"),
    )  # fmt: skip
