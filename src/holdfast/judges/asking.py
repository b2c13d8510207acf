"""What a judge that is a model or a server says of every stored reply to a safety prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.judges import Row, Say, asked_about
from holdfast.judges import text as reading
from holdfast.record import tables
from holdfast.study import registry

PRECISION = {"fp32": "float32", "bf16": "bfloat16"}


def ask(
    name: str, *, cfg: Row, source: Path | str | None, responses: Path, out: Path, say: Say = lambda _: None
) -> None:
    """Write the `opinions` table of judge `name`: label, score and raw text per reply.

    Args:
        cfg: `settings` of the judge, `template`, the text of its prompt file or None, and of models `chats`, whether
            the tokenizer must render a conversation.
        source: folder or hub id of a model; None for a server.
    """
    judge, head = registry.load_judge(name), registry.judge(name)
    rows = asked_about(tables.read(responses, "responses"))
    pairs = [(r["prompt"], reading.reply(r["text"])) for r in rows]
    if head.kind == "server":
        texts = judge.ask(judge.Settings(**cfg["settings"]), cfg["template"], pairs, say)
        first: Sequence[dict[str, float]] = [{}] * len(texts)
    else:
        texts, first = _model(judge, cfg, source, pairs, say)
    opinions = [judge.read(text, words) for text, words in zip(texts, first, strict=True)]
    tables.write(
        [
            {"id": r["id"], "set": r["set"], "label": o.label, "score": o.score, "text": o.text}
            for r, o in zip(rows, opinions, strict=True)
        ],
        out, "opinions",
    )  # fmt: skip


def _model(
    judge: Any, cfg: Row, source: Path | str | None, pairs: Sequence[tuple[str, str]], say: Say
) -> tuple[list[str], list[dict[str, float]]]:
    from holdfast.evaluate import answers
    from holdfast.model import folders

    settings = cfg["settings"]
    assert source is not None  # of a model there is one
    model, tokenizer = folders.load(source, dtype=PRECISION[settings["precision"]], chats=cfg["chats"])
    encoded = [judge.encode(tokenizer, cfg["template"], *pair) for pair in pairs]
    replies = answers.complete(
        model, tokenizer, encoded, max_new_tokens=settings["max_new_tokens"], batch_size=settings["batch_size"],
        words=getattr(judge, "WORDS", ()), say=say,
    )  # fmt: skip
    return [a.text for a in replies], [a.first for a in replies]
