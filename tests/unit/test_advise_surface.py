"""What a slider shows between simulated rates agrees with what is simulated for a rate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from comfyload.advise.forecast import forecasts
from comfyload.advise.queueing import Dispatch
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.advise.surface import Surface, sized, surface
from tests.unit.advise_pools import pools_of_one, pools_of_two, unimodal


def one() -> ServiceTimes:
    return pools_of_one(unimodal(120, np.random.default_rng(1)))


def made(pools: ServiceTimes, servers: int, dispatch: Dispatch = "affinity") -> Surface:
    workload = Workload(shares=[1.0] * len(pools.workflows))
    return surface(pools, workload, servers, dispatch, np.random.default_rng(3))


@pytest.mark.parametrize("servers", [1, 3])
def test_between_simulated_rates_it_is_what_is_simulated_there(servers: int) -> None:
    rng = np.random.default_rng(2)
    pools = pools_of_two([unimodal(80, rng)] * 2, [1.5 * unimodal(80, rng)] * 2)
    found = made(pools, servers)
    for share in (0.2, 0.45, 0.6, 0.8, 0.88):
        rate = share * found.rates_per_s[-1]
        (row,) = forecasts(
            pools,
            Workload(shares=[1.0, 1.0]),
            rates_per_s=[rate],
            servers=[servers],
            deadline_s=30.0,
            rng=np.random.default_rng(9),
        )
        shown = found.at(rate, 30.0)
        assert shown.stable and row.stable
        assert shown.load.estimate == pytest.approx(row.load.estimate, rel=0.03)
        for name, within in (("p50_s", 0.05), ("p95_s", 0.1), ("p99_s", 0.15)):
            ours, theirs = getattr(shown, name), getattr(row, name)
            assert ours.estimate == pytest.approx(theirs.estimate, rel=within), name
            assert ours.low <= ours.estimate <= ours.high
            assert ours.low < theirs.estimate < ours.high
        assert shown.missed is not None and row.missed is not None
        assert shown.missed.estimate == pytest.approx(row.missed.estimate, abs=0.03)
        assert shown.missed.low <= shown.missed.estimate <= shown.missed.high


def test_latencies_grow_with_the_rate_and_have_no_limit_beyond_the_capacity() -> None:
    found = made(one(), 1)
    rates = [found.rates_per_s[-1] * share / 50 for share in range(1, 51)]
    values = [found.at(rate).p95_s for rate in rates]
    assert all(a.estimate <= b.estimate + 1e-9 for a, b in itertools.pairwise(values))
    assert not any(math.isnan(number) for value in values for number in (value.estimate, value.low, value.high))
    beyond = found.at(1.1 * found.rates_per_s[-1], 45.0)
    assert not beyond.stable and math.isinf(beyond.p50_s.estimate)
    assert beyond.missed is not None and beyond.missed.estimate == 1.0
    assert beyond.load.estimate > 0.97


def test_jobs_that_may_be_too_many_have_no_upper_end() -> None:
    """With few jobs measured, the capacity itself may lie below the rate."""
    found = made(pools_of_one([5.0, 6.0, 30.0]), 1)
    top = found.at(found.rates_per_s[-1], 45.0)
    assert top.stable and math.isfinite(top.p95_s.estimate) and math.isinf(top.p95_s.high)
    assert top.missed is not None and top.missed.high == 1.0 and not math.isnan(top.missed.low)
    between = found.at((found.rates_per_s[-1] + found.rates_per_s[-2]) / 2)
    assert not math.isnan(between.p95_s.high)


def test_how_many_servers_a_rate_needs() -> None:
    surfaces = {servers: made(one(), servers, "round_robin") for servers in (1, 2, 3)}
    per_s = surfaces[1].rates_per_s[-1]
    found = sized(surfaces, 0.5 * per_s, 60.0)
    assert (found.enough, found.with_spare) == (1, 2)
    found = sized(surfaces, 1.5 * per_s, 60.0)
    assert (found.enough, found.with_spare) == (2, 3)
    del surfaces[3]
    found = sized(surfaces, 1.5 * per_s, 60.0)
    assert (found.enough, found.with_spare) == (2, None)
    assert sized(surfaces, 9 * per_s, 60.0).enough is None
    assert sized(surfaces, 0.5 * per_s, 1.0).rows == []
