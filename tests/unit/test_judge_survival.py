"""Durations of which some were cut off: by hand, against a published example, and where nothing was cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyload.judge.statistics.stats import percentile
from comfyload.judge.statistics.survival import Lengths, censored_percentiles, incidence, product_limit_interval

# Remission of 21 patients in weeks (Freireich et al. 1963, the 6-MP arm), the textbooks' example; negative: cut off.
WEEKS = [6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35]


def _lengths(signed: list[float], failed: list[int] | None = None) -> Lengths:
    seconds = np.abs(np.array(signed, dtype=np.float64))
    fail = np.zeros(len(signed), np.bool_)
    fail[failed or []] = True
    return Lengths(seconds=seconds, cut=np.array(signed) < 0, failed=fail)


def test_five_jobs_by_hand() -> None:
    known = incidence(_lengths([1.0, 2.0, -2.5, 4.0, -5.0]))
    # 4/5, then 3/5, then of two at risk one ends: 3/10.
    assert known.times.tolist() == [1.0, 2.0, 4.0]
    assert known.completed.tolist() == pytest.approx([0.2, 0.4, 0.7])
    assert known.open == pytest.approx(0.3)
    assert known.greenwood.tolist() == pytest.approx([1 / 20, 1 / 20 + 1 / 12, 1 / 20 + 1 / 12 + 1 / 2])


def test_the_textbooks_example() -> None:
    known = incidence(_lengths([float(x) for x in WEEKS]))
    assert known.times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    survival = [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    assert (1 - known.completed).tolist() == pytest.approx(survival, abs=5e-5)
    errors = [0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346]
    assert ((1 - known.completed) * np.sqrt(known.greenwood)).tolist() == pytest.approx(errors, abs=5e-5)
    assert product_limit_interval(known, 0.5) == (13.0, None)


def test_a_quantile_that_too_few_reached_is_withheld_with_the_reason() -> None:
    median, p90 = censored_percentiles(_lengths([float(WEEKS[8 * i % 21]) for i in range(21)]), [0.5, 0.9])
    assert (median.value, median.low, median.high, median.method) == (23.0, 13.0, None, "kaplan-meier")
    assert "no upper bound" in median.reason
    assert p90.value is None and p90.reason == "censored: 12 of 21 jobs were cut off before enough had ended for a p90"


def test_nothing_cut_is_the_plain_percentile() -> None:
    x = np.random.default_rng(1).permutation(np.linspace(1.0, 2.0, 100))
    none = np.zeros(100, np.bool_)
    (same,) = censored_percentiles(Lengths(seconds=x, cut=none, failed=none), [0.95])
    assert same == percentile(x, 0.95)


def test_jobs_that_failed_never_complete_however_many_are_cut() -> None:
    # 4 of 8 failed at once: the median of a share of 1/2 is reached by the last to complete, the p90 never.
    lengths = _lengths([1, 1, 1, 1, 2, 3, 4, -5], failed=[0, 1, 2, 3])
    assert incidence(lengths).completed.tolist() == pytest.approx([1 / 8, 2 / 8, 3 / 8])
    median, p90 = censored_percentiles(lengths, [0.5, 0.9])
    assert median.value is None and median.method == "aalen-johansen" and "cut off" in median.reason
    assert p90.value == math.inf


def test_a_cut_job_is_not_taken_for_a_failure() -> None:
    # Redistributed to the right, the cut ones would all land on the one failure at infinity.
    lengths = _lengths([*range(1, 51), *[-60] * 49, 70], failed=[99])
    p50, p90 = censored_percentiles(lengths, [0.5, 0.9])
    assert p50.value == 50.0 and p50.low is None and p50.reason.startswith("censored: no interval")
    assert p90.value is None


def test_all_ended_reaches_every_quantile() -> None:
    known = incidence(_lengths([1.0, -1.5, 2.0, 3.0]))
    assert known.completed.tolist() == pytest.approx([0.25, 0.625, 1.0]) and known.open == pytest.approx(0.0)
    low, high = product_limit_interval(known, 0.5)
    assert low is not None and low <= 2.0 and (high is None or high >= 2.0)


def test_nobody_at_all() -> None:
    known = incidence(_lengths([]))
    assert len(known.times) == 0 and known.open == 1.0
    (only_cut,) = censored_percentiles(_lengths([-1.0, -2.0]), [0.5])
    assert only_cut.value is None
