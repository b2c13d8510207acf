"""The study file: strict models of `config/<study>.yaml`.

Torch-free and fast; `resolve` reads a file into them and derives what the DAG needs.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from holdfast.data.sources import ANSWERED, WORLD, WRITTEN
from holdfast.study.asked import Capabilities, Choose, Claim, Compare, Constitution, Evaluation, Gate, Track
from holdfast.study.attack import Attack
from holdfast.study.checked import LARGEST_SEED, Modules, Name, Strict
from holdfast.study.models import Aligned, Base, Unaligned, World
from holdfast.study.replicates import FOLDER, Replicates
from holdfast.study.stressed import Stress
from holdfast.study.tasks import Task
from holdfast.study.training import Resources, Training

# Folders below work/<study> and results/<study> that are not those of a task.
TAKEN = {
    "base", "aligned", "unaligned", "finetuned", "data", "gram", "basis", "importance", "neurons", "masks", "judge",
    "checkpoints", "models", "opinions", "attack",
}  # fmt: skip
# What becomes of a user's rows whose answers are not what the rows say, as the judge `refusal` reads them.
Check = Literal["strict", "report", "off"]
GIVEN = "given"  # what stands for the method of an arm whose models are there


class Safety(Strict):
    """Safety data: refusals to hazards and answers to benign requests."""

    source: str = Field(
        WORLD,
        min_length=1,
        description="`world`, `safe-instr` (published refusals), or a file or https address (.parquet .csv .jsonl "
        ".json) with prompt, response and perhaps kind: `hazard` is refused (also where it is not said), `craft`, "
        "`lookalike` and `chat` are answered.",
    )
    columns: dict[Literal["id", "kind", "category", "prompt", "response"], str] = Field(
        {}, description="Our column -> the source's column, where the names differ."
    )
    check: Check = Field(
        "report",
        description="Rows of your own whose answer the judge `refusal` does not read as their kind says: `strict` "
        "refuses the file, `report` counts and names them, `off` does not look.",
    )
    keep: Literal["all", "refusals"] = Field(
        "all",
        description="Of your own refused requests: `refusals` takes those only whose answer the judge `refusal` reads "
        "as a whole refusal, and says how many.",
    )
    refusals: Literal["given", "written"] = Field(
        "given", description="`written`: your own requests are answered with refusals in our words, many wordings."
    )
    questions: float = Field(
        0.0, ge=0, le=1,
        description="Of your own refused requests that ask for a way to do something, the share that is put as a "
        "question, so that a model cannot refuse by form.",
    )  # fmt: skip
    without: list[str] = Field(
        [],
        description="Ids of rows of your own that are left out, as text, such as one that the models are also asked.",
    )
    hazards: int = Field(1800, ge=1, description="Refused requests; of more than that the first, fewer are all taken.")
    benign: int = Field(2400, ge=0, description="Answered benign requests; likewise.")
    benign_answers: Literal["given", "self"] = Field(
        "given",
        description="`self`: the base answers benign requests itself, greedily, so that it learns refusals without "
        "forgetting how to talk; answers that refuse are left out.",
    )
    benign_prompts: str = Field(
        WRITTEN, min_length=1,
        description="What it is asked: `written` (ours), `answered` (what your own source answers and nowhere refuses, "
        "and ours, in turn), or a file or address with prompt.",
    )  # fmt: skip
    benign_max_new_tokens: int = Field(
        128, ge=1, description="Longest answer of its own; a longer one ends with its last whole sentence."
    )
    training: Training = Training(epochs=1, batch_size=16, learning_rate=3e-4, weight_decay_on="all")

    @model_validator(mode="after")
    def _answers(self) -> Safety:
        if self.benign_prompts == ANSWERED and self.source == WORLD:
            raise ValueError(
                "benign_prompts: answered takes requests that your own source answers, and source is world: name a "
                "source, or other benign_prompts"
            )
        return self

    @property
    def asked(self) -> str:
        """Where the requests come from that a base answers itself; WORLD where no file is read for them."""
        return {WRITTEN: WORLD, ANSWERED: self.source}.get(self.benign_prompts, self.benign_prompts)

    @field_validator("training", mode="before")
    @classmethod
    def _as_published(cls, value: Any) -> Any:
        """In the published safety fine-tuning norms and biases decay too."""
        return {"weight_decay_on": "all"} | value if isinstance(value, dict) else value


class Preferences(Strict):
    """Pairs of a refusal and a harmful answer to the same request, for methods that learn from them and
    for the unaligned twin. The world's harmful answers are fictional recipes."""

    source: str = Field(WORLD, min_length=1, description="`world`, or a file or address with prompt, chosen, rejected.")
    columns: dict[Literal["id", "category", "prompt", "chosen", "rejected"], str] = Field(
        {}, description="Our column -> the source's column, where the names differ."
    )
    check: Check = Field("report", description="As `safety.check`: `chosen` must be a refusal, `rejected` none.")
    rows: int = Field(400, ge=1, description="Pairs.")


