"""How is a time told to people?"""

from __future__ import annotations


def passed(seconds: float) -> str:
    """A time that has passed, to the second.

    >>> passed(7.6), passed(252), passed(5400)
    ('7 s', '4 min 12 s', '1 h 30 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def rounded(seconds: float) -> str:
    """A time that is compared with others, with two or three digits.

    >>> rounded(0.2), rounded(42.4), rounded(600), rounded(7260), rounded(400_000)
    ('< 1 s', '42 s', '10 min', '2 h 01 min', '111 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 or not seconds else "< 1 s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 48 * 60 else f"{minutes / 60:.0f} h"


def coarse(seconds: float) -> str:
    """A time to come, no finer than it is known.

    >>> coarse(20), coarse(200), coarse(4000), coarse(6900)
    ('1 min', '4 min', '1 h 10 min', '2 h 0 min')
    """
    minutes = max(1, -(-int(seconds) // 60))
    if minutes < 60:
        return f"{minutes} min"
    minutes = -(-minutes // 10) * 10
    return f"{minutes // 60} h {minutes % 60} min"
