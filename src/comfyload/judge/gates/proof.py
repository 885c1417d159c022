"""What counts and values prove of a limit, or disprove: p-values, and how many jobs it would take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import special

__all__ = [
    "SIDE",
    "count_test",
    "disproof",
    "effective_n",
    "holm",
    "needed",
    "proof",
    "share_bounds",
    "student",
    "tail",
]

SIDE = 0.05
"""Chance of a false PASS where a run stands exactly at the limit; the same of a false FAIL."""


def proof(bad: float, n: float, allowed: float) -> float:
    """Chance of no more than `bad` of `n` where the share of bad ones is `allowed`: proves that it is below.

    Trials need not be whole: between whole ones the binomial goes on as the incomplete beta function.
    """
    return float(special.betainc(n - bad, bad + 1, 1 - allowed)) if bad < n else 1.0


def disproof(bad: float, n: float, allowed: float) -> float:
    """Chance of `bad` or more of `n` where the share of bad ones is `allowed`: disproves that it is no more."""
    return float(special.betainc(bad, n - bad + 1, allowed)) if bad > 0 else 1.0


def needed(bad: int, allowed: float, side: float = SIDE, *, per_trial: float = 1.0) -> int | None:
    """Fewest jobs, `bad` of them on the wrong side, that prove a share below `allowed`; None if none does.

    The rule of MLPerf's early stopping, with nothing set aside.
    """
    if allowed <= 0:
        return None

    def proven(n: int) -> bool:
        return proof(bad / per_trial, n / per_trial, allowed) <= side

    low, high = bad, bad + 1
    while not proven(high):
        low, high = high, 2 * high
        if high > 1 << 40:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proven(middle) else (middle, high)
    return high


def count_test(bad: tuple[int, int], n: int, allowed: float, tau: float = 1.0) -> tuple[float, float]:
    """p-values of the proof and of the disproof that the share of bad ones is below `allowed`.

    `bad`: the fewest and the most there can be. `n / tau` independent jobs carry the same shares, rounded to the side
    that says less; and no dependence makes a verdict that counting all jobs would not.
    """
    few = effective_n(n, tau)
    fewest, most = math.floor(bad[0] * few / n + 1e-9), math.ceil(bad[1] * few / n - 1e-9)
    return (
        max(proof(bad[1], n, allowed), proof(most, few, allowed)),
        max(disproof(bad[0], n, allowed), disproof(fewest, few, allowed)),
    )


def effective_n(n: int, tau: float) -> int:
    """How many whole independent jobs `n` of them are worth."""
    return max(1, math.floor(n / tau + 1e-9))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as large as Holm's (1979) step-down procedure makes it, in the same order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def share_bounds(k: float, n: float) -> tuple[float, float]:
    """Clopper & Pearson's bounds of a share, 5 % on each side."""
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, SIDE))
    high = 1.0 if k >= n else float(special.betaincinv(k + 1, n - k, 1 - SIDE))
    return low, high


def student(q: float, freedom: float) -> float:
    return float(special.ndtri(q) if math.isinf(freedom) else special.stdtrit(freedom, q))


def tail(x: float, sd: float, freedom: float) -> float:
    """Chance of as much or more, if it is nothing but noise of that deviation."""
    if sd <= 0:
        return 0.0 if x > 0 else 1.0
    return float(special.ndtr(-x / sd) if math.isinf(freedom) else special.stdtr(freedom, -x / sd))
