"""Greedy answers to prompts, in batches, identical for the same checkpoint and settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from holdfast import data, names
from holdfast.errors import ArtifactError, DataError
from holdfast.evaluate import stress, vllm_backend
from holdfast.model import chat, contract, folders, template
from holdfast.record import provenance, tables

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


ROUND = 16  # tokens of an answer between two looks at which have ended


@dataclass(frozen=True)
class Answer:
    """One generated answer. `finish` is `stop` (end of turn), `length` (the limit) or `context`
    (no more positions); `first` are the probabilities of the words
    that were asked for at its first token."""

    text: str
    tokens: int
    finish: str
    first: dict[str, float] = field(default_factory=dict)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    encoded: Sequence[list[int]],
    *,
    stops: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    say: Callable[[str], None] = lambda _: None,
) -> list[tuple[list[int], str]]:
    """(new token ids up to and without the first of `stops`, finish) for every prompt's ids, in order.

    Greedy, or sampled at a `temperature` from all tokens, and nothing else, whatever the checkpoint's generation_config
    asks for. `finish` is `stop`, `length` (the
    limit), or `context`: the model has no more positions. Prompts are batched by length and padded on the left, so a
    prompt's neighbours are fixed by the prompt list; in float32 the batching does not change the answer.
    """
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    room = [min(max_new_tokens, folders.positions(model) - len(encoded[i])) for i in range(len(encoded))]
    free = [i for i in order if room[i] == max_new_tokens]
    chunks = [free[s : s + batch_size] for s in range(0, len(free), batch_size)]
    chunks += [[i] for i in order if 0 < room[i] < max_new_tokens]  # one by one: each has a limit of its own
    out: list[tuple[list[int], str]] = [([], "context") for _ in encoded]
    done = 0
    with _plainly(model):
        for chunk in chunks:
            limit = room[chunk[0]]
            found = _continued(model, [encoded[i] for i in chunk], stops, pad_id, limit, temperature)
            for i, new in zip(chunk, found, strict=True):
                end = next((n for n, token in enumerate(new) if token in stops), None)
                cut = "length" if limit == max_new_tokens else "context"
                out[i] = (new, cut) if end is None else (new[:end], "stop")
            done += len(chunk)
            say(f"answered {done}/{len(order)}")
    return out


def _continued(
    model: PreTrainedModel, encoded: Sequence[list[int]], stops: Sequence[int], pad_id: int, limit: int,
    temperature: float,
) -> list[list[int]]:  # fmt: skip
    """The new tokens of every prompt of a batch, up to a stop token or the limit.

    In rounds of `ROUND` tokens: what has ended by then leaves the batch, and is not computed on until the longest has.
    """
    from transformers import GenerationConfig

    batch = chat.collate([{"input_ids": e} for e in encoded], pad_id, side="left")
    ids, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
    begin, cache = ids.shape[1], None
    rows, out = list(range(len(encoded))), [list[int]() for _ in encoded]
    how: dict[str, Any] = {"do_sample": False}
    if temperature:
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    while rows:
        room = limit - (ids.shape[1] - begin)
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            num_beams=1, max_new_tokens=min(ROUND, room), eos_token_id=list(stops), pad_token_id=pad_id,
            return_dict_in_generate=True, **how,
        )  # fmt: skip
        found = model.generate(  # type: ignore[operator]  # what has a language head has it
            ids, attention_mask=mask, past_key_values=cache, generation_config=config
        )
        ids, cache = found.sequences, found.past_key_values
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        for row, new in zip(rows, ids[:, begin:].tolist(), strict=True):
            out[row] = new
        if room <= ROUND:
            break
        going = [n for n, row in enumerate(rows) if not set(stops).intersection(out[row])]
        if len(going) < len(rows) and _can_drop(cache):
            rows, keep = [rows[n] for n in going], torch.tensor(going, dtype=torch.long, device=ids.device)
            ids, mask = ids[keep], mask[keep]
            cache.batch_select_indices(keep)
        elif not going:
            break
    return out


def _can_drop(cache: Any) -> bool:
    """Whether rows can leave a cache: not one that holds states of another kind than keys and values."""
    return all(hasattr(layer, "batch_select_indices") for layer in getattr(cache, "layers", [None]))


@contextlib.contextmanager
def _plainly(model: PreTrainedModel) -> Iterator[None]:
    """While this lasts the model has no wishes of its own: `generate` fills what a config leaves open from them."""
    from transformers import GenerationConfig

    kept: Any = getattr(model, "generation_config", None)
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = kept


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[chat.Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    opening: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> list[Answer]:
    """Greedy answers in the order of `prompts`, which may be conversations; sampled at a `temperature`. An `opening` is
    put into the model's mouth: every answer begins with it."""
    begun = list(tokenizer(opening, add_special_tokens=False)["input_ids"]) if opening else []
    encoded = [chat.encode_prompt(tokenizer, p) + begun for p in prompts]
    return complete(
        model, tokenizer, encoded, max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=temperature,
        begun=begun, say=say,
    )  # fmt: skip


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    words: Sequence[str] = (),
    temperature: float = 0.0,
    begun: Sequence[int] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[Answer]:
    """Greedy answers to prompts as token ids, in their order; sampled at a `temperature`.

    `words`: also the probability of the first token of each of these at the answer's first token. `begun`: tokens that
    all prompts end with and that are the beginning of their answers.
    """
    model.eval()  # type: ignore[no-untyped-call]
    stops = template.stop_ids(tokenizer, _ends(getattr(model, "generation_config", None)))
    generated = generate(
        model, encoded, stops=stops, pad_id=cast("int", tokenizer.pad_token_id), max_new_tokens=max_new_tokens,
        batch_size=batch_size, temperature=temperature, say=say,
    )  # fmt: skip
    generated = [([*begun, *ids], finish) for ids, finish in generated]
    first = first_token(model, tokenizer, encoded, words, batch_size=batch_size) if words else [{} for _ in encoded]
    return _worded(tokenizer, generated, first)


