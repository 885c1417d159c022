"""How a metric went from baseline to baseline, and where its level changed.

Two points make a change sure; the last one alone is at most a possible one. The method and its errors are in
judge/comparison/levels.py and docs/why/trend.md.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.comparison.comparable import label
from comfyload.judge.comparison.levels import durations, levels, shares
from comfyload.judge.numbers import NUMBERS
from comfyload.judge.summary import Measured

DEFAULT = ("p50_execution_s", "p50_latency_s", "p95_latency_s", "images_per_minute", "success_rate")
"""Metrics of a trend, unless others are named: keys of `Summary.statistics`."""

Change = tuple[int, float | None]
"""The index of the first point of a level, and the factor from the level before; None: that was 0."""


class Point(Struct, frozen=True, kw_only=True):
    """A baseline's value with its interval; None: that side is not bounded. `n` counts jobs."""

    name: str
    utc: str
    value: float
    low: float | None
    high: float | None
    n: int


class LevelShift(Struct, frozen=True, kw_only=True):
    """The level changed before the point `at`, by the factor `ratio`; `verdict`: in which direction, in a word.

    `ratio` None: it was 0 before.
    """

    at: int
    ratio: float | None
    verdict: str


class TrendSeries(Struct, frozen=True, kw_only=True):
    """One metric of one kind of run through time. `load`: its workflows and load, in words.

    `steps` are confirmed by a second point. `possible`: the last point is far off, and none follows yet that would
    confirm it; None: it is not.
    """

    metric: str
    load: str
    unit: str
    points: list[Point]
    steps: list[LevelShift]
    possible: LevelShift | None = None


class LevelShifts(Struct, frozen=True, kw_only=True):
    """`steps` are confirmed by a second point; `possible` is the last point, if it is far off and none follows yet."""

    steps: list[Change]
    possible: Change | None


def history(entries: Sequence[tuple[str, str, Measured]], metrics: Sequence[str] = DEFAULT) -> list[TrendSeries]:
    """Series by workflows and load, from (baseline's name, UTC in ISO 8601, run); what is withheld is left out.

    An invalid run is left out.
    """
    kinds: dict[str, list[tuple[str, str, Measured]]] = {}
    for entry in sorted(entries, key=lambda entry: entry[1]):
        if entry[2].summary.valid:
            kinds.setdefault(label(entry[2].manifest), []).append(entry)
    every = [_series(metric, load, kind) for load, kind in kinds.items() for metric in metrics]
    return [series for series in every if series.points]


def changes(value: Floats, low: Floats, high: Floats, n: Floats | None = None) -> LevelShifts:
    """Where the level of a series changed. A bound that is not there is 0 below, infinite above, or NaN.

    `n`: the values are shares of so many jobs, which tell how sure they are.
    """
    members, far_off = levels(durations(value, low, high) if n is None else shares(value, n))
    lone = members[-1].pop() if far_off else None
    middles = [float(np.exp(np.mean(np.log(value[at])))) if n is None else float(np.mean(value[at])) for at in members]
    pairs = zip(members[1:], middles, middles[1:], strict=False)
    return LevelShifts(
        steps=[(level[0], _factor(before, after)) for level, before, after in pairs],
        possible=None if lone is None else (lone, _factor(middles[-1], float(value[lone]))),
    )


def _factor(before: float, after: float) -> float | None:
    return after / before if before > 0 else None


def _series(metric: str, load: str, entries: Sequence[tuple[str, str, Measured]]) -> TrendSeries:
    points, unit = [], ""
    for name, utc, run in entries:
        statistic = run.summary.statistics.get(metric)
        if statistic is not None and statistic.value is not None and math.isfinite(statistic.value):
            low, high, unit = statistic.low, statistic.high, statistic.unit
            points.append(Point(name=name, utc=utc, value=statistic.value, low=low, high=high, n=statistic.n))
    value = np.array([point.value for point in points])
    lows, highs = (np.array([getattr(point, end) for point in points], np.float64) for end in ("low", "high"))
    found = changes(value, lows, highs, np.array([float(point.n) for point in points]) if unit == "1" else None)
    return TrendSeries(
        metric=metric,
        load=load,
        unit=unit,
        points=points,
        steps=[_step(metric, change) for change in found.steps],
        possible=None if found.possible is None else _step(metric, found.possible),
    )


def _step(metric: str, change: Change) -> LevelShift:
    (at, ratio), number = change, NUMBERS[metric]
    words = (
        ("slower", "faster") if number.measure == "s" else ("faster", "slower") if number.rate else ("higher", "lower")
    )
    return LevelShift(at=at, ratio=ratio, verdict=words[0] if ratio is None or ratio > 1 else words[1])
