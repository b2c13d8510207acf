"""How one phase is trained, and on how much: the parts of a study file that every phase has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from holdfast.study.checked import Strict


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
    by_length: bool = Field(
        False,
        description="Rows of about one length share a micro-batch of their optimizer step: less padding, the same step "
        "but for rounding.",
    )
    activation_checkpointing: bool = Field(
        False, description="Forget activations and compute them again: a third more products for much less memory."
    )


class Resources(Strict):
    """What one job may have of a machine."""

    gpus: int = Field(
        1, ge=1, le=1024,
        description="GPUs of one machine that one fine-tuning, or safety training, is spread over (docs/cluster.md); "
        "where jobs take no GPU, so many processes.",
    )  # fmt: skip
