"""The intervals hold the truth as often as they say, on data like a server's: skewed, and dependent in a queue."""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyload.judge.stats import (
    autocorrelation_time,
    mean_interval,
    quantile_interval,
    quantile_time,
    ratio_interval,
)

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


@pytest.mark.parametrize("n", [12, 60, 200])
def test_the_mean_of_independent_jobs(n: int) -> None:
    rng, truth = np.random.default_rng(3), math.exp(0.08)
    samples = [rng.lognormal(0, 0.4, n) for _ in range(TRIALS)]
    assert np.mean([_holds(mean_interval(x, tau=autocorrelation_time(x)), truth) for x in samples]) >= 0.92


def test_the_mean_of_dependent_jobs_needs_the_correction() -> None:
    rng = np.random.default_rng(4)
    samples = [_ar1(rng, 0.6, 200) for _ in range(TRIALS)]
    assert np.mean([_holds(mean_interval(x), 0.0) for x in samples]) < 0.75
    assert np.mean([_holds(mean_interval(x, tau=autocorrelation_time(x)), 0.0) for x in samples]) >= 0.91


@pytest.mark.parametrize("n", [12, 60])
def test_the_rate_of_a_serial_server(n: int) -> None:
    rng = np.random.default_rng(5)
    gaps = [rng.gamma(6, 1 / 6, n) for _ in range(TRIALS)]
    assert np.mean([_holds(ratio_interval(np.ones(n), g)[1], 1.0) for g in gaps]) >= 0.92


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6, 0.8])
def test_autocorrelation_time_recovers_a_known_process(phi: float) -> None:
    x = _ar1(np.random.default_rng(6), phi, 50_000)
    assert autocorrelation_time(x) == pytest.approx((1 + phi) / (1 - phi), rel=0.15)
