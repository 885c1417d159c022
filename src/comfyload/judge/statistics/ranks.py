"""The values of a sample's ranks without sorting it: selecting a dozen of a million costs a fifth of that."""

import math
from collections.abc import Collection

import numpy as np

from comfyload.judge.arrays import Floats


def quantiles(x: Floats, shares: Collection[float]) -> dict[float, float]:
    """The median-unbiased quantiles (Hyndman & Fan 8), infinite where their rank falls among infinite values."""
    n = len(x)
    ranks = {p: min(max((n + 1 / 3) * p + 1 / 3, 1.0), float(n)) for p in shares}
    below = {p: math.floor(rank) for p, rank in ranks.items()}
    ordered = order_statistics(x, {at for rank in below.values() for at in (rank, min(rank + 1, n))})
    return {p: _between(ordered[below[p]], ordered[min(below[p] + 1, n)], ranks[p] - below[p]) for p in shares}


def _between(lower: float, upper: float, share: float) -> float:
    if share < 1e-12:  # interpolating inf with weight 0 would make a NaN
        return lower
    return math.inf if math.isinf(upper) else lower + share * (upper - lower)


def order_statistics(x: Floats, ranks: Collection[int]) -> dict[int, float]:
    """The values of these ranks, of which 1 is the smallest's."""
    at = sorted({rank - 1 for rank in ranks})
    return {rank + 1: value for rank, value in zip(at, np.partition(x, at)[at].tolist(), strict=True)} if at else {}
