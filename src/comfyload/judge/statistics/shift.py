"""Whether the level of a series changed within it for good: at once, or little by little.

Two courses are fitted to the values by least squares: one step, at the place that suits best, and a straight line. The
better one stands for the change, which is proven by its error, for which as many values count as independent ones as
the autocorrelation of what is left tells. A wave that ends where it began, such as a day's, is no change for good.
How often that errs: `python -m tests.error_rates.shift`.
"""

import math

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.dependence import autocorrelation_time

BLOCKS = 64
"""The values are made so many means at most, of as many values each: what is fast is averaged, what is slow seen."""
FEWEST = 24
_ERRORS = 4.5
"""So many errors prove a change: of some hundred places the best was chosen, and the error is itself estimated."""
_SURELY = 1.0
_EDGE = 0.1
"""The share of the blocks at either end that holds no step, and by which the two ends are compared."""


class Shift(Struct, frozen=True, kw_only=True):
    """By how much the level changed in all, in the values' unit, with its standard error; `before`: the level from
    which it changed. `at`: the share of the values that lie before a step; None: it changed little by little.
    """

    change: float
    error: float
    before: float
    at: float | None


def block_means(x: Floats) -> Floats:
    """The values in order, as means of at most `BLOCKS` parts of equal size; the first few belong to none."""
    size = -(-len(x) // BLOCKS)
    return np.asarray(x[len(x) % size :].reshape(-1, size).mean(axis=1)) if size > 1 else x


def shift(blocks: Floats) -> Shift | None:
    """The change of the level, None if it may be none."""
    n = len(blocks)
    if n < FEWEST or np.ptp(blocks) == 0:
        return None
    found, left = min((_step(blocks), _line(blocks)), key=lambda pair: float(np.sum(pair[1] ** 2)))
    edge = max(2, round(_EDGE * n))
    apart = float(np.mean(blocks[-edge:]) - np.mean(blocks[:edge])) * math.copysign(1, found.change)
    for_good = apart - _SURELY * _deviation(left, 2) * math.sqrt(2 / edge) > abs(found.change) / 2
    return found if for_good and abs(found.change) > _ERRORS * found.error else None


def _step(y: Floats) -> tuple[Shift, Floats]:
    """The best step, and what it leaves of each value."""
    n, edge = len(y), max(2, round(_EDGE * len(y)))
    m = np.arange(edge, n - edge + 1)
    sums = np.cumsum(y)
    before, after = sums[m - 1] / m, (sums[-1] - sums[m - 1]) / (n - m)
    k = int(m[np.argmax((after - before) ** 2 * m * (n - m))])
    level, change = float(np.mean(y[:k])), float(np.mean(y[k:]) - np.mean(y[:k]))
    left = y - np.where(np.arange(n) < k, level, level + change)
    error = _deviation(left, 3) * math.sqrt(1 / k + 1 / (n - k))
    return Shift(change=change, error=error, before=level, at=k / n), left


def _line(y: Floats) -> tuple[Shift, Floats]:
    """The straight line, and what it leaves of each value."""
    n = len(y)
    t = np.arange(float(n)) - (n - 1) / 2
    squares = _sum(t)
    slope, middle = float(np.sum(t * y)) / squares, float(np.mean(y))
    left = y - middle - slope * t
    error = _deviation(left, 2) * (n - 1) / math.sqrt(squares)
    return Shift(change=slope * (n - 1), error=error, before=middle - slope * (n - 1) / 2, at=None), left


def _deviation(left: Floats, fitted: int) -> float:
    """Of one value, as if the mean of n independent ones erred as much as that of these."""
    n = len(left)
    tau = min(autocorrelation_time(left), n / 4)
    return math.sqrt(_sum(left) / max(1.0, n - fitted * tau) * tau)


def _sum(x: Floats) -> float:
    return float(np.sum(x * x))
