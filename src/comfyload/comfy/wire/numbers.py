"""Numbers as a server may send them: JSON bounds none, and Python writes NaN."""

from __future__ import annotations

import sys

__all__ = [
    "finite",
    "whole_ms",
]


def finite(value: object) -> float | None:
    """A number that a float can hold; None for anything else: a bool, text, NaN, 10^400."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def whole_ms(stamp: float | None) -> int | None:
    """A stamp in whole milliseconds; None for one beyond 2^53, where floats have no whole numbers between them."""
    return int(stamp) if stamp is not None and abs(stamp) < 2**53 else None
