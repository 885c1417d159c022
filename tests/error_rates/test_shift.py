"""A run without a change is seldom said to have one, and a step of a tenth and a slow leak are found."""

from __future__ import annotations

import pytest

from tests.error_rates.laws import chance
from tests.error_rates.shift import DRAWS, of_memory, of_times

pytestmark = pytest.mark.timeout(240)

FALSE, RUNS = 0.05, 200


def test_in_a_few_runs_nothing_is_told_falsely_and_a_step_is_found() -> None:
    for name in ("skewed: by 60 %", "dependent, AR(1) of 0.8", "a day's wave"):
        assert of_times(DRAWS[name], 400, 20, 1).false <= FALSE + chance(FALSE, 20)
    plain = of_times(DRAWS["jobs vary by 5 %"], 400, 10, 2)
    assert plain.step >= 0.9 and plain.rise >= 0.9
    assert of_memory(24, 0.0, 5, 1) == 0.0 and of_memory(24, 200.0, 5, 1, wave=0.0) == 1.0


@pytest.mark.long
@pytest.mark.parametrize("jobs", [400, 1600])
@pytest.mark.parametrize("name", DRAWS)
def test_of_a_hundred_runs_without_a_change_five_are_told_to_have_one_at_most(name: str, jobs: int) -> None:
    assert of_times(DRAWS[name], jobs, RUNS, 3).false <= FALSE + chance(FALSE, RUNS)


@pytest.mark.long
@pytest.mark.parametrize("name", DRAWS)
def test_in_a_day_of_a_job_a_second_a_step_of_a_tenth_is_found_and_dated(name: str) -> None:
    if name not in ("slow ones come in phases", "a day's wave"):  # which are larger than the step
        said = of_times(DRAWS[name], 86_400, 20, 4)
        assert said.step >= 0.95 and said.dated >= 0.9


@pytest.mark.long
def test_memory_that_follows_a_days_load_is_no_leak_and_a_leak_is_found() -> None:
    assert of_memory(24, 0.0, RUNS, 5) <= FALSE + chance(FALSE, RUNS)
    assert of_memory(48, 0.0, RUNS, 6) <= FALSE + chance(FALSE, RUNS)
    assert of_memory(24, 200.0, 50, 7, wave=0.0) >= 0.95
    assert of_memory(24, 1500.0, 50, 7) >= 0.6
