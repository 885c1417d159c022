"""Quantiles by nearest rank."""

from __future__ import annotations

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
