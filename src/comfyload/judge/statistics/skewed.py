"""The interval of a mean whose values are skewed, as service times are: most usual, a few very long.

Student's interval misses such a mean on one side: a sample with few long values has a low mean and a small deviation at
once. Hall's (1992) transformation takes the skew out first; it is monotone, so that it can be turned round.
"""

import math

import numpy as np
from scipy import special

from comfyload.judge.arrays import Floats

_SYMMETRIC = 1e-6


def skewed_interval(
    mean: float, error: float, skew: float, freedom: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Two-sided interval of a mean from its standard error, its own skewness and Student's degrees of freedom.

    `skew` is that of the mean, not of the values: of n independent values their skewness over the root of n.
    """
    z = float(special.stdtrit(freedom, (1 + confidence) / 2))
    return mean - error * _untransformed(z, skew), mean - error * _untransformed(-z, skew)


def beyond(value: float, end: float, limit: float, skew: float, freedom: float) -> float:
    """Two-sided p-value of a mean of `limit`, on the side of `end`, which is that end of the 95 % interval of `value`.

    At the end itself it is 0.05. Of an interval without width, 1 at the value and 0 beyond it.
    """
    side = 1.0 if end < value else -1.0
    z = float(special.stdtrit(freedom, (1 + 0.95) / 2))
    error = (value - end) / _untransformed(side * z, skew)
    if error <= 0:
        return 1.0 if limit == value else 0.0
    t = (value - limit) / error
    transformed = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
    return min(1.0, 2 * float(special.stdtr(freedom, -side * transformed)))


def third_moment(x: Floats) -> float:
    """The third central moment of a sample."""
    centred = x - np.mean(x)
    return float(np.mean(centred * centred * centred))


def _untransformed(z: float, skew: float) -> float:
    """The inverse of `t + skew t^2 / 3 + skew^2 t^3 / 27 + skew / 6`, Hall's third transformation."""
    if abs(skew) < _SYMMETRIC:
        return z
    return 3 / skew * (math.cbrt(1 + skew * (z - skew / 6)) - 1)
