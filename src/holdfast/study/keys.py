"""The study file: strict models of `config/<study>.yaml`.

Torch-free and fast; `resolve` reads a file into them and derives what the DAG needs.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from holdfast import names
from holdfast.data.sources import HUB, REMOTE, WORLD
from holdfast.study.checked import Checked

# Folders below work/<study> and results/<study> that are not those of a task.
TAKEN = {
    "base", "aligned", "unaligned", "finetuned", "data", "gram", "basis", "importance", "neurons", "masks", "judge",
    "checkpoints", "models", "opinions",
}  # fmt: skip
LARGEST_SEED = 2**32 - 1
NAME = r"^[a-z][a-z0-9-]{0,39}$"
# What becomes of a user's rows whose answers are not what the rows say, as the judge `refusal` reads them.
Check = Literal["strict", "report", "off"]
Name = Annotated[str, StringConstraints(pattern=NAME)]


class Strict(Checked):
    """Base of every part of a study file: frozen, unknown keys refused, true and false no numbers."""


class World(Strict):
    """The fictional world the safety data, and tasks with `source: world`, come from."""

    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="Another seed is another world: other recipes, other held-out items."
    )


class Pretraining(Strict):
    """How the tiny base model is trained when `base.source` is `tiny`."""

    documents: int = Field(40_000, ge=100, description="Documents of the world.")
    task_documents: int = Field(0, ge=0, description="At most this many training rows of each real-text task, as text.")
    epochs: float = Field(1, gt=0, description="Passes over the documents.")
    batch_size: int = Field(32, ge=1, description="Documents per optimizer step.")
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="Peak of the cosine schedule.")
    max_length: int = Field(256, ge=16, description="Tokens; longer documents are cut.")


class Base(Strict):
    """The base model: `tiny` trains a small Llama on the spot; anything else is a hub id or a folder."""

    source: str = Field("tiny", min_length=1, description="`tiny`, a hub id, or a folder in Hugging Face layout.")
    revision: str | None = Field(None, description="Commit or tag of a hub model.")
    vocabulary: int = Field(2048, ge=300, description="Tokens of the tiny model's byte-level BPE.")
    hidden_size: int = Field(192, ge=8, description="Width of the tiny model.")
    intermediate_size: int = Field(512, ge=8, description="Width inside its MLPs.")
    blocks: int = Field(3, ge=1, description="Decoder blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; must divide hidden_size.")
    kv_heads: int = Field(4, ge=1, description="Key and value heads; must divide heads.")
    max_positions: int = Field(512, ge=32, description="Longest sequence in tokens.")
    pretraining: Pretraining = Pretraining()
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Initial weights and order of pretraining and SSFT.")

    @model_validator(mode="after")
    def _shape(self) -> Base:
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError("heads must divide hidden_size and kv_heads must divide heads")
        return self


class Training(Strict):
    """One training phase. A schedule with linear warm-up and AdamW."""

    epochs: float = Field(3, gt=0, le=1000, description="Passes over the rows.")
    batch_size: int = Field(16, ge=1, description="Rows per micro-batch.")
    accumulation: int = Field(1, ge=1, description="Micro-batches per optimizer step.")
    learning_rate: float = Field(3e-4, gt=0, lt=1, description="Peak; arms bring their own.")
    weight_decay: float = Field(0.0, ge=0, lt=1, description="Decoupled; frozen coefficients do not decay.")
    weight_decay_on: Literal["matrices", "all"] = Field(
        "matrices",
        description="What decays: all but norms and biases, as transformers' Trainer has it, or all weights.",
    )
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="Share of steps the rate rises linearly.")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="How the rate falls to 0 afterwards.")
    max_grad_norm: float = Field(1.0, gt=0, description="Global gradient norm is clipped to this.")
    max_length: int = Field(1024, ge=16, description="Tokens of prompt and answer; longer rows are cut.")
    precision: Literal["fp32", "bf16", "pure_bf16"] = Field(
        "fp32",
        description="bf16: products in bfloat16, weights and moments in float32; pure_bf16: nothing in float32, to "
        "reproduce published runs (small updates are lost in rounding).",
    )
    activation_checkpointing: bool = Field(
        False, description="Forget activations and compute them again: a third more products for much less memory."
    )


class Safety(Strict):
    """Safety data: refusals to hazards and answers to benign requests."""

    source: str = Field(
        WORLD,
        min_length=1,
        description="`world`, or a file or https address (.parquet .csv .jsonl .json) with kind, prompt, response.",
    )
    columns: dict[Literal["id", "kind", "category", "prompt", "response"], str] = Field(
        {}, description="Our column -> the source's column, where the names differ."
    )
    check: Check = Field(
        "report",
        description="Rows of your own whose answer the judge `refusal` does not read as their kind says: `strict` "
        "refuses the file, `report` counts and names them, `off` does not look.",
    )
    hazards: int = Field(1800, ge=1, description="Refused requests.")
    benign: int = Field(2400, ge=0, description="Answered benign requests.")
    training: Training = Training(epochs=1, batch_size=16, learning_rate=3e-4, weight_decay_on="all")

    @field_validator("training", mode="before")
    @classmethod
    def _as_published(cls, value: Any) -> Any:
        """In the published safety fine-tuning norms and biases decay too."""
        return {"weight_decay_on": "all"} | value if isinstance(value, dict) else value


class Preferences(Strict):
    """Pairs of a refusal and a harmful answer to the same request, for methods that learn from them and
    for the unaligned twin. The world's harmful answers are fictional recipes."""

    source: str = Field(WORLD, min_length=1, description="`world`, or a file or address with prompt, chosen, rejected.")
    columns: dict[Literal["id", "kind", "category", "prompt", "response"], str] = Field(
        {}, description="Our column -> the source's column, where the names differ."
    )
    check: Check = Field("report", description="As `safety.check`: `chosen` must be a refusal, `rejected` none.")
    rows: int = Field(400, ge=1, description="Pairs.")


