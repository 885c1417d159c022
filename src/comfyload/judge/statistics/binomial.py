"""The binomial distribution: intervals of a proportion, and the ranks that bound a quantile."""

import math

from scipy import special

_ROUNDING = 1e-12
"""A tail of (1 - 0.9) / 2 is a hair below 0.05, and means 0.05."""


def clopper_pearson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion of `k` in `n` > 0: for judging, since it never covers less than it says.

    Parts of a trial are those of the incomplete beta function.
    """
    alpha = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha))
    high = 1.0 if k >= n else float(special.betaincinv(k + 1, n - k, 1 - alpha))
    return low, high


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion of `k` in `n` > 0: for display, right on average rather than at worst."""
    z = float(special.ndtri((1 + confidence) / 2))
    share, weight = k / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, middle - half) if k else 0.0, min(1.0, middle + half) if k < n else 1.0


def binomial_ppf(q: float, n: int, p: float) -> int:
    """Smallest k with P(X <= k) >= q."""
    k = max(0, int(special.bdtrik(q, n, p)) - 1)
    while special.bdtr(k, n, p) < q * (1 - _ROUNDING):
        k += 1
    while k > 0 and special.bdtr(k - 1, n, p) >= q * (1 - _ROUNDING):
        k -= 1
    return k


def binomial_isf(q: float, n: int, p: float) -> int:
    """Smallest k with P(X > k) <= q."""
    k = max(0, int(special.bdtrik(1 - q, n, p)) - 1)
    while special.bdtrc(k, n, p) > q * (1 + _ROUNDING):
        k += 1
    while k > 0 and special.bdtrc(k - 1, n, p) <= q * (1 + _ROUNDING):
        k -= 1
    return k
