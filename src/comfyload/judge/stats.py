"""Knows how to turn a sample into a number with an interval, and when a sample is too small to carry one.

Pure functions over float arrays in the order of completion. A job that failed may enter a quantile as `+inf`: it
took longer than any limit. Jobs on one server are rarely independent, so an interval is as wide as that of
`n / tau` independent jobs, tau being the sample's own autocorrelation time.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "CONFIDENCE",
    "QUANTILE_METHOD",
    "Statistic",
    "autocorrelation_time",
    "clopper_pearson",
    "mean",
    "mean_interval",
    "percentile",
    "proportion",
    "quantile",
    "quantile_interval",
    "quantile_time",
    "ratio_interval",
    "upper_bound_needs",
    "wilson",
]

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]
"""Lower and upper bound; None where the sample cannot bound that side."""

CONFIDENCE = 0.95
QUANTILE_METHOD = "hf8"
"""Hyndman & Fan 1996, definition 8: median-unbiased whatever the distribution."""

_VALUE_NEEDS = {0.5: 1, 0.9: 10, 0.95: 20, 0.99: 299}
"""Fewest jobs for which a percentile is a percentile and not the maximum under another name."""


class Statistic(Struct, frozen=True, kw_only=True):
    """One number and how sure it is.

    `value` None: withheld, and `reason` says why. `low` or `high` None: that side cannot be bounded by this sample;
    `reason` says why if the value is given. `n` counts jobs, `n_eff` the independent jobs they are worth.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    n_eff: float | None = None
    unit: str
    method: str
    confidence: float = CONFIDENCE
    reason: str = ""


def percentile(x: Floats, p: float, unit: str = "s", what: str = "jobs") -> Statistic:
    """The p-quantile with its distribution-free interval, or withheld where `x` is too short."""
    n, needs = len(x), _VALUE_NEEDS.get(p, math.ceil(1 / (1 - p)))
    name, method = f"p{100 * p:g}", f"{QUANTILE_METHOD}, order statistics"
    if n < needs:
        reason = f"no {what}" if n == 0 else f"{n} {what}; a {name} needs {needs}"
        return Statistic(value=None, n=n, unit=unit, method=method, reason=reason)
    tau = quantile_time(x, p)
    low, high = quantile_interval(x, p, tau=tau)
    reason = ""
    if low is None or high is None:
        worth = f"{n} {what}" if tau == 1 else f"{n} {what} worth {n / tau:.0f} independent ones"
        side = "no interval" if low is None else "no upper bound"
        reason = f"{worth}: {side}; that of a {name} needs {upper_bound_needs(p)}"
    return Statistic(
        value=quantile(x, p), low=low, high=high, n=n, n_eff=n / tau, unit=unit, method=method, reason=reason
    )


def mean(x: Floats, unit: str = "s", what: str = "jobs") -> Statistic:
    """The arithmetic mean with Student's t interval; one value has no interval, none has no mean."""
    n, method = len(x), "mean, Student t"
    if n == 0:
        return Statistic(value=None, n=0, unit=unit, method=method, reason=f"no {what}")
    tau = autocorrelation_time(x)
    low, high = mean_interval(x, tau=tau)
    if low is not None and float(np.min(x)) >= 0:  # no duration is negative, whatever Student's t says
        low = max(low, 0.0)
    reason = "" if low is not None else f"{n / tau:.0f} independent {what}; an interval needs 2"
    return Statistic(value=_mean(x), low=low, high=high, n=n, n_eff=n / tau, unit=unit, method=method, reason=reason)


def proportion(k: int, n: int, what: str = "jobs") -> Statistic:
    """`k` of `n` as a fraction 0..1 with the exact interval of Clopper & Pearson; n = 0 has no fraction."""
    if n == 0:
        return Statistic(value=None, n=0, unit="1", method="clopper-pearson", reason=f"no {what}")
    low, high = clopper_pearson(k, n)
    return Statistic(value=k / n, low=low, high=high, n=n, unit="1", method="clopper-pearson")


def quantile(x: Floats, p: float) -> float:
    """The median-unbiased p-quantile (Hyndman & Fan 8), infinite when its rank falls among infinite values."""
    ordered = np.sort(x)
    n = len(ordered)
    rank = min(max((n + 1 / 3) * p + 1 / 3, 1.0), float(n))
    below = math.floor(rank)
    lower, share = float(ordered[below - 1]), rank - below
    if share < 1e-12:  # interpolating inf with weight 0 would make a NaN
        return lower
    upper = float(ordered[below])
    return math.inf if math.isinf(upper) else lower + share * (upper - lower)


def quantile_interval(x: Floats, p: float, confidence: float = CONFIDENCE, tau: float = 1.0) -> Interval:
    """Two-sided distribution-free interval of the p-quantile from binomial ranks (Hahn & Meeker 1991).

    For tau = 1 the ranks are those of `scipy.stats.quantile_test`; otherwise those of `n / tau` independent values,
    stretched back over all of them.
    """
    n = len(x)
    worth = max(1, math.floor(n / tau + 1e-9)) if n else 0
    if worth == 0:
        return None, None
    ordered, alpha = np.sort(x), (1 - confidence) / 2
    low_rank = _binomial_ppf(alpha, worth, p)  # 1-based; 0: below the smallest value
    high_rank = _binomial_isf(alpha, worth, p) + 1  # 1-based; worth + 1: above the largest
    low, high = None, None
    # Ranks are whole numbers, so stretching few of them can land inside the interval of all: the wider one counts.
    if low_rank >= 1:
        stretched = math.floor(low_rank * n / worth)
        low = float(ordered[min(stretched, max(1, _binomial_ppf(alpha, n, p))) - 1])
    if high_rank <= worth:
        stretched = math.ceil(high_rank * n / worth)
        high = float(ordered[max(stretched, min(n, _binomial_isf(alpha, n, p) + 1)) - 1])
    return low, high


