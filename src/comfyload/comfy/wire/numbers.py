"""Numbers as a server may send them: JSON bounds none, and Python writes NaN."""

from __future__ import annotations

import sys

__all__ = [
    "finite",
    "whole_ms",
]


def finite(value: object) -> float | None:
    """A number that JSON can hold; None for anything else: truth, text, NaN, and what no float of ours holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def whole_ms(stamp: float | None) -> int | None:
    """A stamp as it is kept; None of one that no whole number of ours holds."""
    return int(stamp) if stamp is not None and abs(stamp) < 2**53 else None
