"""How is arithmetic done on finished models?

    merge.safe_lora("chat", "support", "realigned", base="base", threshold=0.35)

The functions merge one finished model without a study, from folders (in one file, in shards, or a PEFT adapter on
`aligned`) to a folder, and return the record that they also write there; settings are those of the method
(docs/methods.md). The same as `holdfast realign`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Folder = Path | str
Record = dict[str, Any]


def _merged(
    method: str, out: Folder, settings: dict[str, Any], *, refusals: Folder | None = None, pairs: Folder | None = None,
    **models: Folder | None,
) -> Record:  # fmt: skip
    from holdfast.merge import single

    return single.realign(
        method, {role: Path(f) for role, f in models.items() if f is not None}, Path(out), settings=settings,
        refusals=Path(refusals) if refusals else None, pairs=Path(pairs) if pairs else None,
    )  # fmt: skip


def resta(
    aligned: Folder, finetuned: Folder, out: Folder, *, unaligned: Folder | None = None, base: Folder | None = None,
    **settings: Any,
) -> Record:  # fmt: skip
    """RESTA: finetuned + γ (aligned − unaligned), or γ (aligned − base) with `vector="base"`."""
    return _merged("resta", out, settings, aligned=aligned, finetuned=finetuned, unaligned=unaligned, base=base)


def resta_dare(
    aligned: Folder, finetuned: Folder, out: Folder, *, unaligned: Folder | None = None, base: Folder | None = None,
    **settings: Any,
) -> Record:  # fmt: skip
    """RESTA on an update of which DARE drops a share."""
    return _merged("resta-dare", out, settings, aligned=aligned, finetuned=finetuned, unaligned=unaligned, base=base)


def soup(aligned: Folder, finetuned: Folder, out: Folder, **settings: Any) -> Record:
    """Model soup: weight · aligned + (1 − weight) · finetuned."""
    return _merged("soup", out, settings, aligned=aligned, finetuned=finetuned)


def task_vectors(aligned: Folder, finetuned: Folder, out: Folder, *, base: Folder, **settings: Any) -> Record:
    """Task arithmetic, TIES or DARE of the vectors of safety training and of the task, on the base."""
    return _merged("task-vectors", out, settings, aligned=aligned, finetuned=finetuned, base=base)


def safe_lora(aligned: Folder, finetuned: Folder, out: Folder, *, base: Folder, **settings: Any) -> Record:
    """Safe LoRA: updates that stray are projected on W_aligned − W_base; of an adapter an adapter comes back."""
    return _merged("safe-lora", out, settings, aligned=aligned, finetuned=finetuned, base=base)


def safe_delta(aligned: Folder, finetuned: Folder, out: Folder, *, refusals: Folder, **settings: Any) -> Record:
    """Safe Delta: entries of the update that cost little on refusals (a file with prompt and response), compensated."""
    return _merged("safe-delta", out, settings, aligned=aligned, finetuned=finetuned, refusals=refusals)


def lssf(
    aligned: Folder, finetuned: Folder, out: Folder, *, unaligned: Folder | None = None, base: Folder | None = None,
    refusals: Folder | None = None, **settings: Any,
) -> Record:  # fmt: skip
    """LSSF: the safety vector, projected on a subspace of what modules write on refusals, or with
    `subspace="vector"` on its own leading directions."""
    return _merged(
        "lssf", out, settings, aligned=aligned, finetuned=finetuned, unaligned=unaligned, base=base, refusals=refusals
    )


def nlsr(
    aligned: Folder, finetuned: Folder, out: Folder, *, refusals: Folder, base: Folder | None = None,
    unaligned: Folder | None = None, **settings: Any,
) -> Record:  # fmt: skip
    """NLSR: critical entries of modules that strayed, put back from an amplified reference; whole updates."""
    return _merged(
        "nlsr", out, settings, aligned=aligned, finetuned=finetuned, base=base, unaligned=unaligned, refusals=refusals
    )


def ptst(aligned: Folder, finetuned: Folder, out: Folder, **settings: Any) -> Record:
    """PTST: the fine-tuned model with a template that begins every conversation with `system_prompt`."""
    return _merged("ptst", out, settings, aligned=aligned, finetuned=finetuned)


def somf(aligned: Folder, finetuned: Folder, out: Folder, *, pairs: Folder, **settings: Any) -> Record:
    """SOMF: a mask over the update that is learned on preference pairs (a file with prompt, chosen, rejected)."""
    return _merged("somf", out, settings, aligned=aligned, finetuned=finetuned, pairs=pairs)
