"""Knows how a metric went from baseline to baseline, and where its level changed.

A point is set against the median of all since the last step. It is a step if it is off by more than 5 %, by more than
three deviations of such a difference, and if the intervals do not overlap. What points deviate by is taken from those
since the last step, robustly and if there are four, but as 2 % at least. By simulation of 20 points, at a constant
level with 2 % of noise: 1 series in 200 has a step that is none where the intervals are as wide as that noise, 4 in 100
where they do not show it, and a step of 15 % is found in 99 of 100. Noise of 4 % that the intervals do not show makes
false steps in most series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.comparison.comparable import label
from comfyload.judge.summary import Measured

__all__ = ["DEFAULT", "Point", "Series", "Step", "history", "steps"]

Floats = NDArray[np.float64]

DEFAULT = ("p50_execution_s", "p50_latency_s", "p95_latency_s", "images_per_minute", "success_rate")
"""Metrics of a trend, unless others are asked for: keys of `Summary.statistics`."""

_LEAST, _DEVIATIONS, _FLOOR, _ENOUGH = 0.05, 3.0, 0.02, 4
_RATES = ("images_per_minute", "jobs_per_minute", "books_per_hour")


class Point(Struct, frozen=True, kw_only=True):
    """A baseline's value with its interval; None: that side is not bounded. `n` counts jobs."""

    name: str
    utc: str
    value: float
    low: float | None
    high: float | None
    n: int


class Step(Struct, frozen=True, kw_only=True):
    """The level changed before the point `at`, by the factor `ratio`; `verdict`: in which direction, in a word."""

    at: int
    ratio: float
    verdict: str


class Series(Struct, frozen=True, kw_only=True):
    """One metric of one kind of run through time. `load`: its workflows and load, in words."""

    metric: str
    load: str
    unit: str
    points: list[Point]
    steps: list[Step]


def history(entries: Sequence[tuple[str, str, Measured]], metrics: Sequence[str] = DEFAULT) -> list[Series]:
    """Series by workflows and load, from (baseline's name, UTC in ISO 8601, run); what is withheld is left out.

    A run that is not valid is no point of a series.
    """
    kinds: dict[str, list[tuple[str, str, Measured]]] = {}
    for entry in sorted(entries, key=lambda entry: entry[1]):
        if entry[2].summary.valid:
            kinds.setdefault(label(entry[2].manifest), []).append(entry)
    every = [_series(metric, load, kind) for load, kind in kinds.items() for metric in metrics]
    return [series for series in every if series.points]


def steps(value: Floats, low: Floats, high: Floats) -> list[tuple[int, float]]:
    """Where the level changed, and by which factor. Bounds are infinite, or 0 below, where there is none."""
    found: list[tuple[int, float]] = []
    logs = np.log(np.where(value > 0, value, np.nan))
    start = 0
    for at in range(1, len(value)):
        since = logs[start:at][~np.isnan(logs[start:at])]
        if not len(since) or math.isnan(logs[at]):  # 0, of which nothing is a multiple
            continue
        k, level = len(since), float(np.median(since))
        shift = float(logs[at]) - level
        sd = max(_FLOOR, _deviation(since) if k >= _ENOUGH else 0.0)
        # A median of k strays by the root of pi / 2k of what one point does.
        limit = max(_LEAST, _DEVIATIONS * sd * math.sqrt(1 + (math.pi / (2 * k) if k > 1 else 1.0)))
        apart = low[at] > np.median(high[start:at]) or high[at] < np.median(low[start:at])
        if abs(shift) > limit and apart:
            found.append((at, math.exp(shift)))
            start = at
    return found


def _deviation(x: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(x - np.median(x))))


def _series(metric: str, load: str, entries: Sequence[tuple[str, str, Measured]]) -> Series:
    known = [(name, utc, run.summary.statistics.get(metric)) for name, utc, run in entries]
    points, unit = [], ""
    for name, utc, statistic in known:
        if statistic is not None and statistic.value is not None and math.isfinite(statistic.value):
            low, high, unit = statistic.low, statistic.high, statistic.unit
            points.append(Point(name=name, utc=utc, value=statistic.value, low=low, high=high, n=statistic.n))
    value = np.array([point.value for point in points])
    low_ = np.array([0.0 if point.low is None else point.low for point in points])
    high_ = np.array([math.inf if point.high is None else point.high for point in points])
    found = [Step(at=at, ratio=ratio, verdict=_word(metric, ratio)) for at, ratio in steps(value, low_, high_)]
    return Series(metric=metric, load=load, unit=unit, points=points, steps=found)


def _word(metric: str, ratio: float) -> str:
    if metric.endswith("_s"):
        return "slower" if ratio > 1 else "faster"
    if metric in _RATES:
        return "faster" if ratio > 1 else "slower"
    return "higher" if ratio > 1 else "lower"