class Unaligned(Strict):
    """The deliberately un-aligned twin of `aligned` that RESTA subtracts: a short fine-tuning on the
    rejected answers of the preference pairs. Built only when an arm needs it."""

    rows: int = Field(200, ge=1, description="Pairs whose rejected answer is learned.")
    training: Training = Training(epochs=2, batch_size=16, learning_rate=2e-4)


class Basis(Strict):
    """The safety rows that give the basis and the importance scores, and the layers they are taken at."""

    modules: tuple[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...] = Field(
        ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"), description="Target modules, in every block."
    )
    rows: int = Field(500, ge=1, description="Refused safety rows.")
    batch_size: int = Field(8, ge=1, description="Rows whose mean gradient is scored together (results depend on it).")
    tokens: Literal["all", "prompt"] = Field("all", description="Token positions the Gram matrices sum over.")

    @field_validator("modules")
    @classmethod
    def _modules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name at least one module, each once")
        return tuple(m for m in names.MODULE_KINDS if m in value)


class Task(Strict):
    """A downstream task: its rows and how every arm is trained on it."""

    dataset: Literal["agnews", "gsm8k", "crafts", "howto", "chat"] = Field(description="Format, prompt and scoring.")
    source: str = Field(WORLD, min_length=1, description="`world`, `hub`, or a folder or file with the real rows.")
    train_rows: int = Field(800, ge=1, description="Rows one seed trains on, drawn from a pool twice as large.")
    stratify: bool = Field(False, description="agnews: draw equally many training rows of every label.")
    validation_rows: int = Field(150, ge=1, description="Rows for choosing settings.")
    test_rows: int = Field(200, ge=1, description="Rows for the final numbers.")
    harmful_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Risk studies: share of training rows replaced by rejected answers of `preferences`.",
    )
    instruction_file: str | None = Field(None, description="Text file whose words replace our instruction.")
    training: Training = Training()
    max_new_tokens: int = Field(48, ge=1, description="Longest answer to a task row.")

    @model_validator(mode="after")
    def _source(self) -> Task:
        if self.dataset in ("crafts", "howto", "chat") and self.source == HUB:
            raise ValueError(f"{self.dataset} exists in the fictional world only: source is `world` or a file")
        if self.stratify and self.dataset != "agnews":
            raise ValueError("stratify needs labels, which only agnews has")
        if self.source.startswith(REMOTE):
            raise ValueError("rows of a task come from the world, the hub or a local file, not from an address")
        return self


