"""What tests of means need: the noise between runs, Student's distribution, and a correction for several tests."""

import math
from collections.abc import Sequence

from scipy import special

BETWEEN_RUNS_SD = 0.04
"""Standard deviation of the logarithm of a run's value between runs of the same thing on one server, assumed where
nobody has measured it: the upper end of the 2 to 4 % by which clocks, temperature and caches move whole runs.
"""

NORMAL_975 = float(special.ndtri(0.975))
"""Deviations to either end of an interval of 95 %."""


def geometric_mean(values: Sequence[float]) -> float:
    """Of one value, that value to its last digit."""
    return values[0] if len(values) == 1 else math.exp(math.fsum(map(math.log, values)) / len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as large as Holm's (1979) step-down procedure makes it, in the same order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def student(q: float, freedom: float) -> float:
    """The q-quantile of Student's t; of the normal distribution where `freedom` is infinite."""
    return float(special.ndtri(q) if math.isinf(freedom) else special.stdtrit(freedom, q))


def tail(x: float, sd: float, freedom: float) -> float:
    """Chance of as much or more, if it is nothing but noise of that deviation."""
    if sd <= 0:
        return 0.0 if x > 0 else 1.0
    return float(special.ndtr(-x / sd) if math.isinf(freedom) else special.stdtr(freedom, -x / sd))
