"""Do rows, prompts and answers fit into the model? From what the study says, and from what the base's tokenizer makes
of a user's rows, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import data
from holdfast.errors import DataError, StudyError
from holdfast.model import chat, counting
from holdfast.study import registry, resolve
from holdfast.study.models import Pretraining
from holdfast.study.training import Training

Row = dict[str, Any]
Say = Callable[[str], None]


def refuse(study: resolve.Resolved, positions: int) -> None:
    """Refuse lengths that a study asks for and its model has no positions for. A `max_length` that the study does not
    say is as long as the model allows.

    Raises:
        StudyError: the key.
    """
    s, base = study.study, study.study.foundation
    phases: dict[str, Training | Pretraining] = {**_safety_phase(study)}
    phases |= {f"tasks.{k}.training": t.training for k, t in s.tasks.items()}
    phases |= {"base.pretraining": base.pretraining} if base.source == "tiny" else {}
    phases |= {"unaligned.training": s.unaligned.training} if study.trains_twin else {}
    phases |= {"constitution.training": s.constitution.training} if study.judging.trains_constitution else {}
    said = {f"{k}.max_length": p.max_length for k, p in phases.items() if "max_length" in p.model_fields_set}
    asked = {"evaluation.max_new_tokens": s.evaluation.max_new_tokens}
    asked |= {f"tasks.{k}.max_new_tokens": t.max_new_tokens for k, t in s.tasks.items()}
    if s.safety.benign_answers == "self":
        asked["safety.benign_max_new_tokens"] = s.safety.benign_max_new_tokens
    if study.judging.trains_constitution:
        asked["constitution.max_new_tokens"] = s.constitution.max_new_tokens
    for key, value, most in (
        *((k, v, positions) for k, v in said.items()), *((k, v, positions - 1) for k, v in asked.items())
    ):  # fmt: skip
        if value > most:
            raise StudyError(
                f"{study.path}: {key} is longer than the model.", found=str(value),
                expected=f"at most {most}: {base.source} has {positions} positions"
                + (", and a prompt needs one" if most < positions else ""),
                do=f"lower {key}" + (", or raise base.max_positions" if base.source == "tiny" else ""),
            )  # fmt: skip


def _safety_phase(study: resolve.Resolved) -> dict[str, Training]:
    """Key -> the safety training of a study, if it has one."""
    given = study.study.aligned
    if given is None:
        return {"safety.training": study.study.safety.training}
    return {"aligned.training": given.training} if given.training else {}


def refuse_frame(study: resolve.Resolved, folder: Path, positions: int | None) -> None:
    """Refuse a `max_length` in which the chat template of a model folder leaves no room for anything, and a system
    prompt that fills the model.

    Raises:
        StudyError: the key. ChatTemplateError: it takes no system prompt, and the study has one.
    """
    s, frame = study.study, _trained_as(study, folder).frame
    phases = {**_safety_phase(study), **{f"tasks.{k}.training": t.training for k, t in s.tasks.items()}}
    for key, phase in phases.items():
        if phase.max_length <= frame:
            raise StudyError(
                f"{study.path}: {key}.max_length leaves no room beside the chat template.",
                found=str(phase.max_length), expected=f"more than {frame} tokens, which an exchange of two letters has",
                do=f"raise {key}.max_length",
            )  # fmt: skip
    if positions and (asked := _asked_as(study, folder).frame) >= positions:
        raise StudyError(
            f"{study.path}: a system prompt leaves no room in the model.", found=f"{asked} tokens with the template",
            expected=f"fewer than {positions}, the positions that it has", do="shorten the longest system_prompt",
        )  # fmt: skip


def look(
    study: resolve.Resolved, folder: Path, positions: int, safety: Sequence[Row], prompts: Sequence[Row],
    pairs: Sequence[Row], tasks: Mapping[str, Sequence[Row]], say: Say,
) -> None:  # fmt: skip
    """Say how many rows of the user are cut and how many answers have no room, by the tokenizer of a model folder.

    Args:
        tasks: task -> its rows of all splits.

    Raises:
        DataError: a prompt that is longer than the model, or a row whose answer has no room at all.
    """
    s = study.study
    tokenizer, asking = _trained_as(study, folder), _asked_as(study, folder)
    learned = [r | {"response": r["rejected"]} for r in pairs]  # what a harmful row, or the twin, learns
    for source, found, limits in (
        (s.safety.source, safety, {p.max_length for p in _safety_phase(study).values()} | _beside(study, "safety")),
        (s.preferences.source, learned, _beside(study, "preferences")),
    ):
        if found and limits:
            _trained(tokenizer, source, found, min(limits), positions, say)
    asked: list[tuple[str, list[chat.Prompt], int]] = [
        (s.evaluation.source, [r["prompt"] for r in prompts], s.evaluation.max_new_tokens)
    ]
    for name, rows in tasks.items():
        t, example = s.tasks[name], data.dataset(s.tasks[name].dataset).example
        instruction = study.instructions()[name]
        pairs = [dict(zip(("prompt", "response"), example(r, instruction), strict=True)) | {"id": r["id"],
                 "split": r["split"]} for r in rows]  # fmt: skip
        train = [p for p in pairs if p["split"] == "train"]
        _trained(tokenizer, f"tasks.{name}", train, t.training.max_length, positions, say)
        wanted = [p["prompt"] for p in pairs if p["split"] in study.splits]
        asked.append((f"tasks.{name}", wanted, t.max_new_tokens))
    for where, texts, limit in asked:
        room = [positions - n for n in asking.prompts(texts, positions - limit)]
        full = next((i for i, left in enumerate(room) if left < 1), None)
        if full is not None:
            begins = chat.worded(texts[full])[:60]
            raise DataError(
                f"{where}: a prompt is longer than the model.",
                found=f"prompt {full} of those asked, {positions - room[full]} tokens: {begins!r} ...",
                expected=f"fewer than {positions} tokens", do="shorten it, or remove it",
            )  # fmt: skip
        if short := sum(left < limit for left in room):
            say(f"{where}: {short} of {len(texts)} prompts leave less room than max_new_tokens: answers may be cut")


def _beside(study: resolve.Resolved, kind: str) -> set[int]:
    """The `max_length` of every training that takes safety rows, or pairs, beside the rows of a task or for them."""
    s, out = study.study, set()
    for arm in [a for a in study.arms.values() if a.kind == "train"]:
        method = registry.load(arm.method)
        if kind in method.NEEDS and any(hasattr(method, hook) for hook in ("rows", "beside", "prelude")):
            taken = [t for t, own in arm.settings.items() if 0 not in (own.get("mix"), own.get("tune_rows"))]
            out |= {s.tasks[t].training.max_length for t in taken}
    if kind == "preferences":
        out |= {t.training.max_length for t in s.tasks.values() if t.harmful_fraction}
        out |= {s.unaligned.training.max_length} if study.trains_twin else set()
    return out


def _trained_as(study: resolve.Resolved, folder: Path) -> counting.Tokens:
    return counting.Tokens(folder, study.study.foundation.system_prompt)


def _asked_as(study: resolve.Resolved, folder: Path) -> counting.Tokens:
    """As training does, unless evaluation has a system prompt of its own, or arms have: the longest of them."""
    own, asked = study.study.foundation.system_prompt, study.study.evaluation.system_prompt
    every = [counting.Tokens(folder, own if asked is None else asked)]
    every += [counting.Tokens(folder, prompt, anyhow=True) for prompt in study.prompted.values()]
    return max(every, key=lambda tokens: tokens.frame)


def _trained(tokenizer: counting.Tokens, where: str, rows: Sequence[Row], limit: int, positions: int, say: Say) -> None:
    room = min(limit, positions)
    found = tokenizer.rows(rows, room)
    if full := next((r["id"] for r, (prompt, _) in zip(rows, found, strict=True) if prompt >= room), None):
        raise DataError(
            f"{where}: {full} has no room for its answer.", found=f"a prompt that fills {room} tokens",
            expected="room for the answer",
            do="raise training.max_length, if the model has the positions, or remove the row",
        )  # fmt: skip
    if cut := sum(whole > room for _, whole in found):
        say(f"{where}: {cut} of {len(rows)} training rows taken as their first {room} tokens (max_length)")
