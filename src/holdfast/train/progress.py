"""What a training run leaves behind while it runs: one line of log a step, a bar, checkpoints; none of it twice."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from holdfast.errors import TrainingError
from holdfast.record import files

SAVING = 0.05  # of the time at most: a checkpoint of a large model takes minutes


class Log(TrainerCallback):
    """Writes one JSON line per logging step and asks for a checkpoint every so many seconds, or less often where
    writing them would take more than the share `SAVING` of the time.

    Lines of steps after the checkpoint a run resumes from are dropped, so a killed and resumed run
    has the same steps as an uninterrupted one. What it took up to there counts (`earlier`, seconds).

    Of several processes all have one, because checkpoints are written together: the clock is that of the first
    (`agreed`), and only it has a `path` to write to.
    """

    def __init__(
        self,
        path: Path | None,
        checkpoint_seconds: float,
        say: Callable[[str], None],
        name: str,
        terminal: TextIO | None,
        agreed: Callable[[bool], bool] = bool,
    ) -> None:
        self.path, self.partial = path, path and path.with_name(path.name + ".partial")
        self.seconds, self.say, self.agreed = checkpoint_seconds, say, agreed
        self.name, self.terminal = name, terminal
        self.bar: tqdm[Any] | None = None
        self.records: list[dict[str, float]] = []
        self.began = self.saved = self.said = self.asked = time.monotonic()
        self.earlier = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the lines of a killed run, and its seconds, up to the step it resumes from."""
        self.earlier = max((line.get("seconds", 0.0) for line in state.log_history), default=0.0)
        if self.partial is None:
            return
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        if state.global_step and self.partial.exists():
            for line in self.partial.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # the line that was being written when the run was killed
                    continue
                if record["step"] <= state.global_step:
                    self.records.append(record)
        self.partial.write_text("".join(json.dumps(r) + "\n" for r in self.records), encoding="utf-8")
        if self.terminal is not None:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.name, file=self.terminal, leave=False,
                mininterval=0.5, dynamic_ncols=True,
            )  # fmt: skip

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write one line, and say one to the log every ten seconds."""
        if not logs or "loss" not in logs:
            return
        state.log_history[-1]["seconds"] = self.earlier + time.monotonic() - self.began  # goes into a checkpoint
        inner = getattr(optimizer, "optimizer", optimizer)
        record = {
            "step": state.global_step,
            "epoch": round(float(state.epoch or 0), 4),
            "loss": float(logs["loss"]),
            "learning_rate": float(logs.get("learning_rate", 0.0)),
            "grad_norm": float(logs.get("grad_norm", getattr(inner, "grad_norm", 0.0))),
            "time": round(time.time(), 3),
        }
        if not math.isfinite(record["loss"]):
            raise TrainingError(
                f"{self.name}: the loss is not a number any more; nothing was saved.",
                found=f"{record['loss']} at step {state.global_step} of {state.max_steps}",
                expected="a finite loss", do=f"lower the learning rate (peak {args.learning_rate:g})",
            )  # fmt: skip
        self.records.append(record)
        if self.partial is None:
            return
        with self.partial.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if time.monotonic() - self.said > 10 or state.global_step >= state.max_steps:
            self.said = time.monotonic()
            self.say(f"{self.name}: step {state.global_step}/{state.max_steps}  loss {record['loss']:.4f}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for the last line, move the bar, and ask for a checkpoint where one is due."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)
        # With a line of the log, because the loss since the last one is not in a checkpoint.
        may = state.global_step % args.logging_steps == 0 and state.global_step < state.max_steps
        if may and self.agreed(time.monotonic() - self.saved > self.seconds):
            self.asked = time.monotonic()
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note what writing the checkpoint took."""
        self.saved = time.monotonic()
        self.seconds = max(self.seconds, (self.saved - self.asked) / SAVING)

    def finish(self) -> None:
        """The finished log under its final name."""
        if self.bar is not None:
            self.bar.close()
        if self.path is None or self.partial is None:
            return
        files.write_text(self.path, "".join(json.dumps(r) + "\n" for r in self.records))
        self.partial.unlink(missing_ok=True)


def last_checkpoint(folder: Path, identity: str) -> str | None:
    """The newest complete checkpoint made by this very run; others are removed."""
    stamp = folder / "identity"
    if folder.exists() and (not stamp.exists() or stamp.read_text(encoding="utf-8") != identity):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(identity, encoding="utf-8")
    steps = sorted((int(p.name.split("-")[1]), p) for p in folder.glob("checkpoint-*") if _complete(p))
    return str(steps[-1][1]) if steps else None


def _complete(checkpoint: Path) -> bool:
    """Whether all of it was written: its last file is there, and whole."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
