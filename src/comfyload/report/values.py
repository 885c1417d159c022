"""A statistic in words: the value, its interval, or why it is withheld."""

from __future__ import annotations

import math

from comfyload.judge.statistics.stats import Statistic
from comfyload.report.page import Value
from comfyload.words import DASH, decimals, duration, fixed, percent, scale, span


def value_of(statistic: Statistic) -> Value:
    """The number with its interval, of which an end may be missing; withheld, a dash and the reason as a note."""
    if statistic.value is None:
        return Value(words=DASH, note=f"withheld: {statistic.reason}")
    low, high = _write(statistic.low, statistic), _write(statistic.high, statistic)
    unit = high.rpartition(" ")[2]
    one_end = f"≥ {low}" if low else f"up to {high}" if high else ""
    interval = span(low.removesuffix(f" {unit}"), high) if low and high else one_end
    return Value(words=_write(statistic.value, statistic), interval=interval)


def _write(value: float | None, statistic: Statistic) -> str:
    """The number in the unit and with the places of the value that it belongs to."""
    if value is None or value == -math.inf:
        return ""
    whole = statistic.value or 0.0
    if statistic.unit == "1":
        return percent(value)
    if statistic.unit != "s":
        return fixed(value, decimals(whole))
    if not math.isfinite(value) or not math.isfinite(whole):
        return "∞" if math.isinf(value) else duration(value)
    factor, unit = scale([whole])
    return f"{fixed(value * factor, decimals(whole * factor, 3 if unit == 's' else 1))} {unit}"
