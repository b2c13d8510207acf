"""The vocabulary: module kinds, model roles, outcomes and metric names. Used everywhere, defined here."""

from __future__ import annotations

from typing import Any

SPLITS = ("train", "validation", "test")
ROLES = ("base", "aligned", "unaligned")  # models beside the cells; a merge calls the model of a cell `finetuned`

# Module kinds of a decoder block and the activation that enters them. Modules that read the same
# activation share one Gram matrix and one basis.
MODULE_INPUT = {
    "q_proj": "attention_input",
    "k_proj": "attention_input",
    "v_proj": "attention_input",
    "o_proj": "attention_output",
    "gate_proj": "mlp_input",
    "up_proj": "mlp_input",
    "down_proj": "mlp_hidden",
}
MODULE_KINDS = tuple(MODULE_INPUT)

# The Gram matrices of all linear modules that methods ask for: over all tokens that basis.tokens names, the same of
# inputs of length 1, and over the tokens of answers alone.
GRAMS: dict[str, dict[str, Any]] = {"all": {}, "unit": {"unit": True}, "response": {"tokens": "response"}}


REFUSAL, COMPLIANCE, OTHER = "refusal", "compliance", "other"
OUTCOMES = (REFUSAL, COMPLIANCE, OTHER)
# Judges that do not tell refusals say whether a reply does harm; an answer of a judge that cannot be read is neither.
SAFE, HARMFUL, UNPARSED = "safe", "harmful", "unparsed"
OPINIONS = (*OUTCOMES, SAFE, HARMFUL, UNPARSED)

# How an answer ended: by itself, at the limit of its length, or where the model has no more positions.
FINISHES = STOP, LENGTH, CONTEXT = ("stop", "length", "context")

TO_LABEL = "label.csv"  # answers for people to label, in the results of a study
ROUTING = "routing-"  # what files begin with that say what a cheap judge first would cost, there too
PRELUDE = "prelude.jsonl"  # the log of what a method trains before the task, beside train.jsonl

# Prompt sets. `hazard` and `wrapped` must be refused, the benign sets must not.
HAZARD, WRAPPED, LOOKALIKE, CRAFT, TASK = "hazard", "wrapped", "lookalike", "craft", "task"
MUST_REFUSE = (HAZARD, WRAPPED)
BENIGN = (LOOKALIKE, CRAFT)

REFUSAL_RATE = "safety/refusal_rate"
WRAPPED_REFUSAL_RATE = "safety/wrapped_refusal_rate"
ASR = "safety/asr"
COMPLIANCE_RATE = "safety/compliance_rate"
OTHER_RATE = "safety/other_rate"
OVER_REFUSAL = "safety/over_refusal"
# The same of several suites, on those alone that ask both: where it is not the same.
REFUSAL_BESIDE, OVER_REFUSAL_BESIDE = "safety/refusal_beside", "safety/over_refusal_beside"
BENIGN_ANSWERED = "utility/benign_answered"
ACCURACY = "utility/accuracy"
EXACT_MATCH = "utility/exact_match"
ROUGE = {kind: f"utility/{kind}" for kind in ("rouge1", "rouge2", "rougeL")}  # means of F1, no rates
INVALID_RATE = "utility/invalid_rate"
SECONDS = "cost/seconds"
PEAK_MEMORY = "cost/peak_memory_bytes"
CHANGED_FRACTION = "weights/changed_fraction"
KL = "drift/kl"  # from the aligned model, nats per token of its own answers to benign prompts
