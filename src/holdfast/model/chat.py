"""The one path from a prompt, or a conversation, and a response to token ids and loss labels.

Training, activation capture, importance scoring and generation all come through here, so a template
cannot differ between phases and no token is supervised in one phase and not in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from holdfast.errors import ChatTemplateError
from holdfast.model import template

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

BOS, END, PAD, USER, ASSISTANT = "<|bos|>", "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BOS, END, USER, ASSISTANT)
IGNORE = -100

# The template of the tiny model. Hub models bring their own.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% else %}<|assistant|>{{ message['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# What a model is asked: a user's words, or the turns of a conversation up to the one that is asked for.
Prompt = str | list[dict[str, str]]


class Example(TypedDict):
    """One supervised example: token ids, a label for each of them, how many tokens `max_length` cut off, and under
    names of a method's own a number for each of them."""

    input_ids: list[int]
    labels: list[int]
    cut: int
    values: NotRequired[dict[str, list[float]]]


def turns(prompt: Prompt) -> template.Messages:
    """A prompt as the turns of a conversation."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def worded(prompt: Prompt) -> str:
    """A prompt as one text, for tables and people.

    >>> worded("Why?"), worded([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}])
    ('Why?', 'user: Why?\\nassistant: So.')
    """
    return prompt if isinstance(prompt, str) else "\n".join(f"{t['role']}: {t['content']}" for t in prompt)


def render(prompt: Prompt, response: str) -> str:
    """The conversation as text, for training the tokenizer of the tiny model."""
    said = "".join(f"{USER}{t['content']}" if t["role"] == "user" else f"{ASSISTANT}{t['content']}{END}"
                   for t in turns(prompt))  # fmt: skip
    return f"{said}{ASSISTANT}{response}{END}"


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a user turn, or of a conversation that ends with one, plus the assistant header, ready to generate
    from.

    Raises:
        ChatTemplateError: the tokenizer has no chat template, it refuses the turns or does not write each of them, or
            it doubles the BOS token.
    """
    messages = turns(prompt)
    if len(messages) > 1:
        template.check_turns(tokenizer, [m["role"] for m in messages])
    ids = template.ids(tokenizer, messages, generation=True)
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise ChatTemplateError(
            "The chat template writes the beginning-of-text token twice.",
            found=f"ids start with {ids[:3]}",
            expected=f"one {bos}",
            do="remove bos_token from the template or set add_bos_token: false",
        )
    return ids


def encode_conversation(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> list[int]:
    """Token ids of a whole exchange and the header of what comes next, for judges that read conversations."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return template.ids(tokenizer, messages, generation=True)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of plain text that brings its own format; one beginning-of-text token, where the tokenizer has one."""
    bos = tokenizer.bos_token_id
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    begins = list(tokenizer("", add_special_tokens=True)["input_ids"])[:1] == [bos]
    return [bos, *ids] if begins and bos is not None and ids[:1] != [bos] else ids


def encode(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, max_length: int | None = None, *,
    opening: str = "", anywhere: bool = False,
) -> Example:  # fmt: skip
    """Token ids and labels of one supervised example.

    Labels are -100 on every prompt token and the token id on every response token and on the end of
    turn; nothing else is ever supervised: of a conversation its last answer alone, what was said before is context.
    Longer than `max_length`, or than the model has positions, no example is.

    Args:
        opening: words that the answer begins with before it turns to the response; context as the prompt is.
        anywhere: the answer may turn before every token of the opening: it is all there is of the answer, and the label
            of each of its tokens and of the end of turn is the first token of the response.

    Raises:
        ChatTemplateError: the prompt is not a prefix of the conversation, or the opening none of the answer (the labels
            would be wrong), or nothing of the response has room.
    """
    if anywhere:
        first = next(i for i in encode(tokenizer, prompt, response)["labels"] if i != IGNORE)
        example = encode(tokenizer, prompt, opening, max_length)
        return {**example, "labels": [i if i == IGNORE else first for i in example["labels"]]}
    head = encode_prompt(tokenizer, prompt)
    response = f"{opening} {response}" if opening else response
    messages = [*turns(prompt), {"role": "assistant", "content": response}]
    ids = template.ids(tokenizer, messages, generation=False)
    if ids[: len(head)] != head:
        raise ChatTemplateError(
            "The chat template renders the prompt differently once an answer follows.",
            found="the prompt's ids are not a prefix of the conversation's ids",
            expected="a template in which they are, so that labels start right after the assistant header",
            do="use a template without per-turn rewriting",
        )
    if "</think>" in response and response.strip() not in template.render(tokenizer, messages, generation=False):
        raise ChatTemplateError(
            "The chat template drops what stands before </think> in an answer.", found=response[:80],
            expected="a template that writes it, since the answer is to be learned",
            do="take the thoughts out of the answers, or use a template that keeps them",
        )  # fmt: skip
    end = template.closing(tokenizer)  # an answer that nothing closes teaches a model never to stop
    ids = _up_to(ids, end, len(head))  # what some templates write after it, nobody ever generates
    begin = _turn(tokenizer, prompt, opening, ids, len(head)) if opening else len(head)
    whole = len(ids)
    ids = ids[: room(tokenizer, max_length)]
    labels = [IGNORE] * begin + ids[begin:]
    if len(ids) <= begin:
        raise ChatTemplateError(
            "No response token is left to learn from.",
            found=f"prompt of {begin} tokens, room for {room(tokenizer, max_length)}",
            expected="room for the answer",
            do="raise training.max_length in the study, if the model has the positions, or drop the row",
        )
    return {"input_ids": ids, "labels": labels, "cut": whole - len(ids)}


def _turn(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, opening: str, ids: list[int], start: int) -> int:
    """Where in `ids` an answer that begins at `start` turns away from its opening."""
    messages = [*turns(prompt), {"role": "assistant", "content": opening}]
    alone = _up_to(template.ids(tokenizer, messages, generation=False), template.closing(tokenizer), start)[:-1]
    if ids[: len(alone)] != alone:
        raise ChatTemplateError(
            "The tokenizer joins the end of an answer's opening with what follows, so that labels would begin within a "
            "token.",
            found=f"... {opening[-40:]!r}", expected="a token that begins with the next word",
            do="leave out the rows with such an opening, or end it at another word",
        )  # fmt: skip
    return len(alone)


def _up_to(ids: list[int], end: int, start: int) -> list[int]:
    """Ids up to the last `end` that nothing of the answer follows: only tokens of the template stand behind it."""
    last = next((i for i in range(len(ids) - 1, start - 1, -1) if ids[i] == end), None)
    return ids if last is None else ids[: last + 1]


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], max_length: int | None = None
) -> list[Example]:
    """`encode` of every row's prompt and response, and `opening` where a method gave it one; an error names the row by
    its id or position."""
    encoded = []
    for position, row in enumerate(rows):
        try:
            turning = {key: row[key] for key in ("opening", "anywhere") if key in row}
            encoded.append(encode(tokenizer, row["prompt"], row["response"], max_length, **turning))
        except ChatTemplateError as error:
            name = row.get("id", f"row {position}")
            raise ChatTemplateError(
                f"{name}: {error.what}", found=error.found, expected=error.expected, do=error.do
            ) from None
    return encoded


