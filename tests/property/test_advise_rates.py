"""How far forecasts err, over many made-up measurements of servers whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from comfyload.advise.forecast import highest_rate
from comfyload.advise.queueing import lindley
from comfyload.advise.service_times import Workload, pools_of
from comfyload.advise.validation import Prediction, validate
from comfyload.judge.arrays import Floats
from tests.unit.advise_pools import bimodal, pools_of_one, ran, unimodal

pytestmark = pytest.mark.long

Draw = Callable[[int, np.random.Generator], Floats]
ONE = Workload(shares=[1.0])
LIMIT_S = 45.0
SEEDS = 10
DRAWS: dict[str, Draw] = {
    "cv .2": lambda n, rng: unimodal(n, rng, 0.2),
    "cv .3": lambda n, rng: unimodal(n, rng, 0.3),
    "bimodal": bimodal,
}


def _truth(draw: Draw) -> float:
    """The rate whose p95 is the limit, from many jobs and by its own bisection."""
    rng = np.random.default_rng(99)
    services = draw(400_000, rng)
    gaps = np.cumsum(rng.standard_exponential(400_000))
    low, high = 0.0, 1 / services.mean()
    for _ in range(12):
        rate = (low + high) / 2
        arrivals = gaps / rate
        late = np.mean(lindley(arrivals, services) - arrivals > LIMIT_S)
        low, high = (rate, high) if late <= 0.05 else (low, rate)
    return low


@pytest.mark.parametrize(("name", "jobs", "most"), [("cv .2", 60, 0.06), ("cv .3", 80, 0.08), ("bimodal", 70, 0.15)])
def test_the_highest_rate_is_near_the_true_one(name: str, jobs: int, most: float) -> None:
    truth, errors, kept = _truth(DRAWS[name]), [], 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(1000 + seed)
        found = highest_rate(pools_of_one(DRAWS[name](jobs, rng)), ONE, LIMIT_S, rng=rng)
        errors.append(found.estimate / truth - 1)
        kept += found.low <= truth
    assert np.sqrt(np.mean(np.square(errors))) <= most
    assert kept / SEEDS >= 0.75  # what is to be deployed is meant to hold in nine of ten


@cache
def _replays() -> list[Prediction]:
    """p95 of runs of 400 jobs, replayed from 120 others: three shapes of work at three loads, 8 of each."""
    out = []
    for seed, load, shape in product(range(8), (0.5, 0.7, 0.85), ("unimodal", "bimodal", "switches")):
        rng = np.random.default_rng(1000 + seed)
        if shape == "switches":
            designed, order = np.array(["a", "a", "b", "b"] * 30), np.array(["a", "b"])[rng.integers(0, 2, 400)]
            pools = pools_of([ran(np.arange(120) * 100.0, _took(designed, rng), workflows=designed.tolist())])
            due = np.cumsum(rng.exponential(pools.mean_s(Workload(shares=[1, 1])) / load, 400))
            run = ran(due, _took(order, rng), workflows=order.tolist())
        else:
            draw = bimodal if shape == "bimodal" else unimodal
            pools = pools_of([ran(np.arange(120) * 100.0, draw(120, rng))])
            run = ran(np.cumsum(rng.exponential(pools.mean_s(ONE) / load, 400)), draw(400, rng))
        checks = {(check.name, check.of): check for check in validate(run, pools, rng=rng).checks}
        assert checks["structural", "mean"].error < 0.001
        out.append(checks["replay", "p95"])
    return out


def test_a_replay_is_near_what_was_measured() -> None:
    assert np.median([abs(check.error) for check in _replays()]) <= 0.10


def test_its_interval_holds_what_was_measured() -> None:
    assert np.mean([bool(check.inside) for check in _replays()]) >= 0.80


def _took(order: NDArray[np.str_], rng: np.random.Generator) -> Floats:
    """8 s and 11 s, and 9 s more after a switch."""
    switched = np.concatenate(([True], order[1:] != order[:-1]))
    out: Floats = (np.where(order == "a", 8.0, 11.0) + 9 * switched) * rng.lognormal(0, 0.08, len(order))
    return out


def test_switches_are_forecast_from_a_short_measurement_that_was_made_for_it() -> None:
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        planned = np.array(["a", "a", "b", "b"] * 10)
        pools = pools_of([ran(np.arange(40) * 100.0, _took(planned, rng), workflows=planned.tolist())])
        assert pools.made_up == [] and 8 < pools.switch_cost_s < 10
        order = np.array(["a", "b"])[rng.integers(0, 2, 300)]
        gap = pools.mean_s(Workload(shares=[1, 1])) / 0.7
        run = ran(np.cumsum(rng.exponential(gap, 300)), _took(order, rng), workflows=order.tolist())
        checks = {(check.name, check.of): check for check in validate(run, pools, rng=rng).checks}
        errors.append(abs(checks["replay", "p95"].error))
    assert np.median(errors) <= 0.10