def _ends(own: GenerationConfig | None) -> Any:
    """The end tokens that a checkpoint's own generation_config names."""
    return getattr(own, "eos_token_id", None)


def _worded(
    tokenizer: PreTrainedTokenizerBase, generated: Sequence[tuple[list[int], str]], first: Sequence[dict[str, float]]
) -> list[Answer]:
    return [
        Answer(worded(tokenizer, ids).strip(), len(ids), finish, probabilities)
        for (ids, finish), probabilities in zip(generated, first, strict=True)
    ]


def by_vllm(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[tuple[Sequence[chat.Prompt], int]],
    settings: dict[str, Any],
    say: Callable[[str], None] = lambda _: None,
) -> list[list[Answer]]:
    """The answers to several lists of prompts, each with its longest answer, by one start of vLLM (`vllm_backend`)."""
    from transformers import GenerationConfig

    wishes = (folder / "generation_config.json").exists()
    own = GenerationConfig.from_pretrained(folder) if wishes else None
    encoded = [(chat.encode_prompt(tokenizer, p), limit) for prompts, limit in asked for p in prompts]
    generated = iter(vllm_backend.generate(
        folder, encoded, stops=template.stop_ids(tokenizer, _ends(own)), positions=contract.positions(folder),
        settings=settings, say=say,
    ))  # fmt: skip
    parts = [[next(generated) for _ in prompts] for prompts, _ in asked]
    return [_worded(tokenizer, part, [{}] * len(part)) for part in parts]


_THOUGHT = re.compile(r"think|thought|reason", re.I)


def worded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of an answer's tokens. Special tokens are no part of it, but those that begin or end a thought stay:
    without them a judge would read the thought as the answer."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    ends = {i for i in special.intersection(ids) if _THOUGHT.search(str(tokenizer.convert_ids_to_tokens(i)))}
    if not ends:
        return cast("str", tokenizer.decode(list(ids), skip_special_tokens=True))
    kept = [i for i in ids if i in ends or i not in special]
    return cast("str", tokenizer.decode(kept, skip_special_tokens=False))


@torch.inference_mode()
def first_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    words: Sequence[str],
    *,
    batch_size: int,
) -> list[dict[str, float]]:
    """Per prompt, the probability that the next token is the one that each word begins with.

    Raises:
        ArtifactError: two words begin with one token, so that their probabilities cannot be told apart.
    """
    ids = _beginnings(tokenizer, words)
    out: list[dict[str, float]] = []
    for start in range(0, len(encoded), batch_size):
        rows = [{"input_ids": e} for e in encoded[start : start + batch_size]]
        batch = {k: v.to(model.device) for k, v in chat.collate(rows, tokenizer.pad_token_id).items()}
        last = batch["attention_mask"].sum(1) - 1
        logits = model(**batch).logits[torch.arange(len(rows), device=last.device), last].float()
        chosen = logits.softmax(-1)[:, ids].tolist()
        out += [dict(zip(words, row, strict=True)) for row in chosen]
    return out


