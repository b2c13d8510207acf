"""What does a person see of a study while it runs? One line that says how far it is and what works, why a job failed,
and at the end what to open.

Snakemake tells Python's logging of everything that happens; this is one more reader of that. On a terminal the line is
drawn in place, elsewhere (a log, CI) it is written once a minute.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import psutil

from holdfast import errors
from holdfast.engines.snakemake import LOGGER
from holdfast.record import times
from holdfast.stage.progress import Job, Run, job_of, tail

STREAM = "DefaultStreamHandler"  # Snakemake's name of what writes on the screen
DRAWN, WRITTEN = 1.0, 60.0  # seconds between two lines on a terminal, and in a log
CLEAR = "\r\x1b[K"
BESIDE = "beside-logs-"  # and the number of the run's process
TAIL = 12  # lines of a failed job's log
# What Snakemake says of a failed run, which is said here too; its other warnings and errors pass.
_SAID_HERE = ("RuleException", "Exiting because a job execution failed", "At least one job did not complete")
_STOPPED = "Terminating processes on user request"
_ENDED = re.compile(r"died with <Signals\.(\w+)|returned non-zero exit status (1[2-9]\d)\b")  # the latter of a shell
_NO_MEMORY = (
    "  Killed: by somebody, or by the system because memory ran out.",
    "  do:       fewer jobs at a time (--cores 1), or a smaller batch_size; holdfast plan says what a job needs",
)


def _block(lines: Sequence[str]) -> list[str]:
    """The user's error that a log ends with, if it does."""
    for i in range(len(lines) - 1, -1, -1):
        if not lines[i].startswith("  "):
            kind = getattr(errors, lines[i].partition(":")[0], None)
            known = isinstance(kind, type) and issubclass(kind, errors.HoldfastError)
            return list(lines[i:]) if known else []
    return []


def ended_by(said: str) -> str:
    """The signal that ended a job, by what Snakemake says of its command; empty where none did.

    >>> ended_by("Command 'x' died with <Signals.SIGKILL: 9>."), ended_by("'x' returned non-zero exit status 1.")
    ('SIGKILL', '')
    """
    found = _ENDED.search(said)
    if not found:
        return ""
    return found[1] or next((s.name for s in signal.Signals if s == int(found[2]) - 128), "")


def reason(job: Job, seconds: float | None, beside: Path, by: str = "") -> list[str]:
    """Why a job failed: the user's error that its log ends with, or the signal that it was ended `by` and the last
    lines of its log; where there are none, of what jobs write `beside` their logs."""
    lines = [line for log in job.logs for line in tail(log)]
    after = f" after {times.passed(seconds)}" if seconds is not None else ""
    head = f"failed: {job}{after}"
    if block := _block(lines):
        return [head, *block]
    where = f"its log {job.logs[0]}" if lines else f"no log; {beside}"
    last = [f"  {line}" for line in (lines or tail(str(beside)))[-TAIL:]]
    head += f", ended by {by}" if by else ""
    return [f"{head}; {where} ends:" if last else f"{head}; no log", *last, *(_NO_MEMORY if by == "SIGKILL" else ())]


