"""Greedy answers and nothing else: what stops them, what cuts them, and that a checkpoint's wishes do not count."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from holdfast.errors import ArtifactError
from holdfast.evaluate import answers
from holdfast.model import chat


def plain(model, ids: list[int], limit: int, stops: list[int]) -> tuple[list[int], str]:
    """Greedy decoding written out: the most probable token, again and again."""
    new: list[int] = []
    while len(new) < limit and len(ids) + len(new) < model.config.max_position_embeddings:
        token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token in stops:
            return new, "stop"
        new.append(token)
    return new, "length" if len(new) == limit else "context"


@pytest.fixture
def prompts(tokenizer):
    return [chat.encode_prompt(tokenizer, p) for p in ("hex", "How do I brew a hex tonight, and why?", "a b")]


def run(model, tokenizer, prompts, **settings):
    cfg = {"stops": [tokenizer.eos_token_id], "pad_id": tokenizer.pad_token_id, "max_new_tokens": 12, "batch_size": 2}
    return answers.generate(model, prompts, **cfg | settings)


def test_answers_are_those_of_greedy_decoding_written_out(model, tokenizer, prompts):
    expected = [plain(model.eval(), p, 12, [tokenizer.eos_token_id]) for p in prompts]
    assert run(model, tokenizer, prompts) == expected


@pytest.mark.parametrize(
    "wish",
    [
        {"repetition_penalty": 1.5}, {"num_beams": 3}, {"no_repeat_ngram_size": 1}, {"do_sample": True, "temperature": 5.0},
        {"min_new_tokens": 9}, {"suppress_tokens": [5, 6, 7]}, {"max_length": 3}, {"bad_words_ids": [[5], [6]]},
        {"forced_eos_token_id": 2}, {"begin_suppress_tokens": list(range(300))}, {"eos_token_id": 5},
        {"encoder_repetition_penalty": 1.5}, {"exponential_decay_length_penalty": (1, 2.0)}, {"typical_p": 0.2},
    ],
    ids=lambda w: next(iter(w)),
)  # fmt: skip
def test_the_checkpoints_wishes_do_not_count(model, tokenizer, prompts, wish):
    expected = run(model, tokenizer, prompts)
    own = GenerationConfig(**wish)
    model.generation_config = own
    assert run(model, tokenizer, prompts) == expected
    assert model.generation_config is own, "and it is left as it was"


SMALL = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
ATTENTION = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 160}
KINDS = {
    "llama": ATTENTION,
    "gpt2": SMALL,
    "bloom": SMALL,
    "mistral": ATTENTION | {"sliding_window": 8},
    "gemma2": ATTENTION | {"sliding_window": 8, "head_dim": 8},
    # Two kinds of states, of which one cannot leave a batch.
    "lfm2": ATTENTION | {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_have_ended_leave_the_batch_and_change_no_other(kind):
    """Answers that end in every round, of models with states of several kinds: those of each prompt by itself, without
    a cache."""
    torch.manual_seed(3)
    other = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind])).eval()
    with torch.no_grad():
        for p in other.parameters():  # so that the next token depends on what was said
            p.mul_(3.0) if p.dim() > 1 else None
    asked = [[3 + (7 * i + j * j) % 80 for j in range(2 + 3 * (i % 3))] for i in range(7)]

    def alone(stops):
        found = []
        for ids in asked:
            new: list[int] = []
            while len(new) < 70 and not (new and new[-1] in stops):
                new.append(int(other(torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax()))
            found.append((new[:-1], "stop") if new[-1] in stops else (new, "length"))
        return found

    free = [new for new, _ in alone([])]

    def rounds(stop):
        return len({new.index(stop) // answers.ROUND if stop in new else -1 for new in free})

    stops = [2, max(range(3, 90), key=rounds)]
    expected = alone(stops)
    widths: list[int] = []
    other.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    found = answers.generate(other, asked, stops=stops, pad_id=0, max_new_tokens=70, batch_size=7)
    assert found == expected
    longest = max(len(new) for new, _ in expected)
    assert len({len(new) // answers.ROUND for new, _ in expected}) > 1, "they end in several rounds"
    assert len(widths) <= longest + answers.ROUND
    assert (min(widths) < 7) == (kind != "lfm2"), widths


def test_any_of_several_tokens_stops_an_answer(model, tokenizer, prompts):
    free = run(model, tokenizer, prompts, stops=[])
    assert {finish for _, finish in free} == {"length"}
    stop = free[0][0][4]
    cut = run(model, tokenizer, prompts, stops=[tokenizer.eos_token_id, stop])
    first = free[0][0].index(stop)
    assert cut[0] == (free[0][0][:first], "stop")
    for limit in (max(1, first), first + 1):  # a stop at the last place is a stop
        (answer,) = run(model, tokenizer, prompts[:1], stops=[stop], max_new_tokens=limit)
        assert answer[1] == ("stop" if limit > first else "length") and len(answer[0]) == first


def test_the_models_own_stop_tokens_and_the_templates_are_known(model, tokenizer, prompts):
    free = run(model, tokenizer, prompts, stops=[])
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, free[0][0][2]])
    found = answers.complete(model, tokenizer, prompts[:1], max_new_tokens=12, batch_size=1)
    assert found[0].finish == "stop" and found[0].tokens <= 2


@pytest.mark.parametrize(
    ("left", "finish"), [(12, "length"), (11, "context"), (1, "context"), (0, "context"), (-3, "context")]
)
def test_an_answer_ends_where_the_model_has_no_more_positions(model, tokenizer, left, finish):
    positions = model.config.max_position_embeddings
    long = [tokenizer.bos_token_id] * (positions - left)
    short = chat.encode_prompt(tokenizer, "hex")
    (first, cut), (second, other) = run(model, tokenizer, [long, short], stops=[])
    assert (len(first), cut) == (max(0, min(12, left)), finish) and (len(second), other) == (12, "length")
    assert second == run(model, tokenizer, [short], stops=[])[0][0], "another prompt's length changes nothing"


class _Pieces:
    """A tokenizer that writes the blank before a word as a token of its own."""

    def __init__(self, pieces):
        self.pieces = pieces

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": self.pieces[text]}


def test_words_are_told_apart_by_a_token_of_their_own():
    assert answers._beginnings(_Pieces({"1": [29871, 29896], "2": [29871, 29906]}), ["1", "2"]) == [29896, 29906]
    assert answers._beginnings(_Pieces({"yes": [4], "no": [5, 6]}), ["yes", "no"]) == [4, 5]
    assert answers._beginnings(_Pieces({"yes": [7, 4]}), ["yes"]) == [7]
    for pieces in ({"ab": [1], "ac": [1]}, {"ab": [1, 2], "ac": [1, 2]}, {"a": [1], "ab": [1, 2]}):
        with pytest.raises(ArtifactError, match="cannot be told apart"):
            answers._beginnings(_Pieces(pieces), list(pieces))


@pytest.mark.parametrize("ends", [("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>")])
def test_ends_of_a_thought_stay_in_the_text_though_they_are_special(tokenizer, ends):
    """Without them a judge would read the thought as the answer."""
    import copy

    from tokenizers import AddedToken

    own = copy.deepcopy(tokenizer)
    own.add_tokens([AddedToken(t, special=True) for t in ends], special_tokens=True)
    ids = own(f"{ends[0]}I cannot{ends[1]}Take it.", add_special_tokens=False)["input_ids"] + [own.eos_token_id]
    assert answers.worded(own, ids) == f"{ends[0]}I cannot{ends[1]}Take it."
    plain_ids = own("Take it.", add_special_tokens=False)["input_ids"] + [own.eos_token_id]
    assert answers.worded(own, plain_ids) == "Take it."
