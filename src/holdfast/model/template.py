"""The contract of a chat template: what every other module may take for granted about one, and what was found.

A template renders a user's turn and an answer after it; the turn comes out the same with and without the answer; text
begins once; an answer is closed by a token, which is what generation stops at; no clock is read.
"""

from __future__ import annotations

import datetime
import json
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdfast.errors import ArtifactError, ChatTemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a template that asks for today's date is told: a prompt is the same on every day.
DATE = datetime.date(2025, 1, 1)
# A question about the time, with the format written out; any other; `is defined` asks nothing.
_ASKED = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1).)*)\1\s*\)""")
_CLOCK = re.compile(r"strftime_now(?!\s+is\s+(?:not\s+)?defined)")
_PROMPT, _ANSWER = "What is moss?", "Moss is a plant."
# Longer than any template would keep that cuts, with line ends, blanks in a row and signs that a filter may take.
_LONG = 'A first line,\n\n  and a second:\n- <b>one</b> & "two"\n' + "of words that go on and on " * 20 + "to an end."
_CLOSERS: weakref.WeakKeyDictionary[Any, dict[str, int]] = weakref.WeakKeyDictionary()
_TAKEN: weakref.WeakKeyDictionary[Any, set[tuple[str, ...]]] = weakref.WeakKeyDictionary()

Messages = list[dict[str, str]]


def dated(text: str) -> str:
    """A template whose questions about today are answered: `strftime_now` of a written-out format becomes that date.

    >>> dated("Today is {{ strftime_now('%d %b %Y') }}.")
    "Today is {{ '01 Jan 2025' }}."

    Raises:
        ChatTemplateError: it makes up the format as it runs, so that nobody can say what it would write.
    """
    fixed = _ASKED.sub(lambda m: repr(DATE.strftime(m[2])), text)
    if left := _CLOCK.search(fixed):
        raise ChatTemplateError(
            "The chat template reads the clock, so that a prompt is another one every day.",
            found=fixed[left.start() :][:120], expected="strftime_now with a format in quotes, or a date",
            do="write a date into chat_template.jinja",
        )  # fmt: skip
    return fixed


def introduce(tokenizer: PreTrainedTokenizerBase, system: str | None, *, anyhow: bool = False) -> None:
    """Let every conversation that has no system message begin with this one; with None nothing changes.

    It becomes part of the template, and with it of every folder the tokenizer is saved to: who loads a model asks it as
    it was trained. Another introduction takes the place of an earlier one. `anyhow`: where the template does not write
    system messages, the words stand before those of the first request, an empty line between.

    Raises:
        ChatTemplateError: the template does not write system messages, and they are not to come anyhow.
    """
    if system is None:
        return
    message = system.strip() or "Be kind."  # of an empty one nothing would be seen
    introduces = _introduces(tokenizer, message)
    if not introduces and not anyhow:
        begin = _beginning(tokenizer, "system", message)
        raise ChatTemplateError(
            "The chat template does not write system messages, so there can be no system prompt.",
            found=repr(begin)[:160] if begin else "it refuses a conversation that begins with one",
            expected="a template that writes the system message before the user's",
            do="remove system_prompt from the study, or use a template that takes it",
        )  # fmt: skip
    words = json.dumps(system if introduces else f"{system}\n\n", ensure_ascii=False)
    if introduces:
        when, then = "!= 'system'", f"[{{'role': 'system', 'content': {words}}}] + messages"
    else:
        first = f"{{'role': 'user', 'content': {words} + messages[0]['content']}}"
        when, then = "== 'user'", f"[{first}] + messages[1:]"
    # `+` keeps a line end that the template begins with.
    begin = f"{{%- if messages[0]['role'] {when} %}}{{%- set messages = {then} %}}{{%- endif +%}}"
    tokenizer.chat_template = begin + dated(tokenizer.get_chat_template())


def _introduces(tokenizer: PreTrainedTokenizerBase, message: str) -> bool:
    """Whether a system message is written, and not as somebody else's turn."""
    begin = _beginning(tokenizer, "system", message)
    return message in begin and begin not in (_beginning(tokenizer, role, message) for role in ("user", "assistant"))


