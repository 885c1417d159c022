"""Knows how to turn a sample into a number with an interval, and when a sample is too small to carry one.

Pure functions over float arrays in the order of completion. A job that failed may enter a quantile as `+inf`: it
took longer than any limit. Jobs on one server are rarely independent, so an interval is as wide as that of
`n / tau` independent jobs, tau being the sample's own autocorrelation time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import special

from comfyload.judge.binomial import binomial_isf, binomial_ppf, clopper_pearson, wilson
from comfyload.judge.dependence import autocorrelation_time, sum_of_products
from comfyload.judge.ranks import order_statistics, quantiles

__all__ = [
    "CONFIDENCE",
    "QUANTILE_METHOD",
    "Statistic",
    "autocorrelation_time",
    "clopper_pearson",
    "mean",
    "mean_interval",
    "percentile",
    "percentiles",
    "proportion",
    "quantile",
    "quantile_interval",
    "quantile_time",
    "ratio_interval",
    "upper_bound_needs",
    "value_needs",
    "wilson",
]

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]
"""Lower and upper bound; None where the sample cannot bound that side."""

CONFIDENCE = 0.95
QUANTILE_METHOD = "hf8"
"""Hyndman & Fan 1996, definition 8: median-unbiased whatever the distribution."""

_RANKS = f"{QUANTILE_METHOD}, order statistics"
_VALUE_NEEDS = {0.5: 1, 0.9: 10, 0.95: 20, 0.99: 299}


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
    return percentiles(x, [p], unit, what)[0]


def percentiles(x: Floats, shares: Sequence[float], unit: str = "s", what: str = "jobs") -> list[Statistic]:
    """The quantiles of `shares`, each as `percentile` gives it.

    Too short a sample has one all the same where failures prove it: infinite, if its lower bound is.
    """
    n = len(x)
    given = [p for p in shares if n >= value_needs(p) or _endless(x, p)]
    beyond = {p: min(p, 0.9) for p in given}
    values = quantiles(x, {*given, *beyond.values()})
    times = {limit: _slow_time(x, values[limit]) for limit in set(beyond.values())}
    bounds = _intervals(x, {p: times[beyond[p]] for p in given}, CONFIDENCE)
    out = []
    for p in shares:
        if p in given:
            out.append(_percentile(values[p], bounds[p], n, p, times[beyond[p]], unit, what))
        else:
            reason = f"no {what}" if n == 0 else f"{n} {what}; a p{100 * p:g} needs {value_needs(p)}"
            out.append(Statistic(value=None, n=n, unit=unit, method=_RANKS, reason=reason))
    return out


def _percentile(value: float, bounds: Interval, n: int, p: float, tau: float, unit: str, what: str) -> Statistic:
    low, high = bounds
    reason = ""
    if low is None or high is None:
        told = f"{n} {what}" if tau == 1 else f"{n} {what} that depend on each other"
        side = "no interval" if low is None else "no upper bound"
        needs = f"{upper_bound_needs(p)}{'' if tau == 1 else ' independent ones'}"
        reason = f"{told}: {side}; that of a p{100 * p:g} needs {needs}"
    return Statistic(value=value, low=low, high=high, n=n, n_eff=n / tau, unit=unit, method=_RANKS, reason=reason)


def _endless(x: Floats, p: float) -> bool:
    return len(x) > 0 and math.isinf(np.max(x)) and quantile_interval(x, p)[0] == math.inf


def value_needs(p: float) -> int:
    """Fewest jobs for which the p-quantile is a quantile and not the maximum under another name."""
    return _VALUE_NEEDS.get(p, math.ceil(1 / (1 - p)))


def mean(x: Floats, unit: str = "s", what: str = "jobs") -> Statistic:
    """The arithmetic mean with Student's t interval; one value has no interval, none has no mean."""
    n, method = len(x), "mean, Student t"
    if n == 0:
        return Statistic(value=None, n=0, unit=unit, method=method, reason=f"no {what}")
    tau = autocorrelation_time(x)
    low, high = mean_interval(x, tau=tau)
    if low is not None and float(np.min(x)) >= 0:  # no duration is negative, whatever Student's t says
        low = max(low, 0.0)
    reason = "" if low is not None else f"fewer than 2 independent {what}: no interval"
    return Statistic(value=_mean(x), low=low, high=high, n=n, n_eff=n / tau, unit=unit, method=method, reason=reason)


