"""Intervals hold the truth as often as they say where values depend on each other by themselves.

`tests/error_rates` has the intervals of skewed times, and of jobs that depend on each other by a queue.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyload.judge.statistics.dependence import autocorrelation_time
from comfyload.judge.statistics.means import mean
from comfyload.judge.statistics.stats import quantile_interval, quantile_time

pytestmark = pytest.mark.long

TRIALS = 600
Z95 = 1.6448536269514722


def _holds(interval: tuple[float | None, float | None], truth: float) -> bool:
    low, high = interval
    return (low is None or low <= truth) and (high is None or truth <= high)


def _ar1(rng: np.random.Generator, phi: float, n: int) -> np.ndarray:
    x, noise = np.zeros(n + 200), rng.normal(size=n + 200)
    for i in range(1, n + 200):
        x[i] = phi * x[i - 1] + noise[i]
    return x[200:]


@pytest.mark.parametrize("n", [60, 200])
def test_the_p95_of_independent_jobs(n: int) -> None:
    rng, truth = np.random.default_rng(1), math.exp(0.4 * Z95)
    samples = [rng.lognormal(0, 0.4, n) for _ in range(TRIALS)]
    assert np.mean([_holds(quantile_interval(x, 0.95, 0.9), truth) for x in samples]) >= 0.88
    estimated = [_holds(quantile_interval(x, 0.95, 0.9, quantile_time(x, 0.95)), truth) for x in samples]
    assert np.mean(estimated) >= 0.88


def test_the_p95_of_dependent_jobs_needs_the_correction() -> None:
    rng, phi = np.random.default_rng(2), 0.7
    truth = math.exp(0.4 * Z95 / math.sqrt(1 - phi**2))
    samples = [np.exp(0.4 * _ar1(rng, phi, 200)) for _ in range(TRIALS)]
    naive = np.mean([_holds(quantile_interval(x, 0.95, 0.9), truth) for x in samples])
    corrected = np.mean([_holds(quantile_interval(x, 0.95, 0.9, quantile_time(x, 0.95)), truth) for x in samples])
    assert naive < 0.82
    assert corrected >= 0.86


def test_the_mean_of_dependent_values() -> None:
    rng = np.random.default_rng(4)
    found = [mean(_ar1(rng, 0.6, 600)) for _ in range(TRIALS)]
    assert np.mean([one.low is not None and one.high is not None for one in found]) >= 0.95
    assert np.mean([_holds((one.low, one.high), 0.0) for one in found]) >= 0.91


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6, 0.8])
def test_autocorrelation_time_recovers_a_known_process(phi: float) -> None:
    x = _ar1(np.random.default_rng(6), phi, 50_000)
    assert autocorrelation_time(x) == pytest.approx((1 + phi) / (1 - phi), rel=0.15)
