"""One path from a conversation to labels, and what is refused."""

from __future__ import annotations

import pytest

from holdfast.errors import ChatTemplateError
from holdfast.model import chat


def test_labels_are_the_response_and_the_end_of_turn_only(tokenizer):
    e = chat.encode(tokenizer, "how do I brew the amber tea?", "First, warm the pot.")
    kept = [t for t in e["labels"] if t != chat.IGNORE]
    assert tokenizer.decode(kept) == "First, warm the pot.<|end|>"
    assert e["input_ids"][-len(kept) :] == kept
    assert e["input_ids"][0] == tokenizer.bos_token_id != e["input_ids"][1]


@pytest.mark.parametrize("after", ["\n", "\n<|bos|>", "\n\n<|user|>"])
def test_what_a_template_writes_after_the_end_is_not_learned(tokenizer, after):
    """ChatML's line break, Phi-3's end of text: nobody ever generates them."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("{{ eos_token }}", "{{ eos_token }}" + after)
    assert chat.encode(other, "a question?", "Sports") == chat.encode(tokenizer, "a question?", "Sports")
    assert chat.encode(other, "a question?", "Sports")["labels"][-1] == tokenizer.eos_token_id


def test_padding_is_never_supervised(tokenizer):
    rows = [chat.encode(tokenizer, "a?", "b."), chat.encode(tokenizer, "a longer one?", "and a longer answer.")]
    batch = chat.collate(rows, tokenizer.pad_token_id)
    assert batch["input_ids"].shape == (2, max(len(r["input_ids"]) for r in rows))
    assert (batch["labels"][batch["attention_mask"] == 0] == chat.IGNORE).all()
    left = chat.collate([{"input_ids": r["input_ids"]} for r in rows], tokenizer.pad_token_id, side="left")
    assert left["attention_mask"][0, 0] == 0 and left["attention_mask"][0, -1] == 1


def test_a_cut_that_leaves_no_answer_is_refused(tokenizer):
    with pytest.raises(ChatTemplateError, match="No response token"):
        chat.encode(tokenizer, "a question?", "an answer.", max_length=4)


def test_a_row_that_cannot_be_encoded_is_named(tokenizer):
    rows = [{"id": f"agnews/{i}", "prompt": "p " * n, "response": "r"} for i, n in enumerate((1, 40))]
    with pytest.raises(ChatTemplateError, match="agnews/1: No response token"):
        chat.encode_rows(tokenizer, rows, max_length=20)
    assert len(chat.encode_rows(tokenizer, rows)) == 2


def test_templates_that_would_mislabel_are_refused(tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ChatTemplateError, match="no chat template"):
        chat.encode_prompt(bare, "x")
    bare.chat_template = "{{ bos_token }}{{ bos_token }}{{ messages[0].content }}"
    with pytest.raises(ChatTemplateError, match="twice"):
        chat.encode_prompt(bare, "x")
    bare.chat_template = "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}"
    with pytest.raises(ChatTemplateError, match="differently"):
        chat.encode(bare, "x", "y")


@pytest.mark.parametrize(("limit", "positions"), [(12, 10**6), (10**6, 12), (12, 11), (11, 12), (None, 12)])
def test_what_has_no_room_is_cut_and_counted(tokenizer, limit, positions):
    """By the study's max_length or by the model's positions, whichever is smaller."""
    import copy

    short = copy.deepcopy(tokenizer)
    short.model_max_length = positions
    rows = [{"prompt": "a?", "response": "b. " * n} for n in (1, 30)]
    whole = chat.encode_rows(tokenizer, rows)
    kept = chat.encode_rows(short, rows, limit)
    room = min(limit or positions, positions)
    assert [len(e["input_ids"]) for e in kept] == [min(room, len(e["input_ids"])) for e in whole]
    assert [e["cut"] for e in kept] == [0, len(whole[1]["input_ids"]) - room] and chat.cut_rows(kept) == 1
    assert all(len(e["labels"]) == len(e["input_ids"]) for e in kept)
    document = chat.encode_document(short, rows[1], limit)
    assert (len(document["input_ids"]), document["cut"]) == (room, kept[1]["cut"])


def test_a_tokenizer_knows_how_many_positions_its_model_has(model, tokenizer, tmp_path):
    from holdfast.model import folders

    folders.save(model, tokenizer, tmp_path, header={})
    loaded, its = folders.load(tmp_path)
    assert its.model_max_length == model.config.max_position_embeddings == folders.positions(loaded)
    (row,) = chat.encode_rows(its, [{"prompt": "a?", "response": "b. " * 400}])
    assert len(row["input_ids"]) == 256 and row["cut"] > 0


# ---- conversations --------------------------------------------------------------------------------

TALK = [
    {"role": "user", "content": "how do I brew the amber tea?"},
    {"role": "assistant", "content": "First, warm the pot."}, {"role": "user", "content": "and then?"},
]  # fmt: skip


def test_of_a_conversation_the_last_answer_alone_is_learned(tokenizer):
    e = chat.encode(tokenizer, TALK, "Then pour it.")
    kept = [t for t in e["labels"] if t != chat.IGNORE]
    assert tokenizer.decode(kept) == "Then pour it.<|end|>" and e["input_ids"][-len(kept) :] == kept
    text = tokenizer.decode(e["input_ids"])
    assert text == (
        "<|bos|><|user|>how do I brew the amber tea?<|assistant|>First, warm the pot.<|end|><|user|>and then?"
        "<|assistant|>Then pour it.<|end|>"
    )
    assert text == tokenizer.bos_token + chat.render(TALK, "Then pour it.")
    assert e["input_ids"][: len(e["input_ids"]) - len(kept)] == chat.encode_prompt(tokenizer, TALK)


def test_one_turn_is_a_prompt_like_any_other(tokenizer):
    assert chat.encode(tokenizer, TALK[:1], "So.") == chat.encode(tokenizer, TALK[0]["content"], "So.")
    assert chat.render(TALK[:1], "So.") == chat.render(TALK[0]["content"], "So.")


def test_rows_may_be_conversations_and_an_error_names_the_row(tokenizer):
    rows = [{"id": "a", "prompt": TALK, "response": "So."}, {"id": "b", "prompt": "p", "response": "r"}]
    assert chat.encode_rows(tokenizer, rows)[0] == chat.encode(tokenizer, TALK, "So.")
    with pytest.raises(ChatTemplateError, match="a: The chat template does not write system messages"):
        introduced = [{"role": "system", "content": "Be kind."}, *TALK]
        chat.encode_rows(tokenizer, [rows[0] | {"prompt": introduced}])
    with pytest.raises(ChatTemplateError, match="No response token"):
        chat.encode(tokenizer, TALK, "So.", max_length=12)


def test_a_template_that_writes_earlier_turns_otherwise_once_an_answer_follows_is_refused(tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace(
        "<|user|>{{ message['content'] }}", "<|user|>{{ message['content'] }}{{ loop.length if loop.length > 3 }}"
    )
    chat.encode(other, "how?", "So.")
    with pytest.raises(ChatTemplateError, match="differently"):
        chat.encode(other, TALK, "So.")
