"""Table: rows of any columns, made into prompts and answers by what a study says about them, without code.

`columns` says what is asked and answered: a column's name, or text with {column} where a column's value goes; {{ and }}
are braces. Or `messages` names a column that holds a conversation: its last turn, the assistant's, is what is learned
and asked for, what was said before is context. A table keeps the row itself too, for scorers that read other columns.
Nothing here knows a scorer, so that another one makes no other rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast import data
from holdfast.data import LETTERS
from holdfast.model import chat
from holdfast.names import SPLITS
from holdfast.record import userfiles

Row = dict[str, Any]
COLUMNS = ("prompt", "response", "gold", "turns", "row")
TEXT_COLUMNS = ("prompt", "response")
_PIECES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]|[^{}]+")


@dataclass(frozen=True)
class Reading:
    """How the rows of a source become rows of a table: its columns, what codes in place of an answer stand for, and
    which part of the source is which split."""

    columns: Mapping[str, str]
    codes: Mapping[str, str]
    splits: Mapping[str, str | float]

    @property
    def parts(self) -> dict[str, str]:
        """Split -> the file, or the split on the hub, that holds it; nothing where rows say it, or shares."""
        return {split: name for split, name in self.splits.items() if isinstance(name, str) and split != "column"}

    @property
    def shares(self) -> dict[str, float]:
        """Split -> its share of all texts; nothing where files or rows say it."""
        return {split: share for split, share in self.splits.items() if not isinstance(share, str)}

    @property
    def split_column(self) -> str | None:
        """The column that says the split of a row, where one does."""
        return str(self.splits["column"]).strip().lower() if "column" in self.splits else None

    @property
    def expected(self) -> str:
        """What a row must have, in words."""
        if "messages" in self.columns:
            return ("turns {role, content}: user and assistant by turns, the assistant last, a system message at most "
                    "before them")  # fmt: skip
        return ", ".join(self.named)

    @property
    def named(self) -> list[str]:
        """The columns that must be there."""
        every = [column for text in self.columns.values() for column in fields(text)]
        return list(dict.fromkeys([*every, *([self.split_column] if self.split_column else [])]))


def reading(dataset: str, cfg: Mapping[str, Any]) -> Reading | None:
    """How rows of a dataset are read: of a table as the study says (`cfg`), of one that is written as a table as its
    module says; None where the module reads them itself."""
    module = data.dataset(dataset)
    columns = cfg.get("columns") or getattr(module, "READS", None)
    if columns is None:
        return None
    texts = {key: text for key, text in columns.items() if key != "codes"}
    return Reading(texts, columns.get("codes", {}), cfg.get("splits") or getattr(module, "PARTS", {}))


def parsed(text: str) -> list[tuple[str, str | None]]:
    """A column's name, or a template, as pieces: (text, None), or ("", column).

    >>> parsed("Say {{no}} to {Thing}."), parsed("Answer")
    ([('Say {no} to ', None), ('', 'thing'), ('.', None)], [('', 'answer')])

    Raises:
        ValueError: a brace that opens or closes nothing, or nothing between two.
    """
    if not set("{}") & set(text):
        return [("", text.strip().lower())]
    pieces: list[tuple[str, str | None]] = []
    for found in _PIECES.finditer(text):
        said, column = found[0], found[1]
        if said in ("{", "}") or (column is not None and not column.strip()):
            raise ValueError(f"a brace in {text[:60]!r} names no column; as text it is written twice, {{{{ or }}}}")
        if column is not None:
            pieces.append(("", column.strip().lower()))
            continue
        before = pieces.pop()[0] if pieces and pieces[-1][1] is None else ""
        pieces.append((before + {"{{": "{", "}}": "}"}.get(said, said), None))
    return pieces


def fields(text: str) -> list[str]:
    """The columns that a column's name, or a template, needs."""
    return [column for _, column in parsed(text) if column is not None]


def filled(text: str, raw: Mapping[str, Any]) -> str:
    """A template with a row's values in it; outer white space is gone.

    Raises:
        KeyError: no such column. TypeError: it holds nothing, or a thing with parts that is no list of words.
    """
    said = [piece if column is None else _value(raw, column) for piece, column in parsed(text)]
    return "".join(said).strip()


