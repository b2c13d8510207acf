"""DeRTa: the loop of the authors' data script that cuts prefixes, and the labels and loss of their model for adapters.

Both sides draw from Python's generator with the same seed for every row; logits are random.
"""

from __future__ import annotations

import copy
import random
import sys
from types import SimpleNamespace

import torch
from torch import nn

from holdfast.methods import derta
from holdfast.model import chat
from parity import code, tiny

REPOSITORY, COMMIT = "RobustNLP/DeRTa", "70bdb52b5e139f32f5a723b5f09d2b0befa81657"
TOKEN, VOCABULARY = 19701, 19720  # their refusal token, and a vocabulary that has it


def _prefixes(theirs: code.Code, rows: list[dict[str, str]]) -> list[str]:
    """The opening of every row, drawn with the row's place as seed."""
    out = []
    for i, row in enumerate(rows):
        seeded = random.Random(i)
        # every third of theirs is empty: a row in front moves this one off that place
        given = [{"instruction": "", "output": "a b c", "safe_response": ""}, row]
        names = {
            "random": SimpleNamespace(randint=lambda a, b, d=seeded: d.randint(a, b)),
            "overall_beaver": given,
            "Sorry_data": [],
            "Concate_refuse_data": [],
            "Vanilla_safety_data": [],
        }
        seeded.randint = _second(seeded.randint)
        place = "for i, each in enumerate(overall_beaver)"
        theirs.statements("data/train/generate_training_data.py", place, place, names)
        found = names["Concate_refuse_data"][1:]
        out.append(found[0]["prefix"].split(r"[\INST] ")[1] if found else "")
    return out


def _second(draw):
    """The first call, of the row in front, takes nothing from the stream."""
    calls = []

    def randint(a: int, b: int) -> int:
        calls.append(a)
        return draw(a, b) if len(calls) > 1 else a

    return randint


def _tokenizer(words: list[str]):
    from holdfast.world.model import train_tokenizer

    return train_tokenizer([chat.render(" ".join(words), " ".join(words))] * 5, 100)


def compare(theirs: code.Code) -> list[code.Row]:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = [
        {"instruction": "x", "output": " ".join(words[:n]), "safe_response": "no"}
        for n in (1, 2, 3, 4, 5, 6, 8, 10) * 3
    ]
    prefixes = [derta.prefix(row["output"], random.Random(i)) for i, row in enumerate(rows)]
    differ = sum(a != b for a, b in zip(prefixes, _prefixes(theirs, rows), strict=True))
    tokenizer = _tokenizer(words)
    plain = chat.encode(tokenizer, "five six", "one two three", opening="")
    turning = chat.encode(tokenizer, "five six", "seven eight", opening="one two three", anywhere=True)
    batch = chat.collate([turning, plain], pad_id=0)
    first = next(i for i in turning["labels"] if i >= 0)
    labels = batch["labels"].clone()
    labels[0] = torch.where(labels[0] == -100, labels[0], batch["input_ids"][0])  # theirs gets the answer's own tokens
    logits = tiny.normal(*labels.shape, VOCABULARY, seed=1)
    names = {
        "copy": copy,
        "CrossEntropyLoss": nn.CrossEntropyLoss,
        "logits": logits,
        "labels": labels,
        "binary_safe": torch.tensor([[1], [0]]),
        "self": SimpleNamespace(config=SimpleNamespace(vocab_size=VOCABULARY)),
    }
    place = "if labels is not None:"
    theirs.statements("run_files/run_clm_lora_derta_llama.py", place, place, names)
    ours_labels = batch["labels"].clone()
    ours_labels[0][ours_labels[0] == first] = TOKEN  # the first token of this refusal stands for theirs
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ours_labels[:, 1:].flatten())
    return [
        code.Row(f"of {len(rows)} prefixes, others", differ, 0, "none: the same words for the same draw"),
        code.Row(
            "loss of a transition and a plain row", tiny.far(loss, names["loss"]), 1e-12, "float64; one mean over both"
        ),
    ]


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
