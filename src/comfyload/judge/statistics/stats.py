"""How to turn a sample into a number with an interval, and when a sample is too small to carry one.

Pure functions over float arrays in the order of completion. A job that failed may enter a quantile as `+inf`: it
took longer than any limit. Jobs on one server are rarely independent, so an interval is as wide as that of
`n / tau` independent jobs, tau being the sample's own autocorrelation time.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct, structs

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.binomial import binomial_isf, binomial_ppf, clopper_pearson
from comfyload.judge.statistics.dependence import autocorrelation_time
from comfyload.judge.statistics.queue import ALONE, Queue
from comfyload.judge.statistics.ranks import order_statistics, quantiles

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
    `reason` says why if the value is given. `n` counts jobs, `n_eff` the independent jobs that carry the same
    information, as far as the sample shows. `skew`: of a mean or a rate, the skewness of the estimate itself.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    n_eff: float | None = None
    skew: float | None = None
    unit: str
    method: str
    confidence: float = CONFIDENCE
    reason: str = ""


def percentile(x: Floats, p: float, unit: str = "s") -> Statistic:
    """The p-quantile with its distribution-free interval, or withheld where `x` is too short."""
    return percentiles(x, [p], unit)[0]


def percentiles(
    x: Floats, shares: Sequence[float], unit: str = "s", what: str = "jobs", queue: Queue = ALONE
) -> list[Statistic]:
    """The quantiles of `shares`, each as `percentile` gives it; the upper bound counts independent jobs of the queue.

    Too short a sample has one all the same where failures prove it: infinite, if its lower bound is.
    """
    n = len(x)
    endless = n > 0 and math.isinf(np.max(x))
    given = [p for p in shares if n >= value_needs(p) or (endless and quantile_interval(x, p)[0] == math.inf)]
    beyond = {p: min(p, 0.9) for p in given}
    values = quantiles(x, {*given, *beyond.values()})
    times = {limit: _slow_time(x, values[limit]) for limit in set(beyond.values())}
    bounds = _intervals(x, {p: queue.surely(times[beyond[p]], p) for p in given}, CONFIDENCE)
    waited = {p: queue.time(times[beyond[p]], p) for p in given}
    upper = bounds if queue == ALONE else _intervals(x[queue.early :], waited, CONFIDENCE)
    out = []
    for p in shares:
        if p in given:
            interval = bounds[p][0], upper[p][1]
            depend = waited[p] != 1
            statistic = _percentile(values[p], interval, p, n, depend=depend)
            out.append(structs.replace(statistic, unit=unit, n_eff=n / times[beyond[p]]))
        else:
            reason = f"no {what}" if n == 0 else f"{n} {what}; a p{100 * p:g} needs {value_needs(p)}"
            out.append(Statistic(value=None, n=n, unit=unit, method=_RANKS, reason=reason))
    return out


def _percentile(value: float, interval: Interval, p: float, n: int, *, depend: bool) -> Statistic:
    (low, high), reason = interval, ""
    if low is None or high is None:
        side = "interval" if low is None else "upper bound"
        of = f"a p{100 * p:g} {side} needs {upper_bound_needs(p)}"
        reason = f"no {side}: jobs depend on each other; {of} independent ones" if depend else f"no {side}: {of} jobs"
    return Statistic(value=value, low=low, high=high, n=n, unit="s", method=_RANKS, reason=reason)


def value_needs(p: float) -> int:
    """Fewest jobs for which the p-quantile is a quantile and not the maximum under another name."""
    return _VALUE_NEEDS.get(p, math.ceil(1 / (1 - p)))


def proportion(k: int, n: int, what: str = "jobs", jobs_per_trial: float = 1.0) -> Statistic:
    """`k` of `n` as a fraction 0..1 with the interval of Clopper & Pearson, exact for independent jobs.

    With several `jobs_per_trial`, of as many fewer; n = 0 has no fraction.
    """
    if n == 0:
        return Statistic(value=None, n=0, unit="1", method="clopper-pearson", reason=f"no {what}")
    method = "clopper-pearson, jobs independent" if jobs_per_trial == 1 else "clopper-pearson, failures in bursts"
    low, high = clopper_pearson(k / jobs_per_trial, n / jobs_per_trial)
    return Statistic(value=k / n, low=low, high=high, n=n, n_eff=n / jobs_per_trial, unit="1", method=method)


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
