"""Quantiles by nearest rank, and numbers in sentences."""

from __future__ import annotations

import math

import pytest

from comfyload.judge.words import digits, percent, seconds
from comfyload.load.selfcheck import spread
from comfyload.record.ranks import nearest_rank, quantiles_of


def test_a_quantile_is_the_smallest_value_with_so_many_at_or_below_it() -> None:
    hundred = [float(i) for i in range(100, 0, -1)]
    assert quantiles_of(hundred, (0.5, 0.95, 0.99, 1.0)) == [50.0, 95.0, 99.0, 100.0]
    assert quantiles_of([7.0], (0.0, 0.5, 0.99)) == [7.0, 7.0, 7.0]
    assert [nearest_rank(10, share) for share in (0.0, 0.1, 0.11, 0.29, 0.3, 0.9)] == [1, 1, 2, 3, 3, 9]


def test_the_generator_states_its_own_lateness_by_the_same_rank() -> None:
    found = spread([float(i) for i in range(1, 101)])
    assert found is not None and (found.n, found.p50, found.p99, found.max) == (100, 50.0, 99.0, 100.0)
    assert spread([]) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (0.3333, "0.333"),
        (0.3, "0.3"),
        (12.345, "12.3"),
        (909.4, "909"),
        (1279.6, "1 280"),
        (11043.0, "11 000"),
    ],
)
def test_a_number_has_three_digits_and_no_power_of_ten(value: float, words: str) -> None:
    assert digits(value) == words


def test_a_time_has_one_unit_and_only_all_is_100_per_cent() -> None:
    assert [seconds(value) for value in (0.0042, 0.842, 1.0, 72.34)] == ["4.2 ms", "842 ms", "1 s", "72.3 s"]
    assert [percent(share) for share in (1.0, 0.9999, 0.98, 0.0)] == ["100 %", "99.99 %", "98 %", "0 %"]
    assert digits(math.inf) == "inf"
