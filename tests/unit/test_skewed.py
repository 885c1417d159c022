"""Intervals of skewed means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from comfyload.judge.statistics.skewed import skewed_interval, third_moment
from tests.error_rates.laws import LAWS, Law, chance


def test_without_skew_it_is_students_interval() -> None:
    assert skewed_interval(10.0, 2.0, 0.0, 11) == pytest.approx(stats.t.interval(0.95, 11, 10.0, 2.0))


@given(skew=st.floats(-2, 2), freedom=st.floats(1.5, 500), error=st.floats(1e-6, 1e3))
def test_it_holds_the_mean_unless_all_is_skew_and_mirrors_with_its_sign(
    skew: float, freedom: float, error: float
) -> None:
    low, high = skewed_interval(0.0, error, skew, freedom)
    mirrored = skewed_interval(0.0, error, -skew, freedom)
    assert low < high and mirrored == pytest.approx((-high, -low))
    assert low <= 0 <= high


def _covers(law: Law, n: int, runs: int) -> float:
    x = law.draw(np.random.default_rng(n), (runs, n))
    inside = 0
    for row in x:
        error = float(row.std(ddof=1)) / n**0.5
        skew = third_moment(row) / float(row.std()) ** 3 / n**0.5
        low, high = skewed_interval(float(row.mean()), error, skew, n - 1)
        inside += low <= law.mean <= high
    return inside / runs


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)
def test_from_60_independent_values_it_holds_the_mean_of_every_law(law: Law) -> None:
    assert _covers(law, 60, 1500) >= 0.94 - chance(0.94, 1500)
