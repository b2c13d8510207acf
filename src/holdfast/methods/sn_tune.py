"""SN-Tune: find the neurons every refusal uses, tune them alone, protect them afterwards.

Formula: N = ∩_x {N : Imp(N | x) in the top share}; first min over W[N] of the refusal loss, then task
fine-tuning with W[N] held.

Starts from the aligned model like every other arm (the WSR-Tune tables start theirs from another
model). Importances are those of `holdfast.train.neurons`: `detection: paper` scores what a neuron's removal changes,
`detection: code` scores as the public detector does, which finds other neurons. Intersections are taken over
`samples` rows and softened by `frequency`. Weights are held exactly, also against weight decay and momentum.
"""

from __future__ import annotations

from typing import ClassVar

from holdfast.train.neuron_tuning import NeuronSettings, optimizer, prelude

__all__ = ["Settings", "optimizer", "prelude"]

KIND = "train"
NEEDS = ("aligned", "safety", "mask")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "SN-Tune (Safety-Neuron)",
    "fidelity": "variant",
    "equations": (
        (
            "Imp_k = Σ_t h² ‖W_down[:, k]‖²",
            "holdfast.train.neurons.mlp_importance",
            "train/test_neurons.py::test_importance_of_mlp_channels_equals_their_removal",
        ),
        (
            "Imp = ‖softmax(S) − softmax(S − Δ)‖",
            "holdfast.train.neurons.score_importance",
            "train/test_neurons.py::test_importance_of_query_and_key_channels_equals_their_removal",
        ),
        (
            "Imp_v = Σ_t v² Σ_heads ‖W_o[:, k]‖²",
            "holdfast.train.neurons.value_importance",
            "train/test_neurons.py::test_value_channels_count_through_every_head_that_reads_them",
        ),
        (
            "the public detector's scores (`detection: code`)",
            "holdfast.train.neurons.importance",
            "train/test_neurons.py::test_the_public_detectors_scores_channel_by_channel",
        ),
        (
            "N_x = the top share of Imp(· | x)",
            "holdfast.train.neurons.detect",
            "train/test_neurons.py::test_a_neuron_counts_where_it_is_among_the_most_important",
        ),
        (
            "N_safe = ∩_x N_x",
            "holdfast.train.neurons.chosen",
            "train/test_neurons.py::test_counts_are_per_sample_intersections",
        ),
        (
            "W[N] held",
            "optimizer",
            "train/test_neurons.py::test_protected_neurons_equal_the_start_bit_for_bit_and_tuning_moves_only_them",
        ),
    ),
    "deviations": (
        "starts from the aligned model like every other arm",
        "shares per block and group instead of absolute counts; the intersection is softened by `frequency`",
        "value channels by their energy through W_o, not by removal",
        "the public detector scores the MLP by Σ|W_up x| without gate and W_down, v by Σ|attention output|, q and k by "
        "one score after the rotary embedding that leaves 1/√d out of what is removed; `detection: code` does so",
        "the public trainer tunes rows of up and columns of down but not gate, and 100 neurons of a group in no order; "
        "here a channel of the MLP is its row of gate and of up and its column of down, and all are tuned",
    ),
    "parity": "min-seong-kim/Safety-Neuron at 33f5374: with `detection: code` every score is equal. `paper` finds "
    "other neurons, since it scores what their removal changes in a block's output, which is what the paper"
    " says; their trainer is not compared",
    "cost": "plain fine-tuning plus one forward pass per detection row",
}


class Settings(NeuronSettings):
    """Which neurons are protected; those that general text needs too."""

    robust: ClassVar[bool] = False
