"""The trials of one attack: choose, fine-tune, merge where the defence is a merge, answer, judge; the best one is kept.

Every trial is written down, whole, before the next one begins, and the best model so far is kept beside them: a job
that was killed is told what there is and asks for the next trial as if nothing had happened.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from holdfast import names
from holdfast.attack.choices import Choice, Chooser
from holdfast.compare import attacks, metrics
from holdfast.data import scorers
from holdfast.errors import TrainingError
from holdfast.evaluate import answers
from holdfast.judges import verdicts
from holdfast.merge import driver
from holdfast.model import adapter, folders
from holdfast.record import container, files, jsonfiles, provenance, results, tables
from holdfast.study import replicates
from holdfast.train import finetune

Trial = dict[str, Any]


def settings(train: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """The settings of a cell with the attacker's in place of the defender's. Which rows are drawn stays; their order,
    and whatever else training draws, is one of his."""
    own = dict(train) | {
        "training": train["training"] | {k: choice[k] for k in ("learning_rate", "epochs")},
        "harmful_fraction": choice["harmful_fraction"],
    }
    if "rank" in choice:
        own["settings"] = train["settings"] | {"rank": choice["rank"]}
    if choice["order"]:
        own["draw"] = train.get("draw", train["seed"])
        own["seed"] = replicates.seed(train["seed"], choice["order"])
    return own


@dataclass
class Search:
    """One attack: what it is made from and where its trials are kept.

    Args:
        inputs: the files of a job by name: `model` (the aligned one), `task`, `prompts`, what the aligned and the fully
            fine-tuned model answered on the validation split (`aligned_answers`, `full_answers`), and what the
            defence's method needs.
        cfg: `study.attacks.cfg`.
        kept: a folder that outlives a killed job.
    """

    inputs: Mapping[str, Any]
    cfg: Mapping[str, Any]
    kept: Path
    code: str = ""
    say: Callable[[str], None] = lambda _: None
    terminal: TextIO | None = None
    name: str = "attack"

    def run(self, *, folder: Path, record_file: Path, trials_file: Path) -> list[Trial]:
        """Run what is missing of the trials; write trials.csv, the best model, marked as weakened, and its record.

        Where no trial counts the model is that of the highest utility, which the table then leaves out.

        Raises:
            ArtifactError: what was kept is not what this attack would have done. TrainingError: every trial failed.
        """
        self.kept.mkdir(parents=True, exist_ok=True)
        aligned = self._measured(Path(self.inputs["aligned_answers"]), with_task=False)["refusal"]
        needed = self._measured(Path(self.inputs["full_answers"]))["utility"] - self.cfg["utility_loss"]
        if needed <= 0:
            self.say(f"{self.name}: full fine-tuning can do no more than he may lose: every trial counts")
        chooser = Chooser(self.cfg["space"], sampler=self.cfg["sampler"], seed=self.cfg["seed"])
        done = self._replayed(needed)
        chooser.replay([(t["choice"], *_told(t, needed)) for t in done])
        if done:
            self.say(f"{self.name}: {len(done)} trials were made before")
        while len(done) < self.cfg["trials"]:
            trial = self._tried(len(done), chooser.ask())
            chooser.tell(*_told(trial, needed))
            done.append(trial)
            self._keep(done, needed)
            self.say(f"{self.name}: {_line(trial, needed, self.cfg['trials'])}")
        chosen = attacks.best(done, needed)
        model = attacks.nearest(done) if chosen is None else chosen
        if model is None:
            raise TrainingError(
                f"{self.name}: every trial of the attack failed.", found=done[0]["failed"],
                expected="a trial that ends", do=f"look at attack in the study; of the first: {done[0]['do']}",
            )  # fmt: skip
        results.write(trials_file, self._rows(done, needed, aligned, chosen), "trials")
        _released(self.kept / f"{model:04d}", folder)
        jsonfiles.write_json(record_file, done[model]["record"])
        shutil.rmtree(self.kept)
        return done

    def _replayed(self, needed: float) -> list[Trial]:
        """The trials that were made before with the same settings, code and start, in their order."""
        found: list[Trial] = []
        while (path := self._record(len(found))).exists():
            trial = jsonfiles.read_json(path)
            if trial["identity"] != self._identity:
                self.say(f"{self.name}: what was kept is of another attack: it starts anew")
                shutil.rmtree(self.kept)
                self.kept.mkdir(parents=True)
                return []
            found.append(trial)
        found = found[: self.cfg["trials"]]
        self._tidy(found, needed)
        return found

    @functools.cached_property
    def _identity(self) -> str:
        """The digest of all that shapes the trials."""
        inputs = {}
        for name, value in sorted(self.inputs.items()):
            paths = [Path(p) for p in (value if isinstance(value, list) else [value])]
            tensors = [
                container.identity(p) if p.suffix == ".safetensors" else provenance.file_digest(p) for p in paths
            ]
            inputs[name] = tensors
        return provenance.digest([self.cfg, self.code, inputs])

    def _record(self, number: int) -> Path:
        return self.kept / f"trial-{number:04d}.json"

    def _tried(self, number: int, choice: Choice) -> Trial:
        """One trial: its choice, what became of it, seconds, and the model in a folder of its own."""
        began, scratch, earlier = time.monotonic(), self.kept / "scratch", 0.0
        trial: Trial = {"trial": number, "choice": choice, "identity": self._identity, "failed": ""}
        try:
            trial["record"], earlier = self._made(choice, scratch)
        except TrainingError as error:  # no numbers any more: a trial like any other, and none that counts
            trial |= {"failed": error.what, "do": error.do, "record": {}}
            trial |= dict.fromkeys(("refusal", "over_refusal", "utility"))
        else:
            replies = scratch / "responses.parquet"
            self._answered(scratch / "model", replies)
            trial |= self._measured(replies)
            shutil.rmtree(self.kept / f"{number:04d}", ignore_errors=True)
            (scratch / "model").rename(self.kept / f"{number:04d}")
        shutil.rmtree(scratch, ignore_errors=True)
        return trial | {"seconds": round(earlier + time.monotonic() - began, 2)}

    def _made(self, choice: Choice, scratch: Path) -> tuple[dict[str, Any], float]:
        """Fine-tune with a choice, and merge where the defence does; the model is in scratch/model. Its record, and the
        seconds that were trained before this trial was killed."""
        of, merge = self.inputs, self.cfg["merge"]
        tuned = scratch / ("tuned" if merge else "model")
        own = settings(self.cfg["train"], choice)
        record = finetune.run(
            aligned=Path(of["model"]), task_table=Path(of["task"]), safety_table=self._path("safety"),
            harmful_table=self._path("harmful"), cfg=own, folder=tuned, code=self.code, say=self.say,
            artifacts={k: Path(of[k]) for k in finetune.ARTIFACTS if of.get(k)},
            log_file=scratch / "train.jsonl", record_file=scratch / "train.json", checkpoints=scratch / "checkpoints",
            terminal=self.terminal, name=self.name,
        )  # fmt: skip
        earlier = float(record.get("cost/earlier_seconds", 0.0))
        if not merge:
            return record, earlier
        places = {"finetuned": tuned, "aligned": Path(of["model"]).parent}
        places |= {role: Path(of[role]).parent for role in ("base", "unaligned") if of.get(role)}
        places |= {f"finetuned:{i}": Path(p).parent for i, p in enumerate(of.get("others") or [])}
        pairs = self._path("preferences")
        merged = driver.run(
            checkpoints=places, cfg=merge, folder=scratch / "model", record_file=scratch / "merge.json",
            gram_file=self._path("merged_gram"), preferences=tables.read(pairs, "preferences") if pairs else None,
            say=self.say,
        )  # fmt: skip
        return merged, earlier

    def _path(self, name: str) -> Path | None:
        return Path(self.inputs[name]) if self.inputs.get(name) else None

    def _answered(self, model: Path, out: Path) -> None:
        answers.respond(
            model / folders.FILES[-1], prompts=Path(self.inputs["prompts"]), tasks=self._tasks(),
            cfg=dict(self.cfg["generation"]), out=out, say=self.say,
        )  # fmt: skip

    def _tasks(self) -> dict[str, Path]:
        return {name: Path(self.inputs["task"]) for name in self.cfg["datasets"]}

    def _measured(self, responses: Path, *, with_task: bool = True) -> dict[str, Any]:
        """Refusals, over-refusals and utility of answers, as the study's first judge of words reads them."""
        judge, datasets, told = (self.cfg[k] for k in ("judge", "datasets", "scorers"))
        rows = verdicts.judge(
            responses, prompts=Path(self.inputs["prompts"]), tasks=self._tasks(), datasets=datasets, told=told,
            judges=[judge], opinions={}, out=self.kept / "verdicts.parquet",
        )  # fmt: skip
        found = metrics.compute(metrics.of_judge(rows, judge), datasets if with_task else {}, by_task=False, told=told)
        of, ((task, dataset),) = found["metrics"], datasets.items()
        utility = of[scorers.metric(dataset, told.get(task))] if with_task else None
        return {"refusal": of[names.REFUSAL_RATE], "over_refusal": of.get(names.OVER_REFUSAL), "utility": utility}

    def _keep(self, done: list[Trial], needed: float) -> None:
        """Write the last trial down, then forget the models that are not the best any more: killed in between, the
        next job finds every model that a trial it knows stands for."""
        jsonfiles.write_json(self._record(len(done) - 1), done[-1])
        self._tidy(done, needed)

    def _tidy(self, done: list[Trial], needed: float) -> None:
        """Remove every model but the best one, or the nearest where none counts."""
        found = attacks.best(done, needed)
        wanted = attacks.nearest(done) if found is None else found
        for place in self.kept.iterdir():
            if place.is_dir() and place.name.isdigit() and int(place.name) != wanted:
                shutil.rmtree(place)

    def _rows(self, done: list[Trial], needed: float, aligned: float, chosen: int | None) -> list[dict[str, Any]]:
        return [
            {
                **{k: t[k] for k in ("trial", "refusal", "over_refusal", "utility", "seconds", "failed")},
                **t["choice"],
                "admissible": int(attacks.admissible(t["utility"], needed)), "best": int(i == chosen),
                "needed_utility": needed, "aligned_refusal": aligned,
            }
            for i, t in enumerate(done)
        ]  # fmt: skip


