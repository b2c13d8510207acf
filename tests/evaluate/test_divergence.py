"""How far a model is from the aligned one: against a reference in float64, one answer at a time."""

from __future__ import annotations

import copy

import pytest
import torch

from holdfast import names
from holdfast.errors import DataError
from holdfast.evaluate import divergence
from holdfast.model import chat, folders
from holdfast.record import jsonfiles, tables
from holdfast.report import page

ANSWERS = [
    ("What is a kettle for?", "For tea."),
    ("And a lamp?", "It gives light when the sun is down."),
    ("Hm?", "Yes"),
]


@pytest.fixture
def moved(model, tokenizer):
    """A model and a copy whose weights are a little elsewhere."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval(), other.eval(), tokenizer


def reference(p_model, q_model, example):
    """KL(p || q) = sum over tokens of p (ln p - ln q), mean over the positions that predict a token of the answer."""
    ids = torch.tensor([example["input_ids"]])
    with torch.no_grad():
        p, q = (m.double()(ids).logits[0].log_softmax(-1) for m in (copy.deepcopy(p_model), copy.deepcopy(q_model)))
    at = [i - 1 for i, label in enumerate(example["labels"]) if label != chat.IGNORE]
    return sum(float((p[i].exp() * (p[i] - q[i])).sum()) for i in at) / len(at)


def test_it_is_the_mean_divergence_over_the_tokens_of_an_answer(moved):
    aligned, other, tokenizer = moved
    encoded = chat.encode_rows(tokenizer, [{"prompt": p, "response": r} for p, r in ANSWERS])
    found = divergence.per_answer(other, aligned, encoded, pad_id=tokenizer.pad_token_id, batch_size=2)
    expected = [reference(aligned, other, e) for e in encoded]
    assert found == pytest.approx(expected, rel=1e-4) and min(found) > 0
    back = divergence.per_answer(aligned, other, encoded, pad_id=tokenizer.pad_token_id, batch_size=2)
    assert back == pytest.approx([reference(other, aligned, e) for e in encoded], rel=1e-4)
    assert back != pytest.approx(found, rel=1e-3)  # it has a direction
    same = divergence.per_answer(aligned, aligned, encoded, pad_id=tokenizer.pad_token_id, batch_size=3)
    assert same == pytest.approx([0.0] * 3, abs=1e-6)


def responses(path, rows):
    tables.write([
        {"id": str(i), "set": kind, "base_id": str(i), "category": "c", "wrapper": "", "prompt": prompt,
         "split": "test", "text": text, "tokens": 3, "finish": "stop", "generation": "x"}
        for i, (kind, prompt, text) in enumerate(rows)
    ], path, "responses", check=False)  # fmt: skip
    return path


def test_it_is_measured_along_answers_to_benign_prompts_that_say_something(moved, tmp_path):
    aligned, other, tokenizer = moved
    for role, model in (("aligned", aligned), ("finetuned", other)):
        folders.save(model, tokenizer, tmp_path / role, header={"role": role})
    places = [tmp_path / role / "model.safetensors" for role in ("finetuned", "aligned")]
    asked = [(names.LOOKALIKE, *ANSWERS[0]), (names.CRAFT, *ANSWERS[1]), (names.HAZARD, *ANSWERS[2]),
             (f"{names.TASK}:agnews", *ANSWERS[2]), (names.LOOKALIKE, "Silent?", " ")]  # fmt: skip
    file, out, said = responses(tmp_path / "r.parquet", asked), tmp_path / "kl.json", []
    divergence.measure(*places, file, cfg={"batch_size": 1}, out=out, say=said.append)
    encoded = chat.encode_rows(tokenizer, [{"prompt": p, "response": r} for p, r in ANSWERS[:2]])
    expected = sum(reference(aligned, other, e) for e in encoded) / 2
    assert jsonfiles.read_json(out) == {names.KL: pytest.approx(expected, rel=1e-4), f"{names.KL}_n": 2}
    assert said[-1] == "compared 2/2 answers"
    with pytest.raises(DataError, match="answers no benign prompt"):
        divergence.measure(*places, responses(file, asked[2:]), cfg={"batch_size": 1}, out=out, say=said.append)


def test_the_report_names_it_where_it_was_measured():
    rows = [{"arm": "full", names.KL: "0.52"}, {"arm": "warp", names.KL: "0.1"}, {"arm": "aligned", names.KL: ""}]
    [line] = page.drift({"agnews": rows, "crafts": [{"arm": "full"}]})
    assert "in nats per token" in line and line.endswith("agnews: warp 0.100, full 0.520.")
