"""What counts prove or disprove of a limit: p-values, and how many jobs a proof takes."""

import math

from scipy import special

SIDE = 0.05
"""Chance of a false PASS where a run stands exactly at the limit; the same of a false FAIL."""


def proof(bad: float, n: float, allowed: float) -> float:
    """Chance of no more than `bad` of `n` where the share of bad ones is `allowed`: proves that it is below.

    Trials need not be whole: between whole ones the binomial goes on as the incomplete beta function.
    """
    return float(special.betainc(n - bad, bad + 1, 1 - allowed)) if bad < n else 1.0


def disproof(bad: float, n: float, allowed: float) -> float:
    """Chance of `bad` or more of `n` where the share of bad ones is `allowed`; a small one disproves that share."""
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
    """How many whole independent jobs carry the information of `n` of them."""
    return max(1, math.floor(n / tau + 1e-9))
