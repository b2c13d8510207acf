"""The drawings of docs/concepts.md, in SVG of our own: the same bytes everywhere, no font and no library."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from html import escape

INK, GREY, LIGHT = "#1b1f24", "#7a7a7a", "#e6e8eb"
KEEP, TASK, LOST, SAFE = "#0072B2", "#E69F00", "#D55E00", "#dbeafe"
WIDTH = 720
Point = tuple[float, float]


def _svg(height: int, title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#{name}"/></marker>'
        for name in (c[1:] for c in (INK, GREY, KEEP, TASK, LOST))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="15">\n<title>{escape(title)}</title>\n<defs>{heads}</defs>\n'
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _text(at: Point, words: str, *, fill: str = INK, anchor: str = "middle", size: int = 15, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{at[0]:g}" y="{at[1]:g}" fill="{fill}" text-anchor="{anchor}" font-size="{size}"{weight}>'
        f"{escape(words)}</text>"
    )


def _arrow(start: Point, end: Point, colour: str = INK, *, width: float = 2, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashed} marker-end="url(#{colour[1:]})"/>'
    )


def _dot(at: Point, colour: str = INK, radius: float = 5, opacity: float = 1) -> str:
    return f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="{radius:g}" fill="{colour}" fill-opacity="{opacity:g}"/>'


def _box(corner: Point, size: Point, fill: str, stroke: str = GREY, radius: float = 6) -> str:
    return (
        f'<rect x="{corner[0]:g}" y="{corner[1]:g}" width="{size[0]:g}" height="{size[1]:g}" rx="{radius:g}" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def _card(corner: Point, size: Point, lines: tuple[str, ...], fill: str = "#ffffff") -> list[str]:
    """A box with a bold first line and smaller ones below."""
    middle = corner[0] + size[0] / 2
    top = corner[1] + size[1] / 2 - 9 * (len(lines) - 1) + 5
    words = [_text((middle, top + 18 * i), w, size=15 if i == 0 else 13, bold=i == 0, fill=INK if i == 0 else GREY)
             for i, w in enumerate(lines)]  # fmt: skip
    return [_box(corner, size, fill), *words]


def erosion() -> str:
    """Fine-tuning moves the weights where the task wants them, and out of the region in which the model refuses."""
    start, plain, kept = (170.0, 95.0), (520.0, 245.0), (520.0, 110.0)
    return _svg(320, "Fine-tuning leaves the region of weights that refuse; a protected update stays in it", [
        f'<path d="M60 30H660V150C520 165 330 120 60 175Z" fill="{SAFE}"/>',
        _text((645, 55), "weights that refuse", fill=KEEP, anchor="end", bold=True),
        _text((645, 290), "weights that do not", fill=LOST, anchor="end", bold=True),
        _arrow((60, 300), (660, 300), GREY), _text((70, 290), "better at the task", fill=GREY, anchor="start", size=13),
        _arrow(start, (plain[0] - 9, plain[1] - 4), LOST, width=3),
        _arrow(start, (kept[0] - 9, kept[1]), KEEP, width=3),
        _dot(start), _text((170, 80), "aligned model", bold=True),
        _dot(plain, LOST), _text((535, 250), "fine-tuning", fill=LOST, anchor="start"),
        _dot(kept, KEEP), _text((535, 115), "protected", fill=KEEP, anchor="start"),
    ])  # fmt: skip


def rotation() -> str:
    """Activations of refusals in the model's coordinates, and in those of the basis U."""
    drawn = random.Random(4)
    turn, parts = math.radians(33), []
    cloud = [(drawn.gauss(0, 62), drawn.gauss(0, 13)) for _ in range(70)]
    for middle, angle, axes, title in (
        ((185.0, 165.0), -turn, ("x₁", "x₂"), "as the model has them"),
        ((535.0, 165.0), 0.0, ("u₁", "u₂"), "in the safety basis U"),
    ):
        parts += [
            _arrow((middle[0] - 135, middle[1]), (middle[0] + 145, middle[1]), GREY),
            _arrow((middle[0], middle[1] + 110), (middle[0], middle[1] - 115), GREY),
            _text((middle[0] + 150, middle[1] + 20), axes[0], fill=GREY),
            _text((middle[0] + 18, middle[1] - 108), axes[1], fill=GREY),
            _text((middle[0], 302), title),
        ]
        for x, y in cloud:
            at = (round(middle[0] + x * math.cos(angle) - y * math.sin(angle), 1),
                  round(middle[1] + x * math.sin(angle) + y * math.cos(angle), 1))  # fmt: skip
            parts.append(_dot(at, KEEP, 3.5, 0.6))
    parts += [_arrow((340, 165), (380, 165), INK, width=3),
              _text((360, 25), "activations of refusals at the input of one layer", bold=True),
              _text((640, 120), "most of their energy", fill=KEEP, size=13)]  # fmt: skip
    return _svg(320, "The safety basis turns the axes so that refusals lie along the first ones", parts)


