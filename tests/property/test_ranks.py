"""Selected order statistics are those of the sorted sample."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from comfyload.judge.statistics.ranks import order_statistics, quantiles

SAMPLES = st.lists(st.floats(0, 100) | st.just(math.inf), min_size=1, max_size=60)


@given(values=SAMPLES, data=st.data())
def test_every_rank_has_the_value_it_has_when_sorted(values: list[float], data: st.DataObject) -> None:
    ranks = data.draw(st.sets(st.integers(1, len(values))))
    ordered = sorted(values)
    assert order_statistics(np.array(values), ranks) == {rank: ordered[rank - 1] for rank in ranks}


@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=60), p=st.floats(0.01, 0.99))
def test_quantiles_are_those_of_the_eighth_definition(values: list[float], p: float) -> None:
    expected = float(np.quantile(values, p, method="median_unbiased"))
    assert math.isclose(quantiles(np.array(values), [p])[p], expected, rel_tol=1e-9, abs_tol=1e-9)


def test_a_quantile_among_infinite_values_is_infinite_and_one_below_them_is_not() -> None:
    found = quantiles(np.array([1.0, math.inf, 2.0, 3.0]), [0.25, 0.9])
    assert found[0.25] < 2.0
    assert found[0.9] == math.inf
