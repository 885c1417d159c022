"""The few numbers of a run that are looked at first, each with its interval and what it rests on."""

from __future__ import annotations

import math

from msgspec import Struct

from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.report.page import Value
from comfyload.words import DASH, decimals, duration, fixed, percent, scale, span

__all__ = ["Number", "headline", "number", "value_of"]

_SHOWN = (
    ("Success rate", "success_rate"),
    ("Median latency", "p50_latency_s"),
    ("p95 latency", "p95_latency_s"),
    ("Mean latency", "avg_latency_s"),
    ("Images per minute", "images_per_minute"),
    ("Jobs per minute", "jobs_per_minute"),
)


class Number(Struct, frozen=True, kw_only=True):
    """A statistic in words. `why` says why it is withheld, or has no interval; `interval` may be ""."""

    label: str
    value: str
    interval: str
    n: int
    why: str

    @property
    def detail(self) -> str:
        """The interval and n, printed behind or under the value."""
        parts = [f"95 %: {self.interval}" if self.interval else "", f"n = {self.n}" if self.n else ""]
        return ", ".join(part for part in parts if part)


def headline(measured: Measured) -> list[Number]:
    """Success, latency and throughput."""
    return [number(label, measured.summary.statistics[key]) for label, key in _SHOWN]


def number(label: str, statistic: Statistic) -> Number:
    """The statistic as it is written everywhere."""
    value, n = value_of(statistic), statistic.n
    # In a table of several runs the label is that of all.
    of = " (previews)" if statistic.unit.startswith("previews") and statistic.value is not None else ""
    why = value.note or statistic.reason
    return Number(label=label, value=f"{value.words}{of}", interval=value.interval, n=n, why=why)


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
