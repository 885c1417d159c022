"""What durations say of a distribution when some were cut off before they had ended.

Of a job that the end of the run cut off, all that is known is that it takes longer than it was observed for. Left out,
it would flatter every percentile; counted as if it had ended, too. The product-limit estimator (Kaplan & Meier 1958)
uses what is known. It takes for granted that being cut off says nothing about how long a job would have taken: a queue
that grows until the end breaks that, and `overload` says so.

A job that failed will never complete, however long one waits. Beside it, completion is estimated by its cumulative
incidence (Aalen & Johansen 1978), of which Kaplan-Meier is the case without failures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from scipy import special

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.statistics.queue import ALONE, Queue
from comfyload.judge.statistics.stats import (
    CONFIDENCE,
    Interval,
    Statistic,
    percentiles,
    quantile_interval,
    quantile_time,
    value_needs,
)

_TINY = 1e-12
"""Rounding: products of shares that are a half on paper are within this of one."""


class Lengths(Struct, frozen=True, kw_only=True):
    """Durations in seconds, in the order of completion. `cut`: it was longer than that. `failed`: it never ended well;
    its duration is when that was known, which matters only if other jobs were cut.
    """

    seconds: Floats
    cut: Flags
    failed: Flags

    @property
    def endless(self) -> Floats:
        """The durations with failures as infinite."""
        return np.where(self.failed, math.inf, self.seconds) if self.failed.any() else self.seconds

    def chosen(self, which: Flags | slice) -> Lengths:
        """These alone."""
        return Lengths(seconds=self.seconds[which], cut=self.cut[which], failed=self.failed[which])


class Incidence(Struct, frozen=True, kw_only=True):
    """Share of jobs completed by each of `times`, ascending; `open`: the share of which the end is not known even at
    the last time; `greenwood`: the sum of d / (n (n - d)), from which an interval is made where none failed.
    """

    times: Floats
    completed: Floats
    open: float
    greenwood: Floats


def incidence(lengths: Lengths) -> Incidence:
    """The cumulative incidence of completion. At a tie, jobs end before others are cut."""
    order = np.lexsort((lengths.cut, lengths.seconds))
    seconds, cut, failed = lengths.seconds[order], lengths.cut[order], lengths.failed[order]
    n = len(seconds)
    times, first = np.unique(seconds, return_index=True)
    at_risk = (n - first).astype(np.float64)
    ended = np.add.reduceat((~cut).astype(np.float64), first) if n else np.empty(0)
    good = np.add.reduceat((~cut & ~failed).astype(np.float64), first) if n else np.empty(0)
    alive = np.cumprod(1 - ended / at_risk)
    before = np.concatenate(([1.0], alive[:-1]))
    with np.errstate(divide="ignore"):
        greenwood = np.cumsum(ended / (at_risk * (at_risk - ended)))
    at = good > 0
    return Incidence(
        times=times[at],
        completed=np.cumsum(before * good / at_risk)[at],
        open=float(alive[-1]) if n else 1.0,
        greenwood=greenwood[at],
    )


def censored_percentiles(
    lengths: Lengths, shares: Sequence[float], what: str = "jobs", queue: Queue = ALONE
) -> list[Statistic]:
    """Quantiles of `lengths`: those of `percentiles` where nothing was cut, else by product limit.

    A quantile is the smallest time by which so many have completed. It is infinite where so many failed that no
    end of the cut jobs could change it, and withheld where they leave it open.
    """
    if not lengths.cut.any():
        return percentiles(lengths.endless, shares, what=what, queue=queue)
    known = incidence(lengths)
    # Of the observed seconds: how long dependence lasts is not changed by cutting the last few off.
    times = {p: quantile_time(lengths.seconds, p) for p in shares}
    return [_percentile(known, lengths, p, (queue.surely(times[p], p), queue.time(times[p], p)), what) for p in shares]


def _percentile(known: Incidence, lengths: Lengths, p: float, times: tuple[float, float], what: str) -> Statistic:
    """`times`: how many jobs carry the information of one, for the lower bound and for the upper one."""
    n, cut, some_failed = len(lengths.seconds), int(lengths.cut.sum()), bool(lengths.failed.any())
    method, name = "aalen-johansen" if some_failed else "kaplan-meier", f"p{100 * p:g}"
    value, reason = _reached(known, p), ""
    if _proven_endless(lengths, p):
        value = math.inf
    elif n < value_needs(p):
        value, reason = None, f"{n} {what}; a {name} needs {value_needs(p)}"
    elif value is None:
        reason = f"censored: {cut} of {n} {what} were cut off before enough had ended for a {name}"
    if value is None or math.isinf(value):
        return Statistic(value=value, n=n, unit="s", method=method, reason=reason)
    if some_failed:
        reason = "censored: no interval for cut and failed jobs together"
        return Statistic(value=value, n=n, unit="s", method=method, reason=reason)
    low, high = product_limit_interval(known, p, times[0])[0], product_limit_interval(known, p, times[1])[1]
    if low is None or high is None:
        reason = f"censored: {cut} of {n} {what} were cut off; {'no interval' if low is None else 'no upper bound'}"
    return Statistic(value=value, low=low, high=high, n=n, n_eff=n / times[0], unit="s", method=method, reason=reason)


def _proven_endless(lengths: Lengths, p: float) -> bool:
    """Whether so many failed that the quantile is infinite even if all that were cut had completed at once.

    Of a sample long enough for the quantile's value, by its value; of a shorter one, by its lower bound.
    """
    at_best = np.where(lengths.failed, math.inf, 0.0)
    if len(at_best) >= value_needs(p):
        return int(lengths.failed.sum()) > len(at_best) * (1 - p + _TINY)
    return quantile_interval(at_best, p)[0] == math.inf


def _reached(known: Incidence, p: float) -> float | None:
    at = int(np.searchsorted(known.completed, p - _TINY))
    return float(known.times[at]) if at < len(known.times) else None


def product_limit_interval(known: Incidence, p: float, tau: float = 1.0, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the p-quantile: the times at which the pointwise interval of survival holds 1 - p (Brookmeyer &
    Crowley 1982), made on the scale of log(-log) with Greenwood's variance, `tau` times as large for dependence.
    """
    alive = 1 - known.completed
    inside = (alive > _TINY) & np.isfinite(known.greenwood)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = float(special.ndtri((1 + confidence) / 2)) * np.sqrt(tau * known.greenwood) / np.abs(np.log(alive))
        lower, upper = (np.where(inside, alive ** np.exp(sign * reach), 0.0) for sign in (1, -1))
    if len(alive) and not inside[-1]:  # where all have ended, the last known upper bound stays
        upper[~inside] = upper[inside][-1] if inside.any() else 1.0
    low, high = (int(np.argmax(bound <= 1 - p + _TINY)) if (bound <= 1 - p + _TINY).any() else -1
                 for bound in (lower, upper))  # fmt: skip
    return (float(known.times[low]) if low >= 0 else None, float(known.times[high]) if high >= 0 else None)
