"""The statistics agree with scipy's and numpy's, which are slower, larger, or not safe with infinity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from comfyload.judge.statistics.binomial import clopper_pearson, wilson
from comfyload.judge.statistics.stats import quantile, quantile_interval

durations = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=200)
shares = st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99])


@given(durations, shares)
def test_quantiles_are_numpys_median_unbiased(values: list[float], p: float) -> None:
    expected = np.quantile(values, p, method="median_unbiased")
    assert quantile(np.array(values), p) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(durations, shares, st.integers(0, 20))
def test_a_quantile_with_failures_is_never_nan_and_never_below_that_without(
    values: list[float], p: float, failures: int
) -> None:
    whole = quantile(np.array(values + [math.inf] * failures), p)
    assert not math.isnan(whole)
    assert whole >= quantile(np.array(values), p) * (1 - 1e-12)


@given(st.integers(1, 400), shares, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_intervals_of_quantiles_have_scipys_ranks(n: int, p: float, confidence: float) -> None:
    x = np.arange(float(n))
    expected = oracle.quantile_test(x, p=p).confidence_interval(confidence)
    low, high = quantile_interval(x, p, confidence)
    assert (math.nan if low is None else low) == pytest.approx(expected.low, nan_ok=True)
    assert (math.nan if high is None else high) == pytest.approx(expected.high, nan_ok=True)


@given(durations, shares, st.floats(1, 20))
def test_dependence_never_narrows_an_interval(values: list[float], p: float, tau: float) -> None:
    x = np.array(values)
    low, high = quantile_interval(x, p)
    wide_low, wide_high = quantile_interval(x, p, tau=tau)
    if wide_low is not None:
        assert low is not None and wide_low <= low
    if wide_high is not None:
        assert high is not None and wide_high >= high


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_proportions_are_scipys(k_of_n: tuple[int, int]) -> None:
    k, n = k_of_n
    test = oracle.binomtest(k, n)
    assert clopper_pearson(k, n) == pytest.approx(tuple(test.proportion_ci(0.95, "exact")), abs=1e-12)
    assert wilson(k, n) == pytest.approx(tuple(test.proportion_ci(0.95, "wilson")), abs=1e-12)
