"""Estimates from cut durations: right on average, as sure as they say, and never beyond what is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload.judge.statistics.survival import Lengths, censored_percentiles, incidence, product_limit_interval

pytestmark = pytest.mark.long

TRIALS = 500
jobs = st.lists(
    st.tuples(st.floats(0.001, 1e3), st.sampled_from(["completed", "failed", "cut"])), min_size=1, max_size=60
)


def _cut(rng: np.random.Generator, n: int, cut_at: float) -> Lengths:
    """Exponential durations, each cut at a time of its own, as in a run that is cut off in steady state."""
    seconds, limits = rng.exponential(1, n), rng.uniform(0, cut_at, n)
    cut = seconds > limits
    return Lengths(seconds=np.where(cut, limits, seconds), cut=cut, failed=np.zeros(n, np.bool_))


@pytest.mark.parametrize(("n", "cut_at", "p"), [(60, 4.0, 0.5), (200, 4.0, 0.5), (200, 8.0, 0.9)])
def test_a_quantile_of_cut_durations(n: int, cut_at: float, p: float) -> None:
    rng, truth = np.random.default_rng(1), -math.log(1 - p)
    held, values = 0, []
    for _ in range(TRIALS):
        lengths = _cut(rng, n, cut_at)
        low, high = product_limit_interval(incidence(lengths), p)
        held += (low is None or low <= truth) and (high is None or truth <= high)
        values.append(censored_percentiles(lengths, [p])[0].value)
    assert held / TRIALS >= 0.92
    known = [value for value in values if value is not None]
    assert np.median(known) == pytest.approx(truth, rel=0.06)


def test_leaving_cut_jobs_out_or_counting_them_as_ended_flatters() -> None:
    lengths = _cut(np.random.default_rng(2), 20_000, 2.0)
    (median,) = censored_percentiles(lengths, [0.5])
    assert median.value == pytest.approx(math.log(2), rel=0.03)
    assert np.median(lengths.seconds[~lengths.cut]) < 0.8 * math.log(2)
    assert np.median(lengths.seconds) < 0.8 * math.log(2)


@given(jobs, st.sampled_from([0.5, 0.9]))
def test_the_estimate_lies_between_the_best_and_the_worst_of_what_the_cut_jobs_may_become(
    made: list[tuple[float, str]], p: float
) -> None:
    seconds = np.array([length for length, _ in made])
    ends = np.array([end for _, end in made])
    lengths = Lengths(seconds=seconds, cut=ends == "cut", failed=ends == "failed")
    known = incidence(lengths)
    shares = np.concatenate((known.completed, [known.completed[-1] + known.open if len(known.completed) else 1.0]))
    assert np.all(np.diff(shares) >= -1e-12) and shares[-1] <= 1 + 1e-9
    completed = np.array([(ends[seconds <= t] == "completed").sum() for t in known.times])
    assert np.all(known.completed >= completed / len(made) - 1e-9)  # worst: no cut job ever completes
    assert np.all(known.completed <= (completed + (ends == "cut").sum()) / len(made) + 1e-9)
    (statistic,) = censored_percentiles(lengths, [p])
    assert statistic.value is None or not math.isnan(statistic.value)
    if statistic.low is not None and statistic.value is not None:
        assert statistic.low <= statistic.value
    if statistic.high is not None and statistic.value is not None:
        assert statistic.high >= statistic.value
