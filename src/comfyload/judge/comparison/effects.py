"""How sure a ratio of two sides is, from the logarithms of what they measured.

The unit of replication is the run: jobs of one run share its clocks, heat and cache, so that more jobs do not make
the difference between two runs any surer. Single runs do not show that part: it has to be assumed.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct, structs
from scipy import special
from scipy.stats import mannwhitneyu

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.dependence import autocorrelation_time
from comfyload.judge.statistics.significance import NORMAL_975, student, tail
from comfyload.judge.statistics.stats import CONFIDENCE

Bounds = tuple[float, float, float]
"""The logarithm of a value, of its lower and of its upper bound."""

CompareVerdict = Literal[
    "faster", "slower", "no practical difference", "inconclusive", "fewer failures", "more failures"
]
_MOST = 2000
"""Order statistics that stand for a longer sample where all pairs of two samples are formed."""

_MOST_RUNS = 200


class Effect(Struct, frozen=True, kw_only=True):
    """log(B / A) with its interval, infinite where a side is not bounded.

    `spread`: standard deviation of what one more pair, or one more run of each side, adds. `paired`: it is a pair.
    `shared`: the part of the half-width that is assumed and that all effects of the same two runs have in common.
    """

    log: float
    low: float
    high: float
    p: float
    spread: float
    paired: bool = False
    shared: float = 0.0
    method: str


def from_pairs(d: Floats) -> Effect:
    """Student's t on the log ratios of at least two interleaved pairs: what a pair has in common cancels."""
    k, sd = len(d), float(np.std(d, ddof=1))
    method = f"{k} pairs, Student t on log ratios"
    return _by_student(float(np.mean(d)), sd / math.sqrt(k), k - 1, spread=sd, paired=True, method=method)


def from_runs(a: Floats, b: Floats) -> Effect:
    """Welch's t on the log values of runs. One run against several: their deviation is taken for both (pooled t)."""
    m, n, middle = len(a), len(b), float(np.mean(b) - np.mean(a))
    if min(m, n) == 1:
        sd = float(np.std(a if m > n else b, ddof=1))
        error, freedom, spread = sd * math.sqrt(1 / m + 1 / n), max(m, n) - 1.0, sd * math.sqrt(2)
        method = f"{m} against {n} runs, Student t; the deviation is that of the several"
    else:
        one, two = float(np.var(a, ddof=1)), float(np.var(b, ddof=1))
        square, spread = one / m + two / n, math.sqrt(one + two)
        parts = (one / m) ** 2 / (m - 1) + (two / n) ** 2 / (n - 1)
        error, freedom = math.sqrt(square), square**2 / parts if square > 0 else m + n - 2.0
        method = f"{m} against {n} runs, Welch t on logs"
    return _by_student(middle, error, freedom, spread=spread, method=method)


def from_single_jobs(a: Floats, b: Floats, between_sd: float) -> Effect:
    """The Hodges-Lehmann shift of two single runs' log durations, widened for what differs between runs.

    `a`, `b` in the order of completion: jobs that depend on their neighbours widen it too. Without `between_sd` it is
    the pooled Mann-Whitney test, which takes any difference between two runs for one between two systems.
    """
    middle, low, high = hodges_lehmann(a, b)
    stretch = math.sqrt(max(autocorrelation_time(a), autocorrelation_time(b)))
    effect = _widened(middle, stretch * (middle - low), stretch * (high - middle), between_sd, "Hodges-Lehmann")
    if between_sd == 0 and stretch == 1:
        return structs.replace(effect, p=float(mannwhitneyu(b, a).pvalue))
    return effect


def from_intervals(a: Bounds, b: Bounds, between_sd: float) -> Effect:
    """The difference of two values of single runs from their own intervals (Zou & Donner 2008), widened likewise."""
    below, above = math.hypot(b[0] - b[1], a[2] - a[0]), math.hypot(b[2] - b[0], a[0] - a[1])
    return _widened(b[0] - a[0], below, above, between_sd, "from their intervals")


def from_pools(a: Bounds, b: Bounds, between: Effect, runs: int) -> Effect:
    """The difference of two values, each of all jobs of a side's `runs` runs together, from their own intervals.

    It is widened by the half-width of `between`, the same runs' medians: what a run strays by, its tail does too.
    """
    noise = (between.high - between.low) / 2
    below = math.hypot(b[0] - b[1], a[2] - a[0], noise)
    above = math.hypot(b[2] - b[0], a[0] - a[1], noise)
    spread = (below + above) / 2 / student((1 + CONFIDENCE) / 2, max(runs - 1, 1)) * math.sqrt(runs)
    method = f"all jobs of a side together, widened by {between.method}"
    return _reaching(b[0] - a[0], below, above, spread=spread, paired=between.paired, method=method)


