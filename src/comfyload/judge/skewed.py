"""Knows the interval of a mean whose values are skewed, as service times are: most usual, a few very long.

Student's interval misses such a mean on one side: a sample with few long values has a low mean and a small deviation at
once. Hall's (1992) transformation takes the skew out first; it is monotone, so that it can be turned round.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["skewed_interval", "third_moment"]

_SYMMETRIC = 1e-6


def skewed_interval(
    mean: float, error: float, skew: float, freedom: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Two-sided interval of a mean from its standard error, its own skewness and Student's degrees of freedom.

    `skew` is that of the mean, not of the values: of n independent values their skewness over the root of n.
    """
    z = float(special.stdtrit(freedom, (1 + confidence) / 2))
    return mean - error * _untransformed(z, skew), mean - error * _untransformed(-z, skew)


def third_moment(x: NDArray[np.float64]) -> float:
    """The third central moment of a sample."""
    return float(np.mean((x - np.mean(x)) ** 3))


def _untransformed(z: float, skew: float) -> float:
    """The inverse of `t + skew t^2 / 3 + skew^2 t^3 / 27 + skew / 6`, Hall's third transformation."""
    if abs(skew) < _SYMMETRIC:
        return z
    return 3 / skew * (math.cbrt(1 + skew * (z - skew / 6)) - 1)
