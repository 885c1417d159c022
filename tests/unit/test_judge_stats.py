"""When a statistic is given, when it is withheld, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyload.judge.statistics.bursts import bursts_of
from comfyload.judge.statistics.dependence import autocorrelation_time
from comfyload.judge.statistics.means import INDEPENDENT, mean, rate
from comfyload.judge.statistics.queue import Queue
from comfyload.judge.statistics.skewed import beyond
from comfyload.judge.statistics.stats import percentile, percentiles, proportion, quantile, upper_bound_needs


def _jobs(n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(n).permutation(np.linspace(1.0, 2.0, n))


@pytest.mark.parametrize(("p", "needs"), [(0.5, 1), (0.9, 10), (0.95, 20), (0.99, 299)])
def test_a_percentile_is_withheld_below_the_jobs_it_needs_and_given_from_there(p: float, needs: int) -> None:
    short, enough = percentile(_jobs(needs - 1), p), percentile(_jobs(needs), p)
    assert short.value is None and short.low is None and short.high is None and short.reason
    assert enough.value is not None and enough.n == needs


def test_the_reason_says_how_many_jobs_there_were_and_how_many_are_needed() -> None:
    assert percentile(_jobs(12), 0.95).reason == "12 jobs; a p95 needs 20"
    assert percentile(_jobs(0), 0.95).reason == "no jobs"


def test_a_p95_has_no_upper_bound_until_the_sample_can_carry_one() -> None:
    statistic = percentile(np.arange(58.0), 0.95)
    assert statistic.low is not None and statistic.high is None
    assert "no upper bound" in statistic.reason and "72" in statistic.reason
    jobs = _jobs(100)
    assert percentile(jobs, 0.95).high is not None and percentile(jobs, 0.95).reason == ""


def test_a_median_has_an_interval_from_six_jobs() -> None:
    assert percentile(_jobs(5), 0.5).low is None
    six = percentile(np.array([1.0, 6.0, 2.0, 5.0, 3.0, 4.0]), 0.5)
    assert (six.low, six.high) == (1.0, 6.0)


def test_upper_bounds_need_what_the_binomial_says() -> None:
    assert [upper_bound_needs(p) for p in (0.5, 0.9, 0.95, 0.99)] == [6, 36, 72, 368]


def test_failures_make_a_quantile_infinite_exactly_when_its_rank_falls_among_them() -> None:
    jobs = np.array([*np.arange(1.0, 98.0), *[math.inf] * 3])
    assert quantile(jobs, 0.5) == pytest.approx(50.5)
    assert quantile(jobs, 0.95) < 97
    assert quantile(jobs, 0.99) == math.inf
    assert quantile(np.array([math.inf, math.inf]), 0.5) == math.inf


def test_a_quantile_on_the_last_finite_value_does_not_become_infinite_or_nan() -> None:
    assert quantile(np.array([1.0, 2.0, math.inf]), 0.5) == 2.0


def test_statistics_of_failures_are_never_nan() -> None:
    statistic = percentile(np.array([1.0] * 10 + [math.inf] * 15), 0.95)
    assert statistic.value == math.inf
    assert not any(math.isnan(x) for x in (statistic.low, statistic.high) if x is not None)


def test_a_mean_of_one_job_has_a_value_and_no_interval() -> None:
    one = mean(np.array([3.0]))
    assert (one.value, one.low, one.high) == (3.0, None, None)
    assert "fewer than 2 independent jobs" in one.reason
    assert mean(np.array([])).value is None


def test_a_mean_never_exceeds_the_largest_value() -> None:
    for x in (0.1, 1 / 3, 12.345678901234567, 1e-9):
        for n in range(1, 60):
            assert mean(np.full(n, x)).value == x


def test_the_interval_of_a_mean_duration_is_never_negative() -> None:
    statistic = mean(np.array([12.0, *[0.02] * 11]))
    assert statistic.low is not None and statistic.low >= 0.0


def test_zero_of_zero_is_withheld_and_not_zero() -> None:
    assert proportion(0, 0).value is None


def test_twelve_clean_jobs_prove_no_more_than_three_quarters() -> None:
    low = proportion(12, 12).low
    assert low is not None and 0.73 < low < 0.74


def test_values_that_wait_for_each_other_widen_the_upper_end() -> None:
    x = np.random.default_rng(1).normal(10, 1, 400)
    narrow, wide = mean(x), mean(x, queue=Queue(memory=4.0))
    assert narrow.high is not None and wide.high is not None and wide.high > narrow.high and wide.low == narrow.low
    assert mean(x, queue=Queue(memory=math.inf)).high is None
    assert mean(x, queue=Queue(memory=40.0)).reason == (
        "no upper bound: jobs depend on each other; a mean's upper bound needs 59"
    )
    free, waited = percentiles(x, [0.95])[0], percentiles(x, [0.95], queue=Queue(memory=4.0))[0]
    assert free.high is not None and (waited.high is None or waited.high > free.high) and waited.low == free.low


def test_jobs_that_found_the_queue_short_prove_nothing() -> None:
    x = np.concatenate((np.full(3, 1.0), np.random.default_rng(1).normal(10, 1, 400)))
    whole, later = mean(x), mean(x, queue=Queue(early=3))
    assert whole.value == later.value and whole.high is not None and later.high is not None
    assert later.high == mean(x[3:]).high != whole.high


def test_a_mean_has_an_upper_end_from_59_jobs() -> None:
    few, enough = mean(_jobs(INDEPENDENT - 1)), mean(_jobs(INDEPENDENT))
    assert few.low is not None and few.high is None and enough.low is not None and enough.high is not None
    assert few.reason == "no upper bound: a mean's upper bound needs 59 jobs" and not enough.reason


def test_a_limit_at_the_end_of_an_interval_has_a_p_value_of_five_per_cent() -> None:
    x = np.random.default_rng(2).lognormal(0, 0.6, 200)
    found = mean(x)
    assert found.value and found.low and found.high and found.skew and found.n_eff
    for end in (found.low, found.high):
        assert beyond(found.value, end, end, found.skew, found.n_eff - 1) == pytest.approx(0.05)
    nearer = (found.value + found.high) / 2
    assert beyond(found.value, found.high, nearer, found.skew, found.n_eff - 1) > 0.05
    assert (beyond(1.0, 1.0, 1.0, 0.0, 9.0), beyond(1.0, 1.0, 1.1, 0.0, 9.0)) == (1.0, 0.0)


def test_bursts_are_unbroken_runs_of_failures() -> None:
    bursts = bursts_of(np.array([True, True, False, True, False, False, True, True, True]))
    assert (bursts.n, bursts.bad, bursts.runs) == (9, 6, 3)
    none = bursts_of(np.zeros(5, np.bool_))
    assert (none.bad, none.runs, none.observed(), none.jobs_per_trial(0.02)) == (0, 0, 1.0, 10.0)


def test_failures_in_bursts_widen_the_interval_of_their_share() -> None:
    apart, together = np.zeros(200, np.bool_), np.zeros(200, np.bool_)
    apart[::20], together[:10] = True, True
    wide, narrow = (proportion(190, 200, jobs_per_trial=bursts_of(bad).observed()) for bad in (together, apart))
    assert wide.low is not None and narrow.low is not None and wide.low < narrow.low
    assert "bursts" in wide.method and "independent" in narrow.method and narrow == proportion(190, 200)


def test_constant_and_tiny_samples_have_no_correlation() -> None:
    assert autocorrelation_time(np.full(50, 0.1)) == 1.0
    assert autocorrelation_time(np.array([1.0, 2.0])) == 1.0


@pytest.mark.parametrize("n", [4, 5, 33, 34, 500, 2081, 2082, 5001])
def test_a_correlation_that_lasts_is_summed_to_its_end(n: int) -> None:
    x = np.cumsum(np.random.default_rng(n).normal(size=n))
    centred = x - x.mean()
    every = np.correlate(centred, centred, "full")[n - 1 :]
    pairs = (every[0 : n - 1 : 2] + every[1:n:2]) / every[0]
    until = next((at for at, pair in enumerate(pairs) if pair <= 0), len(pairs))
    assert autocorrelation_time(x) == pytest.approx(max(1.0, 2 * pairs[:until].sum() - 1), rel=1e-9)


def test_a_rate_is_the_plain_quotient() -> None:
    made, gaps = np.array([1.0, 1.0, 2.0]), np.array([2.0, 1.0, 5.0])
    found = rate(made, gaps, per_s=60, unit="images/min", what="jobs")
    assert found.value == pytest.approx(30) and found.low is None and "no lower bound" in found.reason
    many = rate(np.tile(made, 40), np.tile(gaps, 40), per_s=60, unit="images/min", what="jobs")
    assert many.low is not None and many.high is not None and many.low < 30 < many.high


def test_no_bound_of_a_duration_or_a_rate_is_negative() -> None:
    few = mean(np.array([0.1, 0.1, 9.0]))
    assert few.low == 0.0 and few.value == pytest.approx(9.2 / 3)
    below = mean(np.array([-0.1, 0.1, 9.0]))
    assert below.low is not None and below.low < 0.0  # no duration
    wide = rate(np.ones(3), np.array([0.1, 0.1, 9.0]), per_s=60, unit="jobs/min", what="jobs")
    assert wide.value == pytest.approx(60 * 3 / 9.2) and wide.high is None


def test_a_rate_of_an_open_load_is_no_surer_than_its_arrivals() -> None:
    even = rate(np.ones(100), np.ones(100), per_s=60, unit="jobs/min", what="jobs", queue=Queue(rate_error=0.1))
    assert even.low == pytest.approx(60 / 1.198, rel=0.01) and even.high == pytest.approx(60 / 0.802, rel=0.01)
