"""What a model is fine-tuned on and how that is scored: the part of a study file about tasks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from holdfast.data import table
from holdfast.data.sources import HUB, HUB_DATA, REMOTE, WORLD
from holdfast.study.checked import Strict
from holdfast.study.training import Training

TABLE = "table"
PUBLISHED = ("agnews", "gsm8k", "sst2", "math")  # which the hub has too
OUTSIDE = ("sst2", "samsum", "math")  # which the fictional world has not
BARE = ("exact", "contains", "number", "rouge", "boxed")  # scorers that need be told nothing


def _or(form: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Adds a shorter form that a validator takes to a key's schema, for editors."""
    return lambda schema: schema["anyOf"].append(form)


class Columns(Strict):
    """What a row of a table asks and what is answered: a column's name, or text with {column} where its value goes
    ({{ and }} are braces; a list is written as lettered options)."""

    prompt: str | None = Field(None, min_length=1, description="What is asked.")
    response: str | None = Field(None, min_length=1, description="What is learned.")
    messages: str | None = Field(
        None,
        min_length=1,
        description="In place of both: a column with a conversation, a list of {role, content}. Its last turn, the "
        "assistant's, is what is learned and asked for; what was said before is context.",
    )
    gold: str | None = Field(
        None, min_length=1, description="What an answer is scored against; default: what is learned."
    )
    codes: dict[str, str] | None = Field(
        None,
        min_length=1,
        json_schema_extra=_or({"type": "array", "items": {"type": "string"}}),
        description="What stands for what in a column that is response or gold by itself, as {0: no, 1: yes}; a list "
        "counts from 0.",
    )

    @field_validator("codes", mode="before")
    @classmethod
    def _codes(cls, value: Any) -> Any:
        value = dict(enumerate(value)) if isinstance(value, list) else value
        return {str(code): name for code, name in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _whole(self) -> Columns:
        said = [text for text in (self.prompt, self.response) if text]
        if len(said) != (0 if self.messages else 2):
            raise ValueError("say prompt and response, or messages")
        if self.messages and set("{}") & set(self.messages):
            raise ValueError("messages names a column, without braces")
        for text in (*said, *([self.gold] if self.gold else [])):
            table.fields(text)  # refuses a brace that is about no column
        return self


class Number(Strict):
    """A number in the answer, compared with that of the gold."""

    marker: str | None = Field(
        None, min_length=1, description="What it stands behind, blanks included; default: it is the last one."
    )
    tolerance: float | None = Field(
        None, ge=0, description="How far it may be off; default: both are written alike, so that 5.0 is not 5."
    )


class Words(Strict):
    """How texts are compared; blanks never count."""

    casefold: bool = Field(False, description="Whether capitals do not count.")


class Rouge(Strict):
    """Which overlap with the reference is the score."""

    variant: Literal["rouge1", "rouge2", "rougeL"] = Field("rougeL", description="Of words, of pairs, or in order.")


class Scorer(Strict):
    """Whether an answer to a row of a table is right: one of these kinds, by its name alone where it need be told
    nothing. Judging reads it and training does not, so that another scorer trains nothing again."""

    label: dict[str, tuple[str, ...]] | None = Field(
        None,
        min_length=2,
        json_schema_extra=_or({"type": "array", "items": {"type": "string"}}),
        description="The first of these names that the answer mentions, itself or by one of its synonyms.",
    )
    choice: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        json_schema_extra=_or({"type": "string"}),
        description="The option that the answer chooses, by letter or text: a column that holds the list of options, "
        "or their columns in the order of the letters.",
    )
    number: Number | None = Field(None, description="A number; exact match.")
    exact: Words | None = Field(None, description="The whole answer.")
    regex: str | None = Field(None, min_length=1, description="The first group of the first match of a pattern.")
    contains: Words | None = Field(None, description="The gold stands somewhere in the answer, as whole words.")
    json_field: str | None = Field(
        None, alias="json-field", min_length=1, description="This field of the first JSON object in the answer."
    )
    rouge: Rouge | None = Field(
        None, description="Mean F1 of the overlap with the gold, by the library rouge-score (`holdfast[rouge]`)."
    )
    boxed: Literal[True] | None = Field(
        None, description="What stands in the last \\boxed{}, in one notation of mathematics."
    )
    python: str | None = Field(
        None,
        min_length=1,
        description="A file with a function score(text, row) that returns a bool, or a dict with `correct` (a bool) "
        "and perhaps `invalid`, `parsed`, `gold`; row has the columns of the table's source.",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in BARE:
                raise ValueError(f"one of {', '.join(BARE)}, or a kind with what it is told, as regex: 'Answer: (.+)'")
            return {value: True if value == "boxed" else {}}
        return value

    @field_validator("label", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return {name: () for name in value} if isinstance(value, list) else value

    @field_validator("choice", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Scorer:
        if len(self.told()) != 1:
            raise ValueError("exactly one kind of scorer")
        words = [w.casefold().strip() for name, others in (self.label or {}).items() for w in (name, *others)]
        if len(set(words)) != len(words) or "" in words:
            raise ValueError("every label and synonym once, and none is blank")
        try:
            groups = re.compile(self.regex).groups if self.regex else 1
        except re.error as error:
            raise ValueError(f"regex is no pattern: {error}") from None
        if not groups:
            raise ValueError("regex needs a group (...): what is compared")
        return self

    def told(self) -> dict[str, Any]:
        """{kind: what it is told}."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Task(Strict):
    """A downstream task: its rows and how every arm is trained on it."""

    dataset: Literal["agnews", "gsm8k", "crafts", "howto", "notes", "chat", "sst2", "samsum", "math", "table"] = Field(
        description="Format, prompt and scoring; `table`: those that `columns` and `scorer` say."
    )
    source: str = Field(
        WORLD,
        min_length=1,
        description="`world`, `hub`, or a folder or file with the real rows; of a table also `hub:OWNER/NAME` or "
        "`hub:OWNER/NAME/CONFIG`.",
    )
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="Commit of a table's data set on the hub, 40 characters."
    )
    columns: Columns | None = None
    splits: dict[Literal["train", "validation", "test", "column"], float | str] | None = Field(
        None,
        min_length=1,
        description="Which rows of a table are which split: files of the folder, or splits on the hub; `column`, which "
        "says it; or shares of its different texts. Default: files named so. What is missing is cut from train.",
    )
    scorer: Scorer | None = Field(None, json_schema_extra=_or({"enum": list(BARE)}))
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
    instruction_file: str | None = Field(
        None, description="Text file whose words replace our instruction; of a table they stand before the prompt."
    )
    training: Training = Training()
    max_new_tokens: int = Field(48, ge=1, description="Longest answer to a task row.")

    @field_validator("splits", mode="before")
    @classmethod
    def _names_or_shares(cls, value: Any) -> Any:
        if isinstance(value, dict) and len({isinstance(v, str) for v in value.values()}) > 1:
            raise ValueError("all of them shares, or all of them names")
        if isinstance(value, dict) and any(isinstance(v, bool) for v in value.values()):
            raise ValueError("true and false are no shares")
        return value

    @field_validator("splits")
    @classmethod
    def _splits(cls, value: dict[str, float | str] | None) -> dict[str, float | str] | None:
        shares = [v for v in (value or {}).values() if not isinstance(v, str)]
        if value and "column" in value and (len(value) > 1 or shares):
            raise ValueError("a column says the split of every row: name nothing beside it")
        if shares and (min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9):
            raise ValueError("shares above 0 that are 1 together")
        return value

    @model_validator(mode="after")
    def _table(self) -> Task:
        own, there = self.dataset == TABLE, self.source.startswith(f"{HUB}:")
        if own and (self.columns is None or self.scorer is None):
            raise ValueError("a table needs columns and a scorer")
        if not own and (self.columns or self.scorer or self.splits or self.revision):
            raise ValueError(f"columns, splits, scorer and revision are those of dataset: {TABLE}")
        if own and self.source in (WORLD, HUB):
            raise ValueError("a table is a file, a folder, or hub:OWNER/NAME on the hub")
        if there and not (own and HUB_DATA.fullmatch(self.source)):
            raise ValueError("hub:OWNER/NAME or hub:OWNER/NAME/CONFIG is the source of a table")
        if there and self.revision is None:
            raise ValueError("a data set on the hub may change: say its commit as revision")
        if self.revision and not there:
            raise ValueError("revision is the commit of a data set on the hub, and the source is none")
        if self.columns and self.columns.messages and self.instruction_file:
            raise ValueError("a conversation has its instruction in it: remove instruction_file")
        return self

    @model_validator(mode="after")
    def _source(self) -> Task:
        if self.dataset not in PUBLISHED and self.source == HUB:
            where = "as files only: source is one" if self.dataset in OUTSIDE else (
                "in the fictional world only: source is `world` or a file"
            )  # fmt: skip
            raise ValueError(f"{self.dataset} exists {where}")
        if self.dataset in OUTSIDE and self.source == WORLD:
            raise ValueError(f"the fictional world has no {self.dataset}: source is a file or folder"
                             + (", or `hub`" if self.dataset in PUBLISHED else ""))  # fmt: skip
        if self.stratify and self.dataset != "agnews":
            raise ValueError("stratify needs labels, which only agnews has")
        if self.source.startswith(REMOTE):
            raise ValueError("rows of a task come from the world, the hub or a local file, not from an address")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What only tables have is left out of others, so that their digests stay as they were."""
        only = ("revision", "columns", "splits", "scorer")
        return {k: v for k, v in write(self).items() if k not in only or v is not None}

    def rows_cfg(self) -> dict[str, Any]:
        """What its rows are made from."""
        said = self.model_dump(mode="json", include={"dataset", "source", "train_rows", "validation_rows", "test_rows"})
        if self.dataset != TABLE:
            return said
        return said | self.model_dump(mode="json", include={"columns", "splits", "revision"}, exclude_none=True)

    def scorer_cfg(self) -> dict[str, Any] | None:
        """What the scorer of a table is told."""
        return self.scorer.told() if self.scorer else None