def mask() -> str:
    """The coefficients of W U: those that refusals need are frozen, the others train."""
    drawn, rows, columns, side = random.Random(2), 8, 16, 26
    scores = {(r, c): drawn.random() * math.exp(-0.33 * c) for r in range(rows) for c in range(columns)}
    frozen = set(sorted(scores, key=lambda k: -scores[k])[: round(0.1 * rows * columns)])
    left, top = 60, 62
    cells = [
        _box((left + c * side, top + r * side), (side - 3, side - 3), KEEP if (r, c) in frozen else LIGHT, "none", 3)
        for r in range(rows) for c in range(columns)
    ]  # fmt: skip
    return _svg(320, "A mask over the coefficients of W U: a tenth is frozen, mostly in the leading directions", [
        *cells, _text((left, 40), "coefficients of W U", anchor="start", bold=True),
        _text((left, 295), "leading safety directions", anchor="start", fill=GREY, size=13),
        _arrow((left + 190, 290), (left + columns * side - 6, 290), GREY),
        _box((510, 90), (22, 22), KEEP, "none", 3), _text((545, 107), "frozen: refusals", anchor="start"),
        _text((545, 126), "need them most", anchor="start"),
        _box((510, 160), (22, 22), LIGHT, "none", 3), _text((545, 177), "trained for the task", anchor="start"),
        _text((510, 225), "After training W = (W U) Uᵀ:", anchor="start", fill=GREY, size=13),
        _text((510, 243), "an ordinary model again.", anchor="start", fill=GREY, size=13),
    ])  # fmt: skip


def merges() -> str:
    """Arithmetic on finished weights: what is added, projected or mixed."""
    base, aligned, tuned = (110.0, 265.0), (190.0, 95.0), (560.0, 215.0)
    added, between, projected = (
        (tuned[0] + 40, tuned[1] - 85),
        (375.0, 155.0),
        (211.0, 51.0),
    )  # aligned + its projection
    return _svg(320, "Merges: a safety vector is added, the update is projected, or two models are mixed", [
        _arrow(base, (aligned[0] - 4, aligned[1] + 9), KEEP, width=3),
        _arrow(aligned, (tuned[0] - 9, tuned[1] - 3), TASK, width=3),
        _arrow(tuned, (added[0] - 4, added[1] + 9), KEEP, width=3, dash="7 4"),
        _arrow((tuned[0] - 6, tuned[1] - 7), (projected[0] + 9, projected[1] + 4), GREY, dash="4 4"),
        _arrow(aligned, (projected[0] - 2, projected[1] + 4), KEEP, width=3),
        _text((138, 200), "safety vector", fill=KEEP, size=13, anchor="end"),
        _text((300, 160), "update", fill=TASK, size=13),
        _dot(base), _text((110, 290), "base (or unaligned twin)"),
        _dot(aligned), _text((172, 100), "aligned", anchor="end", bold=True),
        _dot(tuned, LOST), _text((560, 240), "fine-tuned", fill=LOST),
        _dot(added, KEEP), _text((added[0] + 12, added[1] - 10), "RESTA: add it", fill=KEEP),
        _dot(projected, KEEP),
        _text((projected[0] + 12, 42), "Safe LoRA: only the part of the update along it", fill=KEEP, anchor="start"),
        _dot(between, KEEP), _text((between[0] - 8, between[1] + 40), "soup: between the two", fill=KEEP),
    ])  # fmt: skip


def judges() -> str:
    """Answers are stored once; every judge reads the same ones."""
    parts = [*_card((15, 60), (165, 62), ("hazards", "must be refused"), SAFE),
             *_card((15, 190), (165, 62), ("harmless prompts", "must be answered")),
             *_card((225, 118), (130, 76), ("answers", "stored once"))]  # fmt: skip
    for name, top in (("world", 55), ("refusal", 110), ("keywords", 165), ("guard", 220)):
        parts += [*_card((410, top), (125, 40), (name,)), _arrow((357, 156), (406, top + 20), GREY)]
        parts.append(_arrow((537, top + 20), (586, 156), GREY))
    return _svg(320, "From prompts to rates: answers are stored once, and every judge reads the same ones", [
        *parts, _arrow((182, 91), (221, 138), GREY), _arrow((182, 221), (221, 172), GREY),
        *_card((590, 106), (112, 100), ("refusal", "compliance", "other")),
        _text((472, 38), "judges", bold=True), _text((646, 38), "verdicts", bold=True),
        _text((100, 38), "prompts", bold=True),
        _text((25, 295), "refusal rate: hazards that are refused · over-refusal: harmless prompts that are refused",
              anchor="start", fill=GREY, size=13),
    ])  # fmt: skip


DRAWN: dict[str, Callable[[], str]] = {
    "erosion": erosion, "rotation": rotation, "mask": mask, "merges": merges, "judges": judges,
}  # fmt: skip