class Screen(logging.Handler):
    """Reads what Snakemake says of its jobs, and keeps one line of it on a terminal or in a log."""

    def __init__(
        self, study: str, jobs: Mapping[int, Job], stream: TextIO, beside: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__()
        self.study, self.stream, self.beside, self.clock = study, stream, beside, clock
        self.run = Run(dict(jobs), clock())
        self.terminal = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.over, self.turn = threading.Event(), threading.RLock()
        self.by: dict[int | None, str] = {}  # thread -> the signal of the job whose failure it tells next
        self.said = self.run.began

    def emit(self, record: logging.LogRecord) -> None:
        """One thing that happened."""
        with self.turn:
            self._take(record, str(getattr(record, "event", None) or ""), self.clock())

    def _take(self, told: Any, event: str, now: float) -> None:
        if event == "job_info":
            job = job_of(told.rule_name, told.wildcards or {})
            job.logs = list(told.log or [])
            self.run.begin(told.jobid, job, now)
        elif event == "job_finished":
            self.run.finish(told.job_id, now)
        elif event == "job_error" and not self.run.stopped:
            by = self.by.pop(told.thread, "")
            if job_failed := self.run.fail(told.jobid):
                self._failed(job_failed, now, by)
        elif str(told.msg or "").startswith(_STOPPED):
            self.run.stopped = True
        elif by := ended_by(str(told.msg)):
            self.by[told.thread] = by
        elif self.terminal and told.levelno >= logging.WARNING:  # which Snakemake writes now
            self.write("")

    def _failed(self, job: Job, now: float, by: str) -> None:
        lines = reason(job, None if job.began is None else now - job.began, self.beside, by)
        if by == "SIGINT" or lines[-1].strip() == "KeyboardInterrupt":  # Ctrl-C reached the job before Snakemake
            self.run.stopped = True
            return
        self.write("\n".join(lines) + "\n")

    def write(self, text: str) -> None:
        """Text in place of the line."""
        self.stream.write((CLEAR if self.terminal else "") + text)
        self.stream.flush()

    def draw(self) -> None:
        """The line as it is now, on a terminal cut to its width."""
        with self.turn:
            if self.over.is_set():  # between waking and its turn
                return
            now = self.clock()
            text = self.run.line(self.study, now)
            if self.terminal:
                self.write(text[: shutil.get_terminal_size().columns - 1])
            elif now - self.said >= WRITTEN:
                self.said = now
                self.write(text + "\n")

    def follow(self) -> None:
        """Draw until the run is over, from a thread."""
        while not self.over.wait(DRAWN):
            self.draw()

    def end(self) -> None:
        """The run is over: say how it went, and what to open."""
        self.over.set()
        run, took = self.run, times.passed(self.clock() - self.run.began)
        done = f"{len(run.done)} of {len(run.jobs)} jobs"
        kept = "What is finished is kept:"
        if run.failed and not run.stopped:
            failed = ", ".join(map(str, run.failed.values()))
            text = f"{self.study}: failed: {failed}; {done} in {took}. {kept} mend that, and the same command goes on"
        elif run.stopped or len(run.done) < len(run.jobs):
            text = f"{self.study}: stopped after {took}, {done}. {kept} the same command goes on"
        elif not run.jobs:
            text = f"{self.study}: nothing was to be done for what was asked"
        else:
            _, cells = run.cells()
            text = f"{self.study}: {len(run.jobs)} jobs{f', {cells} cells' if cells else ''}, in {took}"
        with self.turn:
            self.write(text + "\n")
        if not run.failed or run.stopped:
            self.beside.unlink(missing_ok=True)


def _passes(record: logging.LogRecord) -> bool:
    """Whether Snakemake itself still says it: what it warns of, but for what is said here."""
    said = f"{getattr(record, 'exception', '')} {record.msg}"
    return record.levelno >= logging.WARNING and not any(x in said for x in _SAID_HERE)


_shown: list[Screen] = []


def start(study: str, jobs: Mapping[int, tuple[str, Mapping[str, str]]], state: Path = Path(".snakemake")) -> str:
    """Called when a run starts: take the place of what Snakemake shows, where it was asked to be quiet about its
    rules.

    Args:
        jobs: rule and wildcards of every job that is to run, by its number.

    Returns:
        what a shell does before every job: a job that is interrupted before its log is open says so, in pages, and not
        on the terminal.
    """
    logger = logging.getLogger(LOGGER)
    shown = next((h for h in logger.handlers if h.name == STREAM), None)
    if shown is None or not any("rules" in {str(q) for q in getattr(f, "quiet", ())} for f in shown.filters):
        return ""
    for old in state.glob(f"{BESIDE}*"):  # of failed runs, looked at or not
        if not psutil.pid_exists(int(old.name.removeprefix(BESIDE))):
            old.unlink(missing_ok=True)
    known = {number: job_of(*job) for number, job in jobs.items()}
    screen = Screen(study, known, sys.stderr, state / f"{BESIDE}{os.getpid()}")
    _shown.append(screen)
    shown.addFilter(_passes)
    logger.handlers.insert(0, screen)  # before what writes: the line goes, then the warning comes
    threading.Thread(target=screen.follow, daemon=True, name="progress of the study").start()
    return f"exec 2>>{shlex.quote(str(screen.beside.resolve()))};"


def halt() -> None:
    """Called when everything ends at once, in the middle of the run."""
    for screen in _shown:
        if not screen.over.is_set():
            screen.run.stopped = True
            screen.end()


def end(opened: Sequence[str] = ()) -> None:
    """Called when a run is over, with what there is to open."""
    for screen in _shown:
        screen.end()
    for line in opened:
        sys.stderr.write(f"  {line}\n")
