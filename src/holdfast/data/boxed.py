r"""Final answers of competition mathematics: what stands in \boxed{...}, in one notation.

Two notations of one answer are the same text here: blanks, dollar signs, \left and \right, \dfrac and \tfrac, braces
that hold one character, \text{...} and units behind a number, 1/2 and \frac{1}{2}, .50 and 0.5, 1,000 and 1000, x = 5
and 5. Nothing is computed: 0.5 is not 1/2, and no algebra is done.
"""

from __future__ import annotations

import re

_OPEN = re.compile(r"\\(?:boxed|fbox)\s*")
_GONE = re.compile(r"\\left\b|\\right\b|\\[,;:]|\\ |\\displaystyle\b|[$\s~]|\^\{?\\circ\}?|\\%|%$")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")  # of a number alone: (1,000) is a pair
_TINY_BRACES = re.compile(r"(?<=[\^_])\{([A-Za-z0-9])\}")


def inside(text: str) -> str | None:
    r"""What stands in the last \boxed{...} of a text, with the braces that it has; None where there is none.

    >>> inside(r"So \boxed{1}, no: \boxed{\frac{1}{2}}."), inside(r"\boxed 5$"), inside("5")
    ('\\frac{1}{2}', '5', None)
    """
    found = list(_OPEN.finditer(text))
    if not found:
        return None
    rest = text[found[-1].end() :]
    if not rest.startswith("{"):
        return re.split(r"[$\s]", rest, maxsplit=1)[0].rstrip(".,") or None
    depth = 0
    for i, sign in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0:
            return rest[1:i]
    return None  # it never closes


def plain(answer: str) -> str:
    r"""An answer in one notation.

    >>> plain(r"$\dfrac12$") == plain("1/2") == plain(r"x = \frac{1}{2}.") == r"\frac{1}{2}"
    True
    >>> plain(r"1{,}000\text{ miles}"), plain(r"\text{Tuesday}"), plain(".50"), plain(r"90^\circ"), plain("5.0")
    ('1000', 'Tuesday', '0.5', '90', '5')
    """
    said = answer.strip().rstrip(".").replace("{,}", ",").replace("\\!", "")
    said = said.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\$", "").strip("$ ")
    said = re.sub(r"(?<=\d)\s*\\(?:text|textbf|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?$", "", said)  # a unit
    said = said.replace(",", "") if _THOUSANDS.fullmatch(said) else said
    said = _GONE.sub("", _WORDS.sub(r"\1", said))
    said = re.sub(r"^[A-Za-z]=", "", said)
    said = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", said)
    said = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", said)
    said = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", said)
    said = _TINY_BRACES.sub(r"\1", said)
    said = re.sub(r"(?<![\d.])\.(?=\d)", "0.", said)
    return re.sub(r"(\.\d*?)0+(?!\d)", lambda m: m[1] if len(m[1]) > 1 else "", said)