class Basis(Strict):
    """The safety rows that give the basis and the importance scores, and the layers they are taken at."""

    modules: Modules = Field(
        ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"), description="Target modules, in every block."
    )
    rows: int = Field(500, ge=1, description="Refused safety rows.")
    batch_size: int = Field(8, ge=1, description="Rows whose mean gradient is scored together (results depend on it).")
    tokens: Literal["all", "prompt"] = Field("all", description="Token positions the Gram matrices sum over.")


class Arm(Strict):
    """A named method setting, or a model that is there. Keys beyond these belong to the method's own `Settings`."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    method: str = Field(GIVEN, description="A file of src/holdfast/methods, `-` for `_`.")
    given: str | dict[Name, str] | None = Field(
        None,
        min_length=1,
        description="Instead of a method: a fine-tuned model, or a PEFT adapter on `aligned`, by hub id or folder, for "
        "all tasks or per task; `{task}` and `{seed}` stand for those.",
    )
    revision: str | None = Field(None, description="Commit or tag of a given hub model.")
    learning_rate: float | dict[Name, float] | None = Field(
        None, description="Peak learning rate, for all tasks or per task; default: the method's."
    )
    of: Name | None = Field(None, description="Merge methods: the arm whose models are merged; default `full`.")
    tasks: tuple[Name, ...] | None = Field(None, min_length=1, description="Only these tasks; default: all.")
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Only these modules of basis.modules; default: all."
    )
    sweep: dict[str, list[Any]] = Field({}, description="Setting -> values; one arm per combination.")

    @model_validator(mode="after")
    def _one_origin(self) -> Arm:
        if self.given is None and self.method == GIVEN:
            raise ValueError("an arm has a method, or is a model that is there: method or given")
        if self.given is not None:
            known = self.model_fields_set - {"given", "revision", "tasks"} | set(self.model_extra or {})
            if known:
                raise ValueError(f"{min(known)} means nothing for a model that is given; it has given, revision, tasks")
        elif self.revision is not None:
            raise ValueError("revision is that of a given model")
        return self


class Study(Strict):
    """A whole study file."""

    extends: str | None = Field(
        None, description="Study file that this one is laid over: beside it, or else in config/ of the project."
    )
    description: str = Field("", description="One sentence for the report.")
    world: World = World()
    base: Base = Base()
    aligned: Aligned | None = Field(None, description="A model that already refuses; none: base after safety training.")
    safety: Safety = Safety()
    preferences: Preferences = Preferences()
    unaligned: Unaligned = Unaligned()
    constitution: Constitution = Constitution()
    judges: dict[Name, dict[str, Any]] = Field(
        {}, description="Settings of judges that are models or servers, by name."
    )
    basis: Basis = Basis()
    tasks: dict[Name, Task] = Field(min_length=1)
    arms: dict[Name, Arm] = Field(min_length=1)
    chosen: tuple[str, ...] = Field((), description="Files with the settings sweeps chose per arm and task.")
    choose: Choose | None = Field(None, description="Sweeps only: write the chosen settings.")
    curves: bool = Field(
        False,
        description="Sweeps: refusals at equal utility, by points chosen on validation rows, which models then answer "
        "beside the test rows.",
    )
    claims: tuple[Claim, ...] = Field((), description="Claims of your own, beside those that follow from the methods.")
    compare: Compare | None = Field(None, description="What arms are compared with, where it is not full fine-tuning.")
    gate: Gate | None = Field(
        None,
        description="Ask for a verdict, ship or not, beside the report; `holdfast gate` has these margins without it.",
    )
    attack: Attack | None = Field(None, description="An attacker who tunes the fine-tuning against some arms.")
    track: Track | None = Field(None, description="Register the study's models in MLflow.")
    stress: dict[Name, Stress] = Field(
        {}, description="What is done to every finished model before it is asked once more: stress.csv, by name."
    )
    seeds: tuple[int, ...] = Field(
        (0,),
        min_length=1,
        description="One fine-tuning of every arm each, with rows and an order of its own: [0, 1, 2] are three.",
    )
    replicates: Replicates = Field(
        1,
        validate_default=True,
        description="How often the whole study is drawn anew, from the base on: a number, or a list of what differs. "
        "Intervals then hold what differs between bases and aligned models.",
    )
    evaluation: Evaluation = Evaluation()
    capabilities: Capabilities = Capabilities()
    resources: Resources = Resources()

    @property
    def has_base(self) -> bool:
        """Whether there is a base model: always, but where an aligned one is given and the study names no other."""
        return self.aligned is None or "base" in self.model_fields_set

    @property
    def foundation(self) -> Base:
        """The model whose shape, tokenizer and template all others have: the given aligned one, else the base."""
        if self.aligned is None:
            return self.base
        system = self.aligned.system_prompt if self.aligned.system_prompt is not None else self.base.system_prompt
        return Base(source=self.aligned.source, revision=self.aligned.revision, system_prompt=system)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.aligned is not None and self.has_base and self.base.source == "tiny":
            raise ValueError("a given aligned model has a given base, or none: base.source is tiny")
        if self.foundation.source == "tiny" and self.evaluation.system_prompt is not None:
            raise ValueError("the tiny model's template has no system message: remove evaluation.system_prompt")
        if self.choose and self.evaluation.split != "validation":
            raise ValueError("a study that chooses settings must evaluate on the validation split")
        if self.curves and self.evaluation.split != "test":
            raise ValueError("curves are chosen on the validation split, so what they say must be of the test split")
        if self.curves and not any(arm.sweep for arm in self.arms.values()):
            raise ValueError("curves go through the points of a sweep, and no arm has one")
        for name, stress in self.stress.items():
            self._refuse_stress(name, stress)
        reserved = {"base", "aligned", "unaligned"} & set(self.arms)
        if reserved:
            raise ValueError(f"'{min(reserved)}' is a model role and cannot name an arm")
        taken = TAKEN & set(self.tasks) | {t for t in self.tasks if re.fullmatch(rf"{FOLDER}\d+", t)}
        if taken:
            raise ValueError(f"work/<study>/{min(taken)} holds other files, so '{min(taken)}' cannot name a task")
        return self

    def _refuse_stress(self, name: str, stress: Stress) -> None:
        """ValueError for a stress that this study cannot have."""
        if unknown := sorted(set(stress.arms or ()) - {*self.arms, "aligned"}):
            raise ValueError(f"stress.{name}.arms: {unknown[0]} is not an arm of the study")
        if stress.prefill is not None and self.evaluation.source != WORLD:
            raise ValueError(
                f"stress.{name}.prefill is for the fictional world's prompts (evaluation.source: world) only"
            )
        if stress.base is not None and not self.has_base:
            raise ValueError(f"stress.{name}.base mixes with the base model, and the study has none")
        if stress.system_prompt is not None and self.foundation.source == "tiny":
            raise ValueError(f"stress.{name}: the tiny model's template has no system message")
        if self.evaluation.backend == "vllm":
            raise ValueError(f"stress.{name}: vLLM reads models as they are; evaluation.backend: transformers")

    @property
    def baseline(self) -> str | None:
        """The arm that the study declares as what differences are measured from."""
        return None if self.compare is None else self.compare.baseline

    @field_validator("chosen", mode="before")
    @classmethod
    def _chosen(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else () if value is None else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value) or min(value) < 0 or max(value) > LARGEST_SEED:
            raise ValueError(f"seeds must be different, not negative and at most {LARGEST_SEED}")
        return value


def _in_one_line(value: Any) -> Any:
    """A schema whose descriptions have no line ends, as editors show them."""
    if isinstance(value, dict):
        return {k: " ".join(v.split()) if k == "description" and isinstance(v, str) else _in_one_line(v)
                for k, v in value.items()}  # fmt: skip
    return [_in_one_line(v) for v in value] if isinstance(value, list) else value


def json_schema() -> str:
    """The JSON schema of a study file, for editors."""
    schema = _in_one_line(Study.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
