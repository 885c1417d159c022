"""Whether a series rises or falls, whatever its outliers do."""

import math

import numpy as np
from scipy import special

from comfyload.judge.arrays import Floats


def theil_sen(
    x: Floats, y: Floats, confidence: float = 0.99, *, dependence: float = 1.0
) -> tuple[float, float, float] | None:
    """The median slope of all pairs, and its interval; None where so few points bound nothing. `x` ascends strictly.

    The interval is Sen's (1968), from Kendall's normal approximation; where so many values on end as `dependence` carry
    the information of one, it is as much wider as that of a mean. Quadratic in the number of points.
    """
    n = len(y)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    z = float(special.ndtri((1 + confidence) / 2))
    reach = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * dependence)
    low, high = math.floor((len(slopes) - reach) / 2), math.ceil((len(slopes) + reach) / 2)
    if low < 0 or high >= len(slopes):
        return None
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])
