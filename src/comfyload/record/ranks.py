"""Which value of an ordered sample is a quantile by nearest rank: the smallest with at least that share below or at it.

No numpy here: the generator judges itself, and progress is shown, while jobs run.
"""

import math
from collections.abc import Iterable, Sequence


def nearest_rank(n: int, share: float) -> int:
    """The rank, from 1, of the quantile among `n` > 0 values; of the p99 of 100 it is 99."""
    return max(1, math.ceil(share * n - 1e-9))


def quantiles_of(values: Iterable[float], shares: Sequence[float]) -> list[float]:
    """The quantiles of at least one value."""
    ordered = sorted(values)
    return [ordered[nearest_rank(len(ordered), share) - 1] for share in shares]
