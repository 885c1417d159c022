"""How values of a series depend on those before them, and so how many independent ones carry the same information."""

import numpy as np

from comfyload.judge.arrays import Flags, Floats

_LAGS = 32
_MORE = 2048
"""Lags looked at together, at least, where those before them did not see the end of the correlation."""


def autocorrelation_time(x: Floats | Flags) -> float:
    """How many consecutive values carry the information of one: `1 + 2 * sum(rho_k)`, from 1 to n.

    The sum runs over Geyer's (1992) initial positive sequence of pairs. Below 1 is reported as 1: that neighbours
    balance each other is not taken as a reason for a narrower interval.
    """
    n = len(x)
    if n < 4:
        return 1.0
    centred = x - np.mean(x)
    variance = sum_of_products(centred, centred)
    if _constant(x, variance):
        return 1.0
    total, even = 0.0, n - n % 2
    # Jobs are mostly near independence: a few lags one by one cost less than many by Fourier transform.
    for lag in range(0, min(even, _LAGS), 2):
        pair = (sum_of_products(centred[lag:], centred) + sum_of_products(centred[lag + 1 :], centred)) / variance
        if pair <= 0:
            return _clamped(total, n)
        total += pair
    lag = _LAGS
    while lag < even:
        count = max(_MORE, min(lag, n // 16) & ~1)
        covariance = _covariance(centred, lag, min(count, even - lag))
        pairs = covariance[0::2] + covariance[1::2]
        ends = np.flatnonzero(pairs <= 0)
        total += float(np.sum(pairs[: int(ends[0]) if len(ends) else len(pairs)])) / variance
        if len(ends):
            break
        lag += count
    return _clamped(total, n)


def lag_one(x: Floats) -> float:
    """The correlation of each value with the one before it; 0 where there is one value, or all are the same."""
    centred = x - np.mean(x)
    whole = float(np.sum(centred**2))
    return 0.0 if _constant(x, whole) else float(np.sum(centred[1:] * centred[:-1])) / whole


def _constant(x: Floats | Flags, squares: float) -> bool:
    """Whether the values are the same up to rounding; `squares`: the sum of their squared deviations."""
    largest = max(float(np.max(x)), -float(np.min(x)))
    return squares <= len(x) * (1e-12 * max(1e-300, largest)) ** 2


def sum_of_products(x: Floats, y: Floats) -> float:
    """As far as both go; not by a library of linear algebra, whose sums differ with its threads."""
    n = min(len(x), len(y))
    return float(np.einsum("i,i", x[:n], y[:n]))


def _covariance(x: Floats, lag: int, count: int) -> Floats:
    """The sums of `x[i] * x[i + k]` for `count` values of k from `lag` on, in memory of some times `count`."""
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.zeros(size // 2 + 1, np.complex128)
    for at in range(0, len(x) - lag, count):
        spectrum += np.conj(np.fft.rfft(x[at : at + count], size)) * np.fft.rfft(x[at + lag :][: 2 * count], size)
    return np.fft.irfft(spectrum)[:count]


def _clamped(pairs: float, n: int) -> float:
    return float(min(max(2 * pairs - 1, 1.0), n))
