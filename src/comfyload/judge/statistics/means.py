"""Intervals of a mean and a rate where values are skewed and depend on each other.

No interval of a mean is valid whatever the law of the values (Bahadur & Savage 1956): jobs that happened to hold no
slow one say nothing of how slow it would have been. So the end that slow jobs would move, the upper one of a mean time
and the lower one of a rate, is given from 59 independent jobs on: with fewer, one slow job in 20 goes unseen in more
than 5 % of runs. The skew of the observed jobs is taken out by Hall's transformation.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.dependence import autocorrelation_time, sum_of_products
from comfyload.judge.statistics.queue import ALONE, Queue
from comfyload.judge.statistics.skewed import skewed_interval, third_moment
from comfyload.judge.statistics.stats import Statistic

INDEPENDENT = 59
"""Independent jobs of which one in 20 is slow hold a slow one in 95 % of runs: 0.95^59 < 0.05."""
_DEPENDENT = 0.7
"""As in the finding `dependent_jobs`."""
_MEAN, _RATE = "mean, Hall's transformed t", "renewal reward, Hall's transformed t"


def mean(x: Floats, unit: str = "s", what: str = "jobs", queue: Queue = ALONE) -> Statistic:
    """The arithmetic mean of values in the order of completion; one value has no interval, none has no mean.

    Values of jobs that found the queue short are in the mean, and no evidence of how it would be for long.
    """
    n = len(x)
    if n == 0:
        return Statistic(value=None, n=0, unit=unit, method=_MEAN, reason=f"no {what}")
    value, later = _mean(x), x[queue.early :]
    tau = autocorrelation_time(later)
    shown, proven = queue.surely(tau, 1.0), queue.time(tau)
    lower, upper, worth = _sample(later, shown), _sample(later, proven), len(later) / _believed(proven)
    n_eff = max(1.0, len(later) / shown)
    if lower is None:
        reason = f"no interval: fewer than 2 independent {what}"
        return Statistic(value=value, n=n, n_eff=n_eff, unit=unit, method=_MEAN, reason=reason)
    low = min(skewed_interval(*lower)[0], value)
    if float(np.min(x)) >= 0:  # no duration is negative
        low = max(low, 0.0)
    high = max(skewed_interval(*upper)[1], value) if upper is not None and worth >= INDEPENDENT else None
    return Statistic(
        value=value,
        low=low,
        high=high,
        n=n,
        n_eff=n_eff,
        skew=lower[2],
        unit=unit,
        method=_MEAN,
        reason="" if high is not None else _missing(n, what, worth, "upper", "mean"),
    )


def rate(made: NDArray[Any], gaps: Floats, *, per_s: float, unit: str, what: str, queue: Queue = ALONE) -> Statistic:
    """Long-run rate `sum(made) / sum(gaps)`, times `per_s`, by renewal reward.

    `gaps` are the times between successive completions (the first counts from the start of the window, so that they sum
    to the window), `made` what each completion brought. The interval is that of the time for one thing made, by the
    delta method on `gaps - time * made`, turned round. A busy server evens out the gaps of a short run, so its error is
    at least that of the arrivals.
    """
    total, things, n = float(np.sum(gaps)), float(np.sum(made)), len(gaps)
    time = total / things
    rest = gaps - time * made
    tau = autocorrelation_time(rest)
    sample, worth = _sample(rest, tau), n / _believed(tau)
    reason = f"no interval: fewer than 2 independent {what}"
    low = high = skew = None
    if sample is not None:
        middle, error, skewness, freedom = sample
        least = queue.rate_error * total / n
        if least > error:  # of which no skew is known
            error, skewness = least, 0.0
        ends = skewed_interval(middle, error, skewness, freedom)
        shortest, longest = (time + end * n / things for end in ends)
        high = per_s / shortest if shortest > 0 else None
        low = per_s / longest if worth >= INDEPENDENT and longest < math.inf else None
        skew = -skewness
        reason = "" if low is not None else _missing(n, what, worth, "lower", "rate")
    return Statistic(
        value=per_s / time, low=low, high=high, n=n, n_eff=n / tau, skew=skew, unit=unit, method=_RATE, reason=reason
    )


def _believed(time: float) -> float:
    """Estimated from independent jobs, an autocorrelation time is often a little above 1 without any dependence."""
    return time if 1 / time < _DEPENDENT else 1.0


def _missing(n: int, what: str, worth: float, end: str, of: str) -> str:
    """Why an end of the interval is not given."""
    of = f"a {of}'s {end} bound needs {INDEPENDENT}"
    return f"no {end} bound: {of} {what}" if worth >= n else f"no {end} bound: {what} depend on each other; {of}"


def _sample(x: Floats, tau: float) -> tuple[float, float, float, float] | None:
    """Mean, standard error, skewness and degrees of freedom of values with that autocorrelation time; None where they
    carry the information of fewer than two.
    """
    n = len(x)
    if n < 2 or n / tau < 2:
        return None
    centred = x - np.mean(x)
    squares = sum_of_products(centred, centred)
    # The sample variance of correlated values is too small by about tau / n: they have strayed less far.
    error = math.sqrt(squares / (n - tau) / (n / tau))
    spread = math.sqrt(squares / n)
    skew = third_moment(x) / spread**3 / math.sqrt(n / tau) if spread > 0 else 0.0
    return _mean(x), error, skew, n / tau - 1


def _mean(x: Floats) -> float:
    # Rounding must not carry an average beyond the largest value it is made of.
    return min(max(float(np.mean(x)), float(np.min(x))), float(np.max(x)))