def proportion(k: int, n: int, what: str = "jobs") -> Statistic:
    """`k` of `n` as a fraction 0..1 with the exact interval of Clopper & Pearson; n = 0 has no fraction."""
    if n == 0:
        return Statistic(value=None, n=0, unit="1", method="clopper-pearson", reason=f"no {what}")
    low, high = clopper_pearson(k, n)
    return Statistic(value=k / n, low=low, high=high, n=n, unit="1", method="clopper-pearson")


def quantile(x: Floats, p: float) -> float:
    """The median-unbiased p-quantile (Hyndman & Fan 8), infinite when its rank falls among infinite values."""
    return quantiles(x, [p])[p]


def quantile_interval(x: Floats, p: float, confidence: float = CONFIDENCE, tau: float = 1.0) -> Interval:
    """Two-sided distribution-free interval of the p-quantile from binomial ranks (Hahn & Meeker 1991).

    For tau = 1 the ranks are those of `scipy.stats.quantile_test`; otherwise those of `n / tau` independent values,
    stretched back over all of them.
    """
    return _intervals(x, {p: tau}, confidence)[p]


def _intervals(x: Floats, times: Mapping[float, float], confidence: float) -> dict[float, Interval]:
    """Of each quantile in `times`, which has its autocorrelation time."""
    ranks = {p: _bounding_ranks(len(x), p, confidence, tau) for p, tau in times.items()}
    values = order_statistics(x, {rank for pair in ranks.values() for rank in pair if rank is not None})
    return {
        p: (None if low is None else values[low], None if high is None else values[high])
        for p, (low, high) in ranks.items()
    }


def _bounding_ranks(n: int, p: float, confidence: float, tau: float) -> tuple[int | None, int | None]:
    worth = max(1, math.floor(n / tau + 1e-9)) if n else 0
    if worth == 0:
        return None, None
    alpha = (1 - confidence) / 2
    low_rank = binomial_ppf(alpha, worth, p)  # 1-based; 0: below the smallest value
    high_rank = binomial_isf(alpha, worth, p) + 1  # 1-based; worth + 1: above the largest
    low, high = None, None
    # Ranks are whole numbers, so stretching few of them can land inside the interval of all: the wider one counts.
    if low_rank >= 1:
        low = min(math.floor(low_rank * n / worth), max(1, binomial_ppf(alpha, n, p)))
    if high_rank <= worth:
        high = max(math.ceil(high_rank * n / worth), min(n, binomial_isf(alpha, n, p) + 1))
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
    return _slow_time(x, quantile(x, min(p, 0.9)))


def _slow_time(x: Floats, limit: float) -> float:
    slow = x >= limit if math.isinf(limit) else x > limit
    return autocorrelation_time(slow)


def mean_interval(x: Floats, confidence: float = CONFIDENCE, tau: float = 1.0) -> Interval:
    """Student's t interval of the mean for `n / tau` independent values; None below two of them."""
    n = len(x)
    worth = n / tau
    if n < 2 or worth < 2:
        return None, None
    half = _student(confidence, worth - 1) * math.sqrt(_variance(x, tau) / worth)
    middle = _mean(x)
    return middle - half, middle + half


def ratio_interval(
    rewards: NDArray[Any], gaps: Floats, confidence: float = CONFIDENCE
) -> tuple[float, Interval, float]:
    """Long-run rate `sum(rewards) / sum(gaps)`, its interval, and the autocorrelation time behind it.

    Renewal-reward: `gaps` are the times between successive completions (the first counts from the start of the
    window, so the gaps sum to the window), `rewards` what each completion brought. The interval is the delta
    method's: Student t on `rewards - rate * gaps` with `n / tau` independent values; never below 0.
    """
    total, n = float(np.sum(gaps)), len(gaps)
    rate = float(np.sum(rewards)) / total
    rest = rate * gaps
    np.subtract(rewards, rest, out=rest)
    tau = autocorrelation_time(rest)
    if n < 2 or n / tau < 2:
        return rate, (None, None), tau
    deviation = math.sqrt(_variance(rest, tau) / (n / tau))
    half = _student(confidence, n / tau - 1) * deviation / (total / n)
    return rate, (max(0.0, rate - half), rate + half), tau


def _mean(x: Floats) -> float:
    # Rounding must not carry an average beyond the largest value it is made of.
    return min(max(float(np.mean(x)), float(np.min(x))), float(np.max(x)))


def _variance(x: Floats, tau: float) -> float:
    # The sample variance of correlated values is too small by about tau / n: they have strayed less far.
    centred = x - np.mean(x)
    return sum_of_products(centred, centred) / (len(x) - tau)


def _student(confidence: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + confidence) / 2))