def check_turns(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str]) -> None:
    """Refuse a conversation of these turns, up to the one that is asked for, if the template does not write each.

    Raises:
        ChatTemplateError: it refuses them, leaves one out, or writes a system message as somebody else's turn.
    """
    taken = _TAKEN.setdefault(tokenizer, set())
    if (key := (str(tokenizer.chat_template), *roles)) in taken:
        return
    words = [f"Words number {i + 1}." for i in range(len(roles))]
    messages = [{"role": role, "content": said} for role, said in zip(roles, words, strict=True)]
    text = render(tokenizer, messages, generation=True)
    places = [text.find(said) for said in words]
    if places[0] < 0 or places != sorted(set(places)):
        raise ChatTemplateError(
            "The chat template does not write every turn of a conversation.", found=repr(text)[:160],
            expected=f"the turns {', '.join(roles)}, in this order", do="use a template that keeps them",
        )  # fmt: skip
    if roles[0] == "system" and not _introduces(tokenizer, words[0]):
        raise ChatTemplateError(
            "The chat template does not write system messages, and a conversation begins with one.",
            found=repr(text)[:160], expected="a template that writes them before the user's",
            do="take them out of the rows, or use a template that takes them",
        )  # fmt: skip
    taken.add(key)


def _beginning(tokenizer: PreTrainedTokenizerBase, role: str, message: str) -> str:
    """What stands before the user's words where a message of `role` does; nothing where the template refuses it."""
    try:
        turns = [{"role": role, "content": message}, {"role": "user", "content": _PROMPT}]
        return render(tokenizer, turns, generation=True).partition(_PROMPT)[0]
    except ChatTemplateError:
        return ""


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, generation: bool) -> str:
    """A conversation as text.

    Raises:
        ChatTemplateError: no template, or it refuses the conversation.
    """
    return cast("str", _apply(tokenizer, messages, generation=generation, tokenize=False))


def ids(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, generation: bool) -> list[int]:
    """A conversation as token ids.

    Raises:
        ChatTemplateError: no template, or it refuses the conversation.
    """
    out = _apply(tokenizer, messages, generation=generation, tokenize=True)
    return list(out["input_ids"] if hasattr(out, "keys") else out)


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, generation: bool, tokenize: bool) -> Any:
    if not getattr(tokenizer, "chat_template", None):
        raise ChatTemplateError(
            "This tokenizer has no chat template, so prompts cannot be rendered the way the model was trained.",
            found="no chat_template in tokenizer_config.json or chat_template.jinja",
            expected="an instruction-tuned checkpoint with its template",
            do="copy chat_template.jinja of the original model beside the tokenizer",
        )
    try:
        text = dated(tokenizer.get_chat_template())
        return tokenizer.apply_chat_template(
            messages, chat_template=text, tokenize=tokenize, add_generation_prompt=generation
        )
    except Exception as error:  # noqa: BLE001 - a template is a program, and raises what it likes
        roles = ", ".join(m["role"] for m in messages)
        raise ChatTemplateError(
            "The chat template cannot render a conversation.", found=f"{type(error).__name__}: {error}"[:160],
            expected=f"text for the turns {roles}, without a system message or tools",
            do="use a template that needs no more than the turns",
        ) from None  # fmt: skip


