"""Where the level of a series of numbers changed, and which points belong to which level.

Points come one after the other. Those of the present level are split at each place that leaves two or more after it,
and Student's t is taken of the two sides. A split is a change of level if its p is below 0.0005, if the sides are apart
by more than is of interest, and if the first two points after it lie nearer to the new level than to the old one. What
points deviate by is taken from all of them about their side's mean, together with a prior that counts as six points of
4 %, the noise between runs that the whole tool assumes (scaled inverse chi-squared: Gelman et al. 2013, Bayesian Data
Analysis, 2.6), and is never less than what the intervals of that side's points, or of all, tell. A point far off that
the next one does not confirm belongs to no level. How often that errs: docs/why/trend.md,
`python -m tests.error_rates.trend`.
"""

import math

import numpy as np
from msgspec import Struct
from scipy import special

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.statistics.significance import BETWEEN_RUNS_SD, NORMAL_975

_LEVEL, _LEVEL_LONE = 0.0005, 0.01
"""Of one look at one split, of which a series has some hundred; and of the last point alone, which needs no proof."""

_PRIOR_POINTS = 6
_SPREAD_NEEDS = 4
"""Points before a change that tell how far they stray where no interval does."""


class Trace(Struct, frozen=True, kw_only=True):
    """Points on a scale on which their noise is alike: logarithms, or arcsines of roots for shares.

    `own`: each point's deviation by its own interval; NaN: it has none. `x` NaN: a point that has no such scale.
    `least`: the difference of values that is of interest, of shares in themselves, else in logarithms.
    """

    x: Floats
    own: Floats
    share: bool = False
    least: float = math.log(1.05)

    def apart(self, before: Floats, after: Floats) -> Flags:
        """Whether levels differ by more than is of no interest."""
        one, two = (np.sin(side) ** 2 if self.share else side for side in (before, after))
        return np.asarray(np.abs(two - one) > self.least)


_Splits = tuple[Floats, Floats, Floats]
"""Means before and after each place of a sample, and the p of their difference."""


def durations(value: Floats, low: Floats, high: Floats) -> Trace:
    """Of durations and rates with intervals of 95 %; a bound that is not there is 0, or infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        x, below, above = (np.log(np.where(part > 0, part, np.nan)) for part in (value, low, high))
        down, up = x - below, np.where(np.isinf(above), np.nan, above) - x
    # An interval that is open on one side is taken to be as wide there as on the other. Both by squares, since a median
    # between two kinds of jobs is at one of them now and at the other next time: near one end, far from the other.
    both = np.hypot(np.where(np.isnan(down), up, down), np.where(np.isnan(up), down, up)) / math.sqrt(2)
    return Trace(x=x, own=both / NORMAL_975)


def shares(value: Floats, n: Floats) -> Trace:
    """Of shares of `n` jobs each: Anscombe's (1948) transformation, whose deviation hardly depends on the share."""
    x = np.arcsin(np.sqrt((n * value + 3 / 8) / (n + 3 / 4)))
    return Trace(x=x, own=1 / (2 * np.sqrt(n + 0.5)), share=True, least=0.01)


def levels(trace: Trace) -> tuple[list[list[int]], bool]:
    """Indices of the points of each level in turn, and whether the last point is far off and none has followed it yet.
    Points whose `x` is NaN are in no level.
    """
    known = [int(place) for place in np.flatnonzero(~np.isnan(trace.x))]
    done: list[list[int]] = []
    now: list[int] = []
    lone = False
    for place in known:
        now.append(place)
        splits = _splits(trace.x[now], trace.own[now])
        at = _change(trace, trace.x[now], splits)
        if at is not None:
            done.append(now[:at])
            now, lone = now[at:], False
            continue
        if lone and _came_back(trace.x[now]):
            del now[-2]
            splits = _splits(trace.x[now], trace.own[now])
        lone = _far_off(trace, splits)
    return [*done, now] if now else done, lone


def _change(trace: Trace, x: Floats, splits: _Splits) -> int | None:
    """Which of the points begins a level of its own, if one does."""
    before, after, p = (each[:-1] for each in splits)  # two points are left after each
    up, half = np.sign(after - before), np.abs(after - before) / 2
    confirmed = ((x[1:-1] - before) * up >= half) & ((x[2:] - before) * up >= half)
    proven = confirmed & (p < _LEVEL) & trace.apart(before, after)
    return int(np.argmin(np.where(proven, p, np.inf))) + 1 if proven.any() else None


def _far_off(trace: Trace, splits: _Splits) -> bool:
    """Whether the last point may be the first of another level."""
    before, after, p = (each[-1:] for each in splits)
    return bool(np.any((p < _LEVEL_LONE) & trace.apart(before, after)))


def _came_back(x: Floats) -> bool:
    """Whether the last point lies nearer to the level than to the point before it, which was far off."""
    level = float(np.mean(x[:-2]))
    off = float(x[-2]) - level
    return (float(x[-1]) - level) * math.copysign(1, off) < abs(off) / 2


def _splits(x: Floats, own: Floats) -> _Splits:
    """Student's t of all that is before each place against all from there on, the second point first."""
    n = len(x)
    m = np.arange(1, n)
    centre = float(np.mean(x))
    sums = np.cumsum(x - centre)[:-1]
    before, after = sums / m, -sums / (n - m)
    squares = np.maximum(float(np.sum((x - centre) ** 2)) - m * before**2 - (n - m) * after**2, 0.0)
    freedom = _PRIOR_POINTS + n - 2
    variance = (_PRIOR_POINTS * BETWEEN_RUNS_SD**2 + squares) / freedom
    total = np.cumsum(np.nan_to_num(own) ** 2)
    least = np.maximum(variance, total[-1] / n)
    sides = np.maximum(least, total[:-1] / m), np.maximum(least, (total[-1] - total[:-1]) / (n - m))
    error = np.sqrt(sides[0] / m + sides[1] / (n - m))
    p = 2 * special.stdtr(freedom, -np.abs(after - before) / error)
    if np.isnan(own).any():
        p = np.where(m < _SPREAD_NEEDS, 1.0, p)
    return before + centre, after + centre, p
