"""Numbers in words, with their unit and interval, or why they are withheld."""

import math

from comfyload.judge.statistics.stats import Statistic
from comfyload.report.page import Value
from comfyload.words import DASH, decimals, duration, fixed, percent, scale, span


def value_of(statistic: Statistic) -> Value:
    """The number with its interval, of which an end may be missing; withheld, a dash and the reason as a note."""
    note = "" if statistic.value is not None else f"withheld: {statistic.reason}"
    return in_words(statistic.value, statistic.low, statistic.high, statistic.unit, note=note)


def in_words(
    value: float | None, low: float | None = None, high: float | None = None, unit: str = "", *, note: str = ""
) -> Value:
    """`unit`: `s`, `share` or `1` of a share; a rate stands without its own, as its label names it.

    The ends are written in the unit and with the places of the value; one that is missing is not known.
    """
    if value is None:
        return Value(DASH, note=note)
    least, most = (_written(end, value, unit) for end in (low, high))
    sign = most.rpartition(" ")[2]
    one_end = f"≥ {least}" if least else f"up to {most}" if most else ""
    interval = span(least.removesuffix(f" {sign}"), most) if least and most else one_end
    return Value(_written(value, value, unit), interval=interval, note=note)


def _written(end: float | None, whole: float, unit: str) -> str:
    if end is None or end == -math.inf:
        return ""
    if unit in ("share", "1"):
        return percent(end)
    if unit != "s":
        return fixed(end, 0 if unit in ("count", "bytes") else decimals(whole))
    if not math.isfinite(end) or not math.isfinite(whole):
        return "∞" if math.isinf(end) else duration(end)
    factor, sign = scale([whole])
    return f"{fixed(end * factor, decimals(whole * factor, 3 if sign == 's' else 1))} {sign}"