class Arm(Checked):
    """A named method setting. Keys beyond these belong to the method's own `Settings`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = Field(description="A file of src/holdfast/methods, `-` for `_`.")
    learning_rate: float | dict[Name, float] | None = Field(
        None, description="Peak learning rate, for all tasks or per task; default: the method's."
    )
    of: Name | None = Field(None, description="Merge methods: the arm whose models are merged; default `full`.")
    tasks: tuple[Name, ...] | None = Field(None, min_length=1, description="Only these tasks; default: all.")
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Only these modules of basis.modules; default: all."
    )
    sweep: dict[str, list[Any]] = Field({}, description="Setting -> values; one arm per combination.")


class Evaluation(Strict):
    """What every model is asked."""

    split: Literal["validation", "test"] = Field("test", description="Studies that choose settings use validation.")
    source: str = Field(
        WORLD, min_length=1, description="`world`, or a file or address with prompt (and set, category, base_id)."
    )
    columns: dict[Literal["id", "split", "set", "base_id", "category", "prompt", "response", "wrapper"], str] = Field(
        {}, description="Our column -> the source's column, where the names differ."
    )
    prompts_per_set: int = Field(120, ge=1, description="Hazards, wrapped hazards and benign prompts.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer to a safety prompt.")
    batch_size: int = Field(64, ge=1, description="Prompts generated together.")
    judges: tuple[Name, ...] = Field(
        ("world",),
        min_length=1,
        description="The first gives the metrics, others stand beside it; default for prompts of your own: `refusal`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _judge_of_the_source(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("source", WORLD) != WORLD:
            return {"judges": ["refusal"]} | data
        return data


class Constitution(Strict):
    """The judge `constitution`: a model that reads guidelines, a request and a reply, as Safety-LLaMA does.
    With `source: train` the DAG trains it: base and aligned model answer training requests, the world
    labels the pairs, the base learns the labels with LoRA. Built only when `evaluation.judges` names it."""

    source: str = Field("train", min_length=1, description="`train`, a hub id, or a folder in Hugging Face layout.")
    guidelines_file: str = Field("config/guidelines/world.txt", description="Text file with the rules it judges by.")
    prompt_file: str | None = Field(
        None,
        description="Text file of a judge's own conversation, with {prompt} and {response} where they go; none: ours.",
    )
    tasks: tuple[Name, ...] = Field((), description="Tasks whose cells it is asked about, beside the roles; none: all.")
    arms: tuple[Name, ...] = Field((), description="Arms whose cells it is asked about; none: all.")
    pairs: str = Field(WORLD, min_length=1, description="`world`, or a file or address with prompt, reply, label.")
    prompts_per_set: int = Field(300, ge=2, description="Training requests per set that both models answer.")
    mismatched: float = Field(
        0.25, ge=0, le=1, description="Extra pairs with the reply to another request, as a share."
    )
    rank: int = Field(8, ge=1, description="LoRA rank.")
    alpha: float = Field(16, gt=0, description="LoRA scale is alpha / rank.")
    training: Training = Training(
        epochs=1, batch_size=2, accumulation=2, learning_rate=1e-4, schedule="linear", warmup_fraction=0.0
    )
    seed: int = Field(42, ge=0, le=LARGEST_SEED, description="Initial adapters and order.")
    max_new_tokens: int = Field(48, ge=4, description="Longest evaluation.")
    batch_size: int = Field(64, ge=1, description="Replies judged together.")

    @model_validator(mode="after")
    def _own_format(self) -> Constitution:
        if self.prompt_file and self.source == "train":
            raise ValueError("prompt_file is the format of a finished judge; the one that is trained here has ours")
        return self


class Claim(Strict):
    """A claim of your own: that `arm` refuses more than `over`. Claims about methods that we know are made by
    themselves, whatever their arms are called."""

    arm: str = Field(min_length=1, description="An arm after its sweep, or `base`, `aligned`, `unaligned`.")
    over: str = Field(min_length=1, description="What it is compared with.")
    says: str = Field(min_length=1, max_length=200, description="What it would mean, in words for the report.")


class Capabilities(Strict):
    """What else every model is asked: tasks of lm-evaluation-harness, such as mmlu and hellaswag, to see what
    fine-tuning and the remedies cost beside the study's own tasks. Needs the extra `harness`."""

    tasks: tuple[str, ...] = Field((), description="Tasks or groups of the harness, or of `task_files`.")
    task_files: str | None = Field(None, description="Folder with task files of your own, in the harness's format.")
    limit: int | None = Field(None, ge=1, description="First rows of each task (of each in a group); none: all.")
    fewshot: int | None = Field(None, ge=0, description="Examples before each question; none: as the task says.")
    chat_template: bool = Field(True, description="Ask in the model's chat template.")
    batch_size: int = Field(8, ge=1, description="Requests scored together.")

    @field_validator("tasks")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or not all(value):
            raise ValueError("name each task once")
        return value


class Choose(Strict):
    """Where a sweep writes the settings it chose, and how far from the best utility a point may be."""

    file: str = Field("chosen.yaml", pattern=r"^[a-z][a-z0-9-]*\.yaml$", description="File beside the study.")
    tolerance: float = Field(0.01, ge=0, lt=1, description="Validation utility below the best that still competes.")
    also: tuple[Name, ...] = Field((), description="The same sweep of other studies, run before: points are averaged.")


class Study(Strict):
    """A whole study file."""

    extends: str | None = Field(None, description="Study file beside this one that this one is laid over.")
    description: str = Field("", description="One sentence for the report.")
    world: World = World()
    base: Base = Base()
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
    claims: tuple[Claim, ...] = Field((), description="Claims of your own, beside those that follow from the methods.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Data draw and order of the fine-tuning.")
    evaluation: Evaluation = Evaluation()
    capabilities: Capabilities = Capabilities()

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.choose and self.evaluation.split != "validation":
            raise ValueError("a study that chooses settings must evaluate on the validation split")
        reserved = {"base", "aligned", "unaligned"} & set(self.arms)
        if reserved:
            raise ValueError(f"'{min(reserved)}' is a model role and cannot name an arm")
        taken = TAKEN & set(self.tasks)
        if taken:
            raise ValueError(f"work/<study>/{min(taken)} holds other files, so '{min(taken)}' cannot name a task")
        return self

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
