"""RSN-Tune: protect the safety neurons that general text does not need.

Formula: N = (∩_x {N : Imp(N | x) in the top share over refusals}) \ N_foundation, the same intersection
over answered benign rows; N is tuned on a few refusals, then ∇W and W are held on N while everything
else is fine-tuned on the task.

Starts from the aligned model like every other arm (the WSR-Tune tables start theirs from another
model). Importances are those of `holdfast.neurons`; intersections are taken over `samples` rows and
softened by `frequency`. Weights are held exactly, also against weight decay and momentum.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from holdfast.registry import MethodSettings

KIND = "train"
NEEDS = ("aligned", "safety", "mask")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "RSN-Tune (Safety-Neuron)",
    "fidelity": "variant",
    "equations": (
        (
            "Imp_k = Σ_t h² ‖W_down[:, k]‖²",
            "holdfast.neurons.mlp_importance",
            "test_neurons.py::test_importance_of_mlp_channels_equals_their_removal",
        ),
        (
            "Imp = ‖softmax(S) − softmax(S − Δ)‖",
            "holdfast.neurons.score_importance",
            "test_neurons.py::test_importance_of_query_and_key_channels_equals_their_removal",
        ),
        ("N_safe = ∩_x N_x", "holdfast.neurons.chosen", "test_neurons.py::test_counts_are_per_sample_intersections"),
        (
            "N_safe \\ N_foundation",
            "holdfast.neurons.build_mask",
            "test_neurons.py::test_masks_hold_rows_and_columns_and_robust_leaves_foundation_neurons_free",
        ),
        (
            "W[N] held",
            "optimizer",
            "test_neurons.py::test_protected_neurons_equal_the_start_bit_for_bit_and_tuning_moves_only_them",
        ),
    ),
    "deviations": (
        "starts from the aligned model like every other arm",
        "shares per block and group instead of absolute counts; the intersection is softened by `frequency`",
        "value channels by their energy through W_o, not by removal",
    ),
    "cost": "plain fine-tuning plus two forward passes per detection row",
}


class Settings(MethodSettings):
    fraction: float = Field(0.2, gt=0, lt=1, description="share of a block's neurons that count for one sample")
    frequency: float = Field(0.9, gt=0, le=1, description="share of samples a neuron must count for; 1 intersects")
    samples: int = Field(100, ge=1, description="rows importance is measured on")
    tune_rows: int = Field(50, ge=0, description="refusals the neurons are tuned on first; 0 skips it")
    tune_learning_rate: float = Field(1e-6, ge=0, lt=1, description="peak rate of that phase, one epoch")

    def artifacts(self) -> dict[str, Any]:
        spec = {"fraction": self.fraction, "frequency": self.frequency, "samples": self.samples}
        return {"neurons": spec | {"robust": True}}


def prelude(model, layers, settings, *, mask, safety, train, **needs):
    """Tune the neurons alone before the task."""
    from holdfast import neurons

    neurons.tune(model, layers, settings, mask, safety, train)


def optimizer(model, layers, settings, training, *, mask, **needs):
    from holdfast import neurons

    return neurons.protect(model, layers, training, mask)