def closing(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the template writes after an answer.

    Raises:
        ChatTemplateError: it writes none, or plain text: a model trained on it would never stop.
    """
    known = _CLOSERS.setdefault(tokenizer, {})
    template = str(tokenizer.chat_template)
    if template not in known:
        known[template] = _closing(tokenizer)
    return known[template]


def _closing(tokenizer: PreTrainedTokenizerBase) -> int:
    messages = [{"role": "user", "content": _PROMPT}, {"role": "assistant", "content": _ANSWER}]
    text = render(tokenizer, messages, generation=False)
    before, said, after = text.rpartition(_ANSWER)
    if not said or _PROMPT not in before:
        raise ChatTemplateError(
            "The chat template does not write the turns as they are.", found=repr(text)[:160],
            expected="the user's words and the answer, in this order", do="use a template that keeps them",
        )  # fmt: skip
    first = next(iter(tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]), None)
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    if first is None or first not in special:
        raise ChatTemplateError(
            "The chat template closes an answer with no token of its own, so a model trained on it would never stop.",
            found=f"{after!r} after an answer"[:160], expected="an end-of-turn or end-of-text token",
            do="add the end token to the template, after the assistant's content",
        )  # fmt: skip
    return int(first)


def stop_ids(tokenizer: PreTrainedTokenizerBase, configured: int | Sequence[int] | None = None) -> list[int]:
    """Every token that ends an answer, sorted: the tokenizer's end of text, what the model's own generation_config
    says (`configured`), and what the template writes after an answer. The one place that knows.

    Raises:
        ChatTemplateError: there is a template, and it closes no answer. ArtifactError: what is configured is no id.
    """
    more = [configured] if isinstance(configured, int) else configured or []
    if not isinstance(more, list | tuple) or not all(isinstance(i, int) and not isinstance(i, bool) for i in more):
        raise ArtifactError(
            "The model's generation_config.json does not say which tokens end an answer.",
            found=f"eos_token_id: {configured!r}"[:160], expected="a token id, or a list of them",
            do="correct it there, or remove it",
        )  # fmt: skip
    found = {tokenizer.eos_token_id, *more}
    if getattr(tokenizer, "chat_template", None):
        found.add(closing(tokenizer))
    return sorted(i for i in found if i is not None)


def describe(tokenizer: PreTrainedTokenizerBase, configured: int | Sequence[int] | None = None) -> dict[str, Any]:
    """What was found, for the record: how a prompt begins and ends, what closes an answer, which tokens stop
    generation, the system prompt that the template adds by itself, and the date it is told.

    Raises:
        ChatTemplateError: the template breaks the contract.
    """
    user = [{"role": "user", "content": _PROMPT}]
    plain, asked = (render(tokenizer, user, generation=g) for g in (False, True))
    begin, said, end = asked.rpartition(_PROMPT)
    if not said:
        raise ChatTemplateError(
            "The chat template does not write the turns as they are.", found=repr(asked)[:160],
            expected="the user's words and where an answer begins", do="use a template that keeps them",
        )  # fmt: skip
    head, whole = (ids(tokenizer, m, generation=g) for m, g in (
        (user, True), ([*user, {"role": "assistant", "content": _ANSWER}], False)))  # fmt: skip
    if whole[: len(head)] != head:
        raise ChatTemplateError(
            "The chat template renders the prompt differently once an answer follows.",
            found="the prompt's ids are not a prefix of the conversation's ids",
            expected="a template in which they are, so that labels start right after the assistant header",
            do="use a template without per-turn rewriting",
        )
    bos = tokenizer.bos_token_id
    if bos is not None and head[:2] == [bos, bos]:  # further on it may begin every turn, as in ChatML
        raise ChatTemplateError(
            "The chat template writes the beginning-of-text token twice.", found=f"ids start with {head[:3]}",
            expected=f"one {bos}", do="remove bos_token from the template or set add_bos_token: false",
        )  # fmt: skip
    said_whole = render(tokenizer, [{"role": r, "content": _LONG} for r in ("user", "assistant")], generation=False)
    if said_whole.count(_LONG) < 2:
        raise ChatTemplateError(
            "The chat template does not write the turns as they are.",
            found="words, blanks or line ends of a longer turn are gone", expected="both turns, to the letter",
            do="use a template that keeps them",
        )  # fmt: skip
    try:
        render(tokenizer, [{"role": "system", "content": "Be kind."}, *user], generation=True)
        system = True
    except ChatTemplateError:
        system = False
    return {
        "begins": begin, "ends": end, "adds_a_header": plain != asked, "closes": tokenizer.decode([closing(tokenizer)]),
        "stop_ids": stop_ids(tokenizer, configured), "takes_a_system_message": system,
        "adds_a_system_prompt": "system" in begin.lower(), "thinks": "<think>" in str(tokenizer.chat_template),
        "keeps_thoughts": keeps_thoughts(tokenizer),
        "date": DATE.isoformat() if _ASKED.search(str(tokenizer.chat_template)) else None,
    }  # fmt: skip


def keeps_thoughts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes an answer whole that ends a thought; some write what stands behind it only."""
    answer = f"<think>\nHm.\n</think>\n\n{_ANSWER}"
    messages = [{"role": "user", "content": _PROMPT}, {"role": "assistant", "content": answer}]
    return answer in render(tokenizer, messages, generation=False)


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder, without the model.

    Raises:
        ChatTemplateError: it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain exceptions; the user needs one answer
        raise ChatTemplateError(
            f"The tokenizer of {folder} cannot be read.", found=f"{type(error).__name__}: {error}"[:160],
            expected="tokenizer files that transformers reads", do="copy them again from the original model",
        ) from None  # fmt: skip


def of_folder(folder: Path, vocabulary: int | None = None) -> dict[str, Any]:
    """`describe` of the tokenizer and generation_config.json in a model folder.

    Args:
        vocabulary: how many tokens the model knows.

    Raises:
        ChatTemplateError: the tokenizer cannot be read, has a special token that the model does not know, or its
            template breaks the contract. ArtifactError: generation_config.json cannot be read.
    """
    tokenizer = tokenizer_of(folder)
    own = _generation(folder)
    ids = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    if unknown := [f"{token}: {i}" for token, i in ids if vocabulary is not None and i >= vocabulary]:
        raise ChatTemplateError(
            f"The tokenizer of {folder} has special tokens that the model does not know.",
            found=", ".join(unknown[:4])[:160], expected=f"ids below vocab_size {vocabulary}",
            do="use the tokenizer the model was saved with",
        )  # fmt: skip
    return describe(tokenizer, own.get("eos_token_id"))


def _generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    try:
        own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(own, dict):
            raise ValueError(f"a {type(own).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read.", found=str(error)[:120], expected="JSON, or no such file",
            do="copy it again from the original model, or remove it",
        ) from None  # fmt: skip
    return own
