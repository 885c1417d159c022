"""Quantiles by nearest rank."""

from __future__ import annotations

from random import Random

from comfyload.load.selfcheck import EXACT, Spread
from comfyload.record.ranks import nearest_rank, quantiles_of


def test_a_quantile_is_the_smallest_value_with_so_many_at_or_below_it() -> None:
    hundred = [float(i) for i in range(100, 0, -1)]
    assert quantiles_of(hundred, (0.5, 0.95, 0.99, 1.0)) == [50.0, 95.0, 99.0, 100.0]
    assert quantiles_of([7.0], (0.0, 0.5, 0.99)) == [7.0, 7.0, 7.0]
    assert [nearest_rank(10, share) for share in (0.0, 0.1, 0.11, 0.29, 0.3, 0.9)] == [1, 1, 2, 3, 3, 9]


def test_the_generator_states_its_own_lateness_by_the_same_rank() -> None:
    found = Spread([float(i) for i in range(1, 101)]).quantiles()
    assert found is not None and (found.n, found.p50, found.p99, found.max) == (100, 50.0, 99.0, 100.0)
    assert Spread().quantiles() is None


def test_beyond_ten_thousand_values_a_spread_takes_no_more_memory_and_errs_by_half_a_percent_at_most() -> None:
    rng = Random(7)
    n = 3 * EXACT
    skewed = [rng.lognormvariate(-8, 2) for _ in range(n)]
    for values in (skewed, rng.choices([0.0, 2e-9, 0.5, 90_000.0], k=n), n * [0.004]):
        spread = Spread(values)
        found = spread.quantiles()
        assert found is not None and (found.n, found.max) == (len(values), max(values))
        for told, true in zip((found.p50, found.p99), quantiles_of(values, (0.5, 0.99)), strict=True):
            assert abs(told - true) <= max(0.0051 * true, 1e-7)
        assert not spread._exact and len(spread._counts) < 3000