def hodges_lehmann(a: Floats, b: Floats) -> tuple[float, float, float]:
    """The median of all differences b - a, and its interval by Mann-Whitney ranks (normal approximation).

    Infinite where so few values bound nothing (below four a side). Hodges & Lehmann 1963; Moses 1953. Longer samples
    are thinned to evenly spaced order statistics; the ranks are those of all values.
    """
    m, n = len(a), len(b)
    shifts = np.sort(np.subtract.outer(_thinned(b), _thinned(a)), axis=None)
    rank = math.floor(m * n / 2 - NORMAL_975 * math.sqrt(m * n * (m + n + 1) / 12) + 0.5)  # ranks are whole numbers
    middle = float(np.median(shifts))
    if rank < 1:
        return middle, -math.inf, math.inf
    place = math.floor(rank / (m * n) * len(shifts) + 1e-9)
    place = min(max(place, 1), len(shifts) // 2)
    return middle, float(shifts[place - 1]), float(shifts[len(shifts) - place])


def combined(effects: Sequence[Effect]) -> Effect:
    """The mean of several logs. What was assumed of two single runs does not average out; the rest does."""
    k, middle = len(effects), float(np.mean([effect.log for effect in effects]))
    shared = sum(effect.shared for effect in effects) / k

    def reach(side: str) -> float:
        own = sum(max(0.0, (getattr(e, side) - e.log) ** 2 - e.shared**2) for e in effects)
        return math.sqrt(own / k**2 + shared**2)

    return _reaching(middle, reach("low"), reach("high"), spread=math.nan, method=f"geometric mean of {k}")


def verdict(effect: Effect, margin: float, *, higher_is_faster: bool = False, p: float | None = None) -> CompareVerdict:
    """What the interval says of a margin: both proven and worth it, proven to be too small, or neither.

    `p`: the adjusted one; a difference counts only below 0.05. A rate is inverted: time for a thing, not things a time.
    """
    sign = -1 if higher_is_faster else 1
    low, ratio, high = sorted(_exp(sign * log) for log in (effect.low, effect.log, effect.high))
    proven = p is None or p < 1 - CONFIDENCE
    if low > 1 and ratio >= 1 + margin and proven:
        return "slower"
    if high < 1 and ratio <= 1 - margin and proven:
        return "faster"
    return "no practical difference" if 1 - margin < low and high < 1 + margin else "inconclusive"


def runs_needed(effect: Effect, margin: float, tests: float = 1.0) -> int | None:
    """Pairs, or runs a side, after which an effect of the measured size would be decided; None: more than 200.

    `tests`: by how much its p is corrected, if it is one of several that are distinguished from none.

    An effect beyond the margin must be distinguished from none, a smaller one from the margin; one right at the margin
    is decided by no number of runs, so that a quarter of the margin is the least that is distinguished.
    """
    limit = math.log1p(margin)
    moved = abs(effect.log) >= limit
    gap = abs(effect.log) if moved else max(limit - abs(effect.log), limit / 4)
    side = (1 - CONFIDENCE) / 2 / (tests if moved else 1)
    if not math.isfinite(effect.spread):
        return None
    for k in range(2, _MOST_RUNS + 1):
        freedom = k - 1 if effect.paired else 2 * k - 2
        if student(1 - side, freedom) * effect.spread / math.sqrt(k) < gap:
            return k
    return None


def _widened(middle: float, below: float, above: float, sd: float, method: str) -> Effect:
    """Two single runs differ by chance with the deviation of both; it adds to that within them as squares do."""
    shared = NORMAL_975 * math.sqrt(2) * sd
    return _reaching(
        middle,
        math.hypot(below, shared),
        math.hypot(above, shared),
        spread=math.hypot((below + above) / 2, shared) / NORMAL_975,
        shared=shared,
        method=f"single runs, {method}, widened by {100 * sd:.3g} % between runs",
    )


def _by_student(middle: float, error: float, freedom: float, **known: Any) -> Effect:
    half = student((1 + CONFIDENCE) / 2, freedom) * error
    p = 2 * tail(abs(middle), error, freedom) if error else float(middle == 0)
    return Effect(log=middle, low=middle - half, high=middle + half, p=p, **known)


def _reaching(middle: float, below: float, above: float, **known: Any) -> Effect:
    """So far to either side; its p is that of the normal test whose interval reaches so far towards no difference."""
    side = below if middle > 0 else above
    p = 2 * float(special.ndtr(-abs(middle) / (side / NORMAL_975))) if side else float(middle == 0)
    return Effect(log=middle, low=middle - below, high=middle + above, p=p, **known)


def _thinned(x: Floats) -> Floats:
    if len(x) <= _MOST:
        return x
    return np.asarray(np.quantile(x, (np.arange(_MOST) + 0.5) / _MOST), np.float64)


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)
