"""A trend seldom marks a step that is none, and finds one of 10 % soon."""

from __future__ import annotations

import pytest

from tests.error_rates.laws import chance
from tests.error_rates.trend import HARDER_LAWS, TREND_LAWS, failures, simulate

pytestmark = pytest.mark.timeout(240)

FALSE, SERIES, METRICS = 0.05, 60, ("p50", "p95", "rate")


def test_a_constant_level_seldom_has_a_step_and_a_change_is_found() -> None:
    said = simulate(TREND_LAWS["15%x2.5"], 0.04, 25, 1)
    assert all(said[name].false <= FALSE + chance(FALSE, 25) for name in METRICS)
    assert simulate(TREND_LAWS["logn .05"], 0.02, 10, 2)["p95"].soon >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.02, 0.04])
@pytest.mark.parametrize("name", TREND_LAWS)
def test_false_steps_are_five_of_a_hundred_series_at_most(name: str, noise: float) -> None:
    said = simulate(TREND_LAWS[name], noise, SERIES, 3)
    for metric in METRICS:
        assert said[metric].false <= FALSE + chance(FALSE, SERIES), metric
        assert said[metric].doubted <= 0.03, metric
    if noise == 0.02:
        found = METRICS if name == "logn .05" else ("p50", "rate") if name == "logn .15" else ("p50",)
        assert all(said[metric].soon >= 0.6 for metric in found)
        assert name != "logn .15" or said["p95"].late >= 0.6


@pytest.mark.long
def test_a_median_between_two_kinds_of_jobs_is_no_step() -> None:
    assert simulate(HARDER_LAWS["50%x2"], 0.02, SERIES, 5)["p50"].false <= FALSE + chance(FALSE, SERIES)


@pytest.mark.long
def test_a_success_rate_that_falls_is_found_and_chance_is_not() -> None:
    said = failures(0.02, 0.10, 100, 4)
    assert said.false <= FALSE and said.late >= 0.8
