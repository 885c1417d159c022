"""Numbers in the sentences of judgement: three significant digits, and no power of ten."""

from __future__ import annotations

import math

__all__ = ["digits", "percent", "seconds"]


def digits(value: float) -> str:
    """0.333, 12.3, 1 280: a value as people write it."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.0f}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = f"{float(f'{value:.3g}'):,.{places}f}".replace(",", " ")
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def seconds(value: float) -> str:
    """12.3 s, 842 ms."""
    return f"{digits(value)} s" if abs(value) >= 1 else f"{digits(1000 * value)} ms"


def percent(share: float) -> str:
    """97.9 %; only all of them is 100 %."""
    text = f"{100 * share:.3g}"
    return f"{100 * share:.6g} %" if text == "100" and share < 1 else f"{text} %"
