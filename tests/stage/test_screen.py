"""What is shown of a running study: how far it is, why a job failed, how it ended; on a terminal in one line, elsewhere
a line a minute."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import threading

import pytest
from snakemake.logging import DefaultFilter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from holdfast.errors import DataError
from holdfast.stage import progress, screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def cell(arm: str) -> dict[str, str]:
    return {"rep": "", "task": "crafts", "arm": arm, "seed": "0"}


JOBS = {
    0: ("train_base", {}),
    **{n: (rule, cell(arm)) for n, (rule, arm) in enumerate(
        [(r, a) for a in ("full", "warp", "lora") for r in ("finetune", "judge")], 1)},
    7: ("all", {}),
}  # fmt: skip


class Played:
    """A run as Snakemake tells of it."""

    def __init__(self, tmp_path, stream=None) -> None:
        self.clock, self.stream, self.logs = Clock(), stream or io.StringIO(), tmp_path
        jobs = {n: progress.job_of(rule, w) for n, (rule, w) in JOBS.items()}
        self.screen = screen.Screen("s", jobs, self.stream, tmp_path / "beside", self.clock)

    def tell(self, event: LogEvent | None, msg: str = "", level: int = logging.INFO, **fields) -> None:
        record = logging.LogRecord("snakemake.logging", level, "", 0, msg, None, None)
        record.__dict__.update(fields, event=event)
        self.screen.handle(record)

    def begin(self, number: int, log: str | None = None) -> None:
        rule, wildcards = JOBS[number]
        file = self.logs / f"{number}.log"
        if log is not None:
            file.write_text(log)
        self.tell(LogEvent.JOB_INFO, jobid=number, rule_name=rule, wildcards=wildcards, log=[str(file)])

    def finish(self, *numbers: int, after: float = 0) -> None:
        self.clock.now += after
        for number in numbers:
            self.tell(LogEvent.JOB_FINISHED, job_id=number)

    def fail(self, number: int) -> None:
        self.tell(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=number, rule_name=JOBS[number][0])

    def line(self) -> str:
        return self.screen.run.line("s", self.clock.now)

    def said(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def run(tmp_path) -> Played:
    return Played(tmp_path)


def test_the_line_counts_jobs_and_cells_and_names_what_works(run):
    assert run.line() == "s: 0 of 8 jobs, 0 of 3 cells, 0 s"
    run.begin(0, "base: step 5/90  loss 3.1\nbase: step 10/90  loss 2.9\n")
    run.clock.now += 61
    assert run.line() == "s: 0 of 8 jobs, 0 of 3 cells, 1 min 1 s | train_base step 10/90"
    run.finish(0)
    run.begin(1, "")
    run.begin(3, "loading\n")
    assert run.line() == "s: 1 of 8 jobs, 0 of 3 cells, 1 min 1 s | finetune crafts/full/0 | finetune crafts/warp/0"
    run.finish(1, 3)
    run.begin(2)
    run.finish(2)
    assert run.line().startswith("s: 4 of 8 jobs, 1 of 3 cells, ")  # a cell is done when its last job is


def test_the_time_left_is_that_of_jobs_of_the_same_kind_as_many_at_a_time(run):
    assert run.screen.run.left(run.clock.now) is None
    run.begin(0)
    run.finish(0, after=60)
    assert run.screen.run.left(run.clock.now) is None  # nothing is known of fine-tuning
    run.begin(1)
    run.begin(3)
    run.finish(1, 3, after=100)
    run.begin(2)
    run.begin(4)
    run.finish(2, 4, after=20)
    # Left: a fine-tuning of 100 s, a verdict of 20, and `all`, which takes the mean of all: (60 + 200 + 40) / 5.
    # In 180 s jobs worked 300: 5/3 at a time.
    assert run.screen.run.left(run.clock.now) == pytest.approx((100 + 20 + 60) * 3 / 5)
    run.begin(5)
    run.clock.now += 50  # half of it is done, and 350 s of work in 230
    assert run.screen.run.left(run.clock.now) == pytest.approx((50 + 20 + 60) / (350 / 230))
    run.clock.now += 1000  # longer than those before it: never less than nothing
    assert run.screen.run.left(run.clock.now) == pytest.approx((0 + 20 + 60) / (1350 / 1230))
    assert "about 2 min left" in run.line()


def test_a_terminal_has_one_line_in_place_and_its_width(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    run = Played(tmp_path, Terminal())
    run.begin(0)
    for _ in range(2):
        run.screen.draw()
    assert "\n" not in run.said() and run.said().count(screen.CLEAR) == 2
    assert run.said().split(screen.CLEAR)[1] == "s: 0 of 8 jobs, 0 of 3 cells, 0 s | train_base"[:39]
    run.tell(None, "No space", logging.WARNING)
    assert run.said().endswith(screen.CLEAR)  # Snakemake's warning stands where the line was
    monkeypatch.setenv("TERM", "dumb")
    assert not Played(tmp_path, Terminal()).screen.terminal
    monkeypatch.delenv("TERM")
    assert not Played(tmp_path, Terminal()).screen.terminal


def test_a_log_has_a_line_a_minute(run):
    for _ in range(150):
        run.clock.now += 1
        run.screen.draw()
    assert run.said() == "s: 0 of 8 jobs, 0 of 3 cells, 1 min 0 s\ns: 0 of 8 jobs, 0 of 3 cells, 2 min 0 s\n"


BLOCK = DataError("prompts.parquet: row 5 has no text.", found="''", expected="a text", do="fill it in").block()


def test_a_user_error_is_the_block_and_nothing_else(run):
    run.begin(1, f"tokens: 7\n{BLOCK}\nworked 1.00 s, after 2.00 s to start, in 0.1 GB of memory\n")
    run.clock.now += 12
    run.fail(1)
    run.fail(1)  # what Snakemake says twice is said once
    assert run.said() == f"failed: finetune crafts/full/0 after 12 s\n{BLOCK}\n"


def test_another_error_is_the_end_of_the_log(run):
    trace = [f"  line {n}" for n in range(40)]
    run.begin(
        1, "\n".join(["ArtifactError: of an earlier attempt", "  found:    x", *trace, "RuntimeError: boom"]) + "\n"
    )
    run.fail(1)
    lines = run.said().splitlines()
    assert lines[0] == f"failed: finetune crafts/full/0 after 0 s; its log {run.logs / '1.log'} ends:"
    assert lines[1:] == [f"  {x}" for x in [*trace, "RuntimeError: boom"][-screen.TAIL :]]


def test_a_line_that_only_looks_like_an_error_is_one_of_the_log(run):
    run.begin(1, "loading\nsaid: nothing\n  at all\n")
    run.fail(1)
    assert run.said().splitlines()[1:] == ["  loading", "  said: nothing", "    at all"]


def test_a_job_that_dies_before_its_log_is_read_from_what_is_written_beside(run):
    (run.logs / "beside").write_text("ModuleNotFoundError: No module named 'peft'\n")
    run.begin(1)
    run.fail(1)
    head, last = run.said().splitlines()
    assert head.endswith(f"no log; {run.logs / 'beside'} ends:") and last.strip().startswith("ModuleNotFoundError")
    run.screen.end()
    assert (run.logs / "beside").exists()


@pytest.mark.parametrize(("said", "by"), [("died with <Signals.SIGKILL: 9>.", "SIGKILL"),
                                          ("returned non-zero exit status 137.", "SIGKILL"),
                                          ("died with <Signals.SIGBUS: 7>.", "SIGBUS")])  # fmt: skip
def test_a_job_that_something_ended_says_so(run, said, by):
    run.begin(1, "step 3/60: loss 2.5\n")
    run.tell(LogEvent.ERROR, f"CalledProcessError:\nCommand 'x' {said}", logging.ERROR, exception="RuleException")
    run.fail(1)
    run.begin(3)  # which ends before its log is open, by nothing that Snakemake told
    run.fail(3)
    log = run.logs / "1.log"
    memory = list(screen._NO_MEMORY) if by == "SIGKILL" else []
    assert run.said().splitlines() == [
        f"failed: finetune crafts/full/0 after 0 s, ended by {by}; its log {log} ends:", "  step 3/60: loss 2.5",
        *memory, "failed: finetune crafts/warp/0 after 0 s; no log",
    ]  # fmt: skip


def test_jobs_that_end_at_once_are_told_apart_by_their_threads(run):
    killed = (LogEvent.ERROR, "Command 'x' died with <Signals.SIGKILL: 9>.", logging.ERROR)
    (other := threading.Thread(target=run.tell, args=killed)).start()
    other.join()
    run.begin(1)
    run.fail(1)  # from this thread
    assert "SIGKILL" not in run.said()


def test_the_end_says_how_it_went(run, tmp_path):
    run.begin(1, "RuntimeError: boom\n")
    run.fail(1)
    run.screen.end()
    assert run.said().splitlines()[-1] == (
        "s: failed: finetune crafts/full/0; 0 of 8 jobs in 0 s. What is finished is kept: mend that, and the same "
        "command goes on"
    )
    again = Played(tmp_path)
    again.begin(1, "RuntimeError: boom\n")
    again.fail(1)
    again.begin(1, "")  # tried again, on a cluster
    again.finish(*JOBS, after=75)
    (tmp_path / "beside").touch()
    again.screen.end()
    assert again.said().splitlines()[-1] == "s: 8 jobs, 3 cells, in 1 min 15 s"
    assert not (tmp_path / "beside").exists()


@pytest.mark.parametrize("job_first", [True, False])
def test_ctrl_c_is_no_failure(run, job_first):
    run.begin(1, "Traceback (most recent call last):\n  ...\nKeyboardInterrupt\n")
    steps = [lambda: run.fail(1), lambda: run.tell(None, "Terminating processes on user request, this might take some")]
    for step in steps if job_first else reversed(steps):
        step()
    run.begin(3, "RuntimeError: the other process is gone\n")
    run.fail(3)
    run.screen.end()
    assert run.said() == "s: stopped after 0 s, 0 of 8 jobs. What is finished is kept: the same command goes on\n"


def test_a_run_is_ended_once_and_one_without_jobs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "_shown", [one := Played(tmp_path).screen])
    for _ in range(2):
        screen.halt()
    assert one.stream.getvalue() == (
        "s: stopped after 0 s, 0 of 8 jobs. What is finished is kept: the same command goes on\n"
    )
    none = screen.Screen("s", {}, io.StringIO(), tmp_path / "beside")
    none.end()
    assert none.stream.getvalue() == "s: nothing was to be done for what was asked\n"


@pytest.fixture
def snakemakes(monkeypatch):
    """A logger as Snakemake sets one up: a handler on a stream, with what it is quiet about."""

    def made(*quiet: Quietness) -> tuple[logging.Logger, io.StringIO]:
        logger, text = logging.getLogger("a logger like Snakemake's"), io.StringIO()
        logger.handlers.clear()
        logger.propagate = False
        logger.setLevel(logging.INFO)
        handler = logging.StreamHandler(text)
        handler.name = screen.STREAM
        handler.addFilter(DefaultFilter(set(quiet), False, False, False, False))
        logger.addHandler(handler)
        monkeypatch.setattr(screen, "LOGGER", logger.name)
        monkeypatch.setattr(screen, "_shown", [])
        return logger, text

    return made


def test_it_takes_the_place_of_quiet_rules_only(snakemakes, tmp_path, capsys):
    logger, text = snakemakes()
    assert screen.start("s", {}, tmp_path) == "" and len(logger.handlers) == 1
    screen.end(["report: r.html"])
    assert capsys.readouterr().err == "  report: r.html\n"

    logger, text = snakemakes(Quietness.RULES)
    (tmp_path / "a b").mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    for number in (gone.pid, os.getppid()):
        (tmp_path / f"a b/beside-logs-{number}").touch()
    first = screen.start("s", {}, tmp_path / "a b")
    assert [p.name for p in (tmp_path / "a b").iterdir()] == [f"beside-logs-{os.getppid()}"]
    assert first.startswith("exec 2>>'") and first.endswith("';")
    logger.info("Select jobs to execute...")
    logger.warning("careful")
    logger.error("Exiting because a job execution failed. Look below for error messages")
    logger.error("WorkflowError:\nAt least one job did not complete successfully.")
    logger.error("CalledProcessError in file", extra={"event": LogEvent.ERROR, "exception": "RuleException"})
    logger.error("Missing files", extra={"event": LogEvent.ERROR, "exception": "MissingOutputException"})
    assert text.getvalue() == "careful\nMissing files\n"
    screen.end(["report: r.html"])
    assert capsys.readouterr().err == "s: nothing was to be done for what was asked\n  report: r.html\n"