def upper_bound_needs(p: float, confidence: float = CONFIDENCE) -> int:
    """Fewest independent jobs whose two-sided interval of the p-quantile is bounded on both sides."""
    side = (1 - confidence) / 2
    return max(math.ceil(math.log(side) / math.log(max(p, 1 - p)) - 1e-12), 1)


def quantile_time(x: Floats, p: float) -> float:
    """Autocorrelation time of being slow: of the indicator `x > q`, with q the p-quantile but at most the p90.

    Beyond the p90 the indicator of a short sample has too few ones to be correlated with anything.
    """
    if len(x) == 0:
        return 1.0
    limit = quantile(x, min(p, 0.9))
    slow = x >= limit if math.isinf(limit) else x > limit
    return autocorrelation_time(slow.astype(np.float64))


def autocorrelation_time(x: Floats) -> float:
    """How many consecutive values are worth one independent value: `1 + 2 * sum(rho_k)`, from 1 to n.

    The sum runs over Geyer's (1992) initial positive sequence of pairs. Below 1 is reported as 1: that neighbours
    balance each other is not taken as a reason for a narrower interval.
    """
    n = len(x)
    if n < 4:
        return 1.0
    centred = x - np.mean(x)
    spectrum = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    if covariance[0] <= n * (1e-12 * max(1e-300, float(np.max(np.abs(x))))) ** 2:  # constant up to rounding
        return 1.0
    rho = covariance[: n - n % 2] / covariance[0]
    pairs = rho[0::2] + rho[1::2]
    ends = np.flatnonzero(pairs <= 0)
    stop = int(ends[0]) if len(ends) else len(pairs)
    return float(min(max(2 * np.sum(pairs[:stop]) - 1, 1.0), n))


def mean_interval(x: Floats, confidence: float = CONFIDENCE, tau: float = 1.0) -> Interval:
    """Student's t interval of the mean for `n / tau` independent values; None below two of them."""
    n = len(x)
    worth = n / tau
    if n < 2 or worth < 2:
        return None, None
    half = _student(confidence, worth - 1) * math.sqrt(_variance(x, tau) / worth)
    middle = _mean(x)
    return middle - half, middle + half


def ratio_interval(rewards: Floats, gaps: Floats, confidence: float = CONFIDENCE) -> tuple[float, Interval, float]:
    """Long-run rate `sum(rewards) / sum(gaps)`, its interval, and the autocorrelation time behind it.

    Renewal-reward: `gaps` are the times between successive completions (the first counts from the start of the
    window, so the gaps sum to the window), `rewards` what each completion brought. The interval is the delta
    method's: Student t on `rewards - rate * gaps` with `n / tau` independent values; never below 0.
    """
    total, n = math.fsum(gaps), len(gaps)
    rate = math.fsum(rewards) / total
    rest = rewards - rate * gaps
    tau = autocorrelation_time(rest)
    if n < 2 or n / tau < 2:
        return rate, (None, None), tau
    deviation = math.sqrt(_variance(rest, tau) / (n / tau))
    half = _student(confidence, n / tau - 1) * deviation / (total / n)
    return rate, (max(0.0, rate - half), rate + half), tau


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a proportion of `k` in `n` > 0: for judging, since it never covers less than it says."""
    alpha = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - alpha))
    return low, high


def wilson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion of `k` in `n` > 0: for display, right on average rather than at worst."""
    z = float(special.ndtri((1 + confidence) / 2))
    share, weight = k / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, middle - half) if k else 0.0, min(1.0, middle + half) if k < n else 1.0


def _mean(x: Floats) -> float:
    # Rounding must not carry an average beyond the largest value it is made of.
    return min(max(math.fsum(x) / len(x), float(np.min(x))), float(np.max(x)))


def _variance(x: Floats, tau: float) -> float:
    # The sample variance of correlated values is too small by about tau / n: they have strayed less far.
    n = len(x)
    return float(np.sum((x - np.mean(x)) ** 2)) / (n - tau)


def _student(confidence: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def _binomial_ppf(q: float, n: int, p: float) -> int:
    """Smallest k with P(X <= k) >= q."""
    k = max(0, int(special.bdtrik(q, n, p)) - 1)
    while special.bdtr(k, n, p) < q:
        k += 1
    while k > 0 and special.bdtr(k - 1, n, p) >= q:
        k -= 1
    return k


def _binomial_isf(q: float, n: int, p: float) -> int:
    """Smallest k with P(X > k) <= q."""
    k = max(0, int(special.bdtrik(1 - q, n, p)) - 1)
    while special.bdtrc(k, n, p) > q:
        k += 1
    while k > 0 and special.bdtrc(k - 1, n, p) <= q:
        k -= 1
    return k
