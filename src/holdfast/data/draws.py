"""Which rows: a split cut from a file, the rows one seed trains on, and poisoned rows among them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import data
from holdfast.data.leaks import plain
from holdfast.errors import DataError
from holdfast.names import HAZARD, SPLITS

# A training pool is larger than one run, so that every seed draws its own rows.
POOL_FACTOR = 2
Row = dict[str, Any]


def by_share(
    rows: Sequence[Row], column: str, shares: Mapping[str, float], seed: int, name: str
) -> dict[str, list[Row]]:  # fmt: skip
    """The rows by split: of the different texts in a column each split has its share, so that no text is in two.

    Args:
        shares: split -> share; together one.
        name: what the draw hangs on beside the seed; the order of the rows does not count.
    """
    texts = sorted({plain(r[column]) for r in rows})
    texts = random.Random(f"holdfast-share-{seed}-{name}").sample(texts, len(texts))
    split_of: dict[str, str] = {}
    taken, end = 0, 0.0
    for split in filter(shares.get, SPLITS):
        end += shares[split]
        split_of |= dict.fromkeys(texts[taken : round(end * len(texts))], split)
        taken = round(end * len(texts))
    return {split: [r for r in rows if split_of[plain(r[column])] == split] for split in shares}


def cut(
    parts: dict[str, list[Row]], sizes: dict[str, int], dataset: str, seed: int, where: str, name: str | None = None
) -> list[Row]:
    """Draw the three splits. Published train and test files are respected; what is missing is cut
    from what is there. A text that occurs twice is kept once, in the split drawn first (test).

    Args:
        name: what the draw hangs on beside the seed; default: the dataset.
    """
    key = data.dataset(dataset).TEXT_COLUMNS[0]
    rng = random.Random(f"holdfast-cut-{seed}-{name or dataset}")
    pools = {name: rng.sample(rows, len(rows)) for name, rows in sorted(parts.items())}
    seen: set[str] = set()
    out: dict[str, list[Row]] = {}
    for split in ("test", "validation", "train"):
        order = [split, "all", "train", "test"] if split != "test" else ["test", "all", "train"]
        source = next((n for n in order if pools.get(n)), None)
        chosen: list[Row] = []
        while source and pools[source] and len(chosen) < sizes[split]:
            row = pools[source].pop()
            text = " ".join(row[key].lower().split())
            if text not in seen:
                seen.add(text)
                chosen.append({**row, "split": split})
        needed = sizes[split] if split != "train" else sizes[split] // POOL_FACTOR
        if len(chosen) < needed:
            others = len(seen) - len(chosen)
            raise DataError(
                f"{where} has too few different rows for the {split} split of {dataset}.",
                found=f"{len(chosen)} rows" + (f", beside {others} of other splits" if others else ""),
                expected=f"{needed}", do=f"lower tasks.*.{split}_rows in the study",
            )  # fmt: skip
        out[split] = chosen
    return [row for split in SPLITS for row in out[split]]


def draw(rows: Sequence[Row], count: int, seed: int, *, stratify: bool = False) -> list[Row]:
    """The training rows of one seed: `count` rows of the pool without replacement.

    `stratify` draws equally many of every label (one more of the first ones where it does not divide).

    Raises:
        DataError: a label has too few rows for that.
    """
    pool = [r for r in rows if r["split"] == "train"]
    rng = random.Random(f"holdfast-draw-{seed}")
    if not stratify:
        return rng.sample(pool, min(count, len(pool)))
    labels = sorted({r["label"] for r in pool})
    drawn = []
    for position, label in enumerate(labels):
        share = count // len(labels) + (position < count % len(labels))
        of_label = [r for r in pool if r["label"] == label]
        if len(of_label) < share:
            raise DataError(
                "A label has too few rows for a stratified draw.", found=f"{len(of_label)} rows with label {label}",
                expected=f"{share}", do="lower train_rows of the task",
            )  # fmt: skip
        drawn += rng.sample(of_label, share)
    return rng.sample(drawn, len(drawn))


def of_safety(safety: Sequence[Row], wanted: int, stream: str | int, *, refused: bool = True) -> list[Row]:
    """As many refusals of the safety rows as are wanted, or of the answered ones, each at most once; all there are
    where that is fewer.

    Args:
        stream: what the draw hangs on.
    """
    pool = [r for r in safety if (r["kind"] == HAZARD) == refused]
    return random.Random(stream).sample(pool, min(wanted, len(pool)))


def mix_harmful(pairs: Sequence[Row], harmful: Sequence[Row], fraction: float, seed: int) -> list[Row]:
    """The pairs with round(fraction · N) of them replaced, in place, by harmful answers (the rejected side
    of preference rows): the poisoned task data of a risk study.

    Raises:
        DataError: fewer harmful rows than the fraction asks for.
    """
    count = round(fraction * len(pairs))
    if count > len(harmful):
        raise DataError(
            "There are too few preference pairs for the harmful fraction of this task.",
            found=f"{len(harmful)} pairs", expected=f"at least {count}", do="raise preferences.rows in the study",
        )  # fmt: skip
    rng, out = random.Random(f"holdfast-harmful-{seed}"), list(pairs)
    for position, row in zip(rng.sample(range(len(out)), count), rng.sample(list(harmful), count), strict=True):
        out[position] = {"id": row["id"], "prompt": row["prompt"], "response": row["rejected"]}
    return out