def _value(raw: Mapping[str, Any], column: str) -> str:
    """A row's value as text: words as they are, numbers as words, a list of options as lettered lines."""
    value = raw[column]
    if isinstance(value, list) and 0 < len(value) <= len(LETTERS):
        return "\n".join(f"{LETTERS[i]}. {_word(option, column)}" for i, option in enumerate(value))
    return _word(value, column)


def _word(value: Any, column: str) -> str:
    if value is None or value != value:
        raise TypeError(f"column '{column}' holds nothing, not text")
    return data.word({column: value}, column, "")


def _answer(text: str, raw: Mapping[str, Any], codes: Mapping[str, str]) -> str:
    """As `filled`; where a column alone is the answer and there are codes, what its code stands for.

    Raises:
        ValueError: a code that stands for nothing.
    """
    said, pieces = filled(text, raw), parsed(text)
    if not codes or len(pieces) > 1 or said in codes.values():
        return said
    if said not in codes:
        known = ", ".join(f"{code} {name}" for code, name in list(codes.items())[:8])
        raise ValueError(f"column '{pieces[0][1]}' holds {said[:40]}, which stands for no answer: {known}")
    return codes[said]


def conversation(value: Any, column: str) -> list[dict[str, str]]:
    """A list of turns {role, content}, or its JSON, that ends with the assistant's.

    Raises:
        TypeError, ValueError: it is something else; the message names the column.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"column '{column}' holds {value[:60]!r}, not a list of turns") from None
    if not isinstance(value, list) or not all(isinstance(t, dict) for t in value):
        raise TypeError(f"column '{column}' holds {value!r:.80}, not a list of turns {{role, content}}")
    turns = []
    for i, turn in enumerate(value):
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(content, str) or not content.strip():
            raise TypeError(f"column '{column}', turn {i} has no content that is text")
        if not userfiles.whole(content):
            raise ValueError(f"column '{column}', turn {i} holds half a character: {ascii(content):.60}")
        turns.append({"role": str(role), "content": content.strip()})
    roles = [t["role"] for t in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError(f"column '{column}' has the turns {', '.join(roles) or 'of nobody'}")
    return turns


def real_row(raw: Mapping[str, Any], how: Reading) -> Row:
    """A raw row -> {prompt, response, gold, turns, row}, and its split where a column says it.

    Raises:
        KeyError, TypeError, ValueError: a value is missing or not what it should be; the message names the column.
    """
    columns = how.columns
    if "messages" in columns:
        column = columns["messages"].strip().lower()
        *before, last = conversation(raw[column], column)
        alone = [t["role"] for t in before] == ["user"]
        prompt: chat.Prompt = before[0]["content"] if alone else before
        response = last["content"]
    else:
        prompt, response = filled(columns["prompt"], raw), _answer(columns["response"], raw, how.codes)
    row = {
        "prompt": chat.worded(prompt), "response": response,
        "gold": _answer(columns["gold"], raw, how.codes) if "gold" in columns else response,
        "turns": "" if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False),
        "row": json.dumps(dict(raw), ensure_ascii=False, default=str),
    }  # fmt: skip
    if how.split_column:
        row["split"] = data.text(raw, how.split_column).lower()
        if row["split"] not in SPLITS:
            raise ValueError(f"column '{how.split_column}' holds {row['split']!r}, not one of {', '.join(SPLITS)}")
    return row


def asked(row: Row) -> list[dict[str, str]]:
    """The turns of a row's conversation, up to the answer; where it is none its prompt as one."""
    return chat.turns(json.loads(row["turns"]) if row.get("turns") else row["prompt"])


def requests(rows: Iterable[Row], dataset: str) -> list[Row]:
    """What the training rows of a task ask, {id, prompt} of every turn but the assistant's: what evaluation prompts are
    looked for among. Of rows that have no prompt it is the text that they are about."""
    column = data.dataset(dataset).TEXT_COLUMNS[0]
    return [
        {"id": r["id"], "prompt": turn["content"]} for r in rows if r["split"] == "train"
        for turn in (asked(r) if "prompt" in r else chat.turns(r[column])) if turn["role"] != "assistant"
    ]  # fmt: skip


def example(row: Row, instruction: str | None = None) -> tuple[chat.Prompt, str]:
    """(prompt or conversation, response); an instruction of the user's stands before the prompt."""
    if row["turns"]:
        return json.loads(row["turns"]), row["response"]
    head = f"{instruction.strip()}\n" if instruction else ""
    return head + row["prompt"], row["response"]