def _beginnings(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """One token for each word that no other word begins with. A tokenizer may write the blank before a word as a token
    of its own (SentencePiece): then it is the next one that counts."""
    encoded = [list(tokenizer(w, add_special_tokens=False)["input_ids"]) for w in words]
    while len(encoded) > 1 and all(len(e) > 1 for e in encoded) and len({e[0] for e in encoded}) == 1:
        encoded = [e[1:] for e in encoded]
    first = [e[0] for e in encoded if e]
    if len(set(first)) != len(words):
        raise ArtifactError(
            "This judge's answers cannot be told apart by their first token.", found=f"{', '.join(words)}: {first}",
            expected="a token of its own for each", do="name another model as the judge's source",
        )  # fmt: skip
    return first


def respond(
    checkpoint: Path,
    *,
    prompts: Path,
    tasks: dict[str, Path],
    cfg: dict[str, Any],
    out: Path,
    base: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer the safety prompts and the task rows of one split once; write responses.parquet.

    Under a stress (`cfg["stress"]`) the model is changed first, or asked otherwise; `base` is what it is mixed with.
    Task rows appear in the set `task:<name>` under the id of their row; `generation` is the digest of the settings an
    answer was generated with. Nothing is judged here.
    """
    work: list[tuple[list[dict[str, Any]], list[chat.Prompt], int]] = []
    known = tables.read(prompts, "prompts")
    chosen = [r for r in known if r["split"] == cfg["split"]]
    if not chosen:
        raise DataError(
            f"{prompts}: no prompt is of the split that is asked.",
            found=", ".join(sorted({r["split"] for r in known})),
            expected=cfg["split"], do="correct the column `split` of the study's prompts, or evaluation.split",
        )  # fmt: skip
    work.append((chosen, [r["prompt"] for r in chosen], cfg["max_new_tokens"]))
    for name, path in tasks.items():
        task = cfg["tasks"][name]
        dataset = data.dataset(task["dataset"])
        rows = [r for r in tables.read(path, task["dataset"]) if r["split"] == cfg["split"]]
        asked = [dataset.example(r, task["instruction"])[0] for r in rows]
        stored = [
            {"id": r["id"], "set": f"{names.TASK}:{name}", "base_id": r["id"], "category": "task", "wrapper": "",
             "prompt": chat.worded(prompt)}
            for r, prompt in zip(rows, asked, strict=True)
        ]  # fmt: skip
        work.append((stored, asked, task["max_new_tokens"]))
    folder, served, changed = checkpoint.parent, cfg.get("vllm"), cfg.get("stress", {})
    if served:
        tokenizer = template.tokenizer_of(folder)
        template.introduce(tokenizer, cfg.get("system_prompt"))
        found = by_vllm(folder, tokenizer, [(asked, limit) for _, asked, limit in work], served, say)
    else:
        model, tokenizer = folders.load(folder)
        template.introduce(tokenizer, cfg.get("system_prompt"))
        stress.apply(model, changed, base)
        torch.manual_seed(0)
        openings = [changed.get("prefill", ""), *("" for _ in tasks)]
        found = [
            answer(
                model, tokenizer, asked, max_new_tokens=limit, batch_size=cfg["batch_size"],
                temperature=changed.get("temperature", 0.0), opening=opening, say=say,
            )
            for (_, asked, limit), opening in zip(work, openings, strict=True)
        ]  # fmt: skip
    out_rows = []
    for (rows, _, limit), answers in zip(work, found, strict=True):
        said = {"system_prompt": cfg["system_prompt"]} if "system_prompt" in cfg else {}
        how = {"vllm": served} if served else {"batch_size": cfg["batch_size"]}
        settings = provenance.digest({"max_new_tokens": limit, "do_sample": False} | how | said | changed)
        out_rows += [
            {**r, "text": a.text, "tokens": a.tokens, "finish": a.finish, "generation": settings}
            for r, a in zip(rows, answers, strict=True)
        ]
    tables.write(out_rows, out, "responses", check=False)  # judging, the next stage, checks