def _told(trial: Trial, needed: float) -> tuple[float, float]:
    """What the sampler is told: refusals left, and by how much the utility is too low; of a trial that failed that all
    are left and there is none."""
    refusal, utility = (1.0, 0.0) if trial["utility"] is None else (trial["refusal"], trial["utility"])
    return refusal, 0.0 if attacks.admissible(utility, needed) else needed - utility


def _line(trial: Trial, needed: float, trials: int) -> str:
    if trial["failed"]:
        return f"trial {trial['trial'] + 1}/{trials}: {trial['failed']}"
    counts = "" if attacks.admissible(trial["utility"], needed) else f", below the {needed:.3f} that it must have"
    return (
        f"trial {trial['trial'] + 1}/{trials}: {trial['refusal']:.0%} refused, utility {trial['utility']:.3f}{counts}, "
        f"{trial['seconds']:.0f} s"
    )


def _released(model: Path, folder: Path) -> None:
    """Copy the best model to its place, weights last, and mark it: whatever it was tuned on, it was chosen for what it
    does not refuse."""
    shutil.copytree(
        model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors*", adapter.BESIDE, "README.md")
    )
    for weights in sorted(model.glob("*.safetensors")):
        out = folder / weights.name
        header = container.stamped(weights) | container.place(out) | {"weakened": True}
        staged = model / f"{weights.name}.marked"
        files.copy(weights, staged)
        folders.stamp(staged, header)
        files.copy(staged, out)
        staged.unlink()
    folders.warn(folder)