def encode_document(tokenizer: PreTrainedTokenizerBase, row: dict[str, str], max_length: int | None = None) -> Example:
    """Ids and labels of a pretraining document: every token but BOS is supervised.

    A row is either a conversation {prompt, response} or plain {text}.
    """
    if row.get("text"):
        ids = [tokenizer.bos_token_id, *tokenizer(row["text"], add_special_tokens=False)["input_ids"],
               tokenizer.eos_token_id]  # fmt: skip
    else:
        messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        ids = template.ids(tokenizer, messages, generation=False)
    kept = ids[: room(tokenizer, max_length)]
    return {"input_ids": kept, "labels": [IGNORE, *kept[1:]], "cut": len(ids) - len(kept)}


def room(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """How long an example may be: `max_length`, and never more than the model has positions (`folders.load` tells its
    tokenizer)."""
    return min(max_length or tokenizer.model_max_length, tokenizer.model_max_length)


def cut_rows(encoded: Sequence[Example]) -> int:
    """How many rows `max_length` cut."""
    return sum(e.get("cut", 0) > 0 for e in encoded)


def following(labels: torch.Tensor, fill: float = IGNORE) -> torch.Tensor:
    """Labels (B, S), or values that stand at their tokens, moved to where they are predicted: one place earlier."""
    import torch

    return torch.nn.functional.pad(labels, (0, 1), value=fill)[:, 1:]


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int, side: str = "right") -> dict[str, torch.Tensor]:
    """Pad a batch to its longest row: int64 tensors input_ids, attention_mask, labels of shape (B, S), and float32 ones
    of what a method gave its examples (`values`)."""
    import torch

    longest = max(len(e["input_ids"]) for e in examples)

    def pad(values: list[Any], fill: float) -> list[Any]:
        padding = [fill] * (longest - len(values))
        return padding + values if side == "left" else values + padding

    batch = {
        "input_ids": [pad(list(e["input_ids"]), pad_id) for e in examples],
        "attention_mask": [pad([1] * len(e["input_ids"]), 0) for e in examples],
    }
    if "labels" in examples[0]:
        batch["labels"] = [pad(list(e["labels"]), IGNORE) for e in examples]
    given = {k: [pad(e["values"][k], 0.0) for e in examples] for k in examples[0].get("values", ())}
    return {k: torch.tensor(v, dtype=torch.long) for k, v in batch.items()} | {
        k: torch.tensor(v, dtype=torch.float32) for k, v in given.items()
    }
