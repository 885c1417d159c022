"""Waiting: the recursion without a loop against a loop, against a formula, and against servers told one by one."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from comfyload.advise.queueing import after, fleet, lindley
from comfyload.advise.service_times import Workload
from tests.unit.advise_pools import pools_of_one, pools_of_two


def _waiting(jobs: int, seed: int = 1, load: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(1 / load, (3, jobs)), 1), rng.lognormal(-0.02, 0.2, (3, jobs))


def test_departures_are_those_of_a_loop() -> None:
    arrivals, services = _waiting(500)
    naive = np.empty_like(arrivals)
    for row in range(3):
        free = 0.0
        for at in range(500):
            free = naive[row, at] = max(arrivals[row, at], free) + services[row, at]
    assert np.allclose(lindley(arrivals, services), naive)


def test_no_job_waits_where_none_is_before_it() -> None:
    assert lindley(np.array([0.0, 10.0, 20.0]), np.array([3.0, 4.0, 5.0])).tolist() == [3, 14, 25]


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    rng = np.random.default_rng(2)
    shape = (100, 20_000)
    services = np.where(rng.random(shape) < 0.125, 20.0, 8.0)
    arrivals = np.cumsum(rng.exponential(9.5 / load, shape), 1)
    waits = (lindley(arrivals, services) - arrivals - services)[:, 2000:]
    second = 0.125 * 400 + 0.875 * 64
    assert waits.mean() == pytest.approx(load / 9.5 * second / (2 * (1 - load)), rel=0.01)


@pytest.mark.parametrize("servers", [2, 5])
def test_the_shortest_queue_is_counted_in_jobs(servers: int) -> None:
    arrivals, services = _waiting(400, load=0.9 * servers)
    codes = np.zeros(arrivals.shape, np.int64)
    departures, took = fleet(arrivals, codes, services, services, servers=servers, dispatch="shortest_queue")
    for row in range(3):
        there: list[list[float]] = [[] for _ in range(servers)]
        used = [-1] * servers
        for at in range(400):
            now = arrivals[row, at]
            there = [[end for end in ends if end > now] for ends in there]
            chosen = min(range(servers), key=lambda server: (len(there[server]), used[server]))
            done = max([now, *there[chosen]]) + services[row, at]
            there[chosen].append(done)
            used[chosen] = at
            assert departures[row, at] == pytest.approx(done)
    assert np.array_equal(took, services)


@pytest.mark.parametrize("servers", [2, 5])
def test_who_knows_what_each_job_takes_makes_one_queue_of_all(servers: int) -> None:
    """Kiefer and Wolfowitz: the next job goes to the server that is free first."""
    arrivals, services = _waiting(400, load=0.9 * servers)
    codes = np.zeros(arrivals.shape, np.int64)
    departures, _ = fleet(arrivals, codes, services, services, servers=servers, dispatch="affinity")
    for row in range(3):
        free = [0.0] * servers
        for at in range(400):
            done = max(arrivals[row, at], free[0]) + services[row, at]
            heapq.heapreplace(free, done)
            assert departures[row, at] == pytest.approx(done)


def test_a_dispatcher_goes_by_what_it_expects_and_not_by_what_jobs_take() -> None:
    arrivals, codes = np.array([[0.0, 1.0, 2.0]]), np.zeros((1, 3), np.int64)
    takes, expected = np.array([[100.0, 10.0, 10.0]]), np.full((1, 3), 20.0)
    departures, _ = fleet(arrivals, codes, takes, takes, servers=2, dispatch="affinity", expected=(expected, expected))
    assert departures.tolist() == [[100.0, 11.0, 110.0]]


def test_in_turn_is_a_queue_for_each_server() -> None:
    arrivals, services = _waiting(99, load=1.6)
    codes = np.zeros(arrivals.shape, np.int64)
    departures, _ = fleet(arrivals, codes, services, services, servers=2, dispatch="round_robin")
    assert np.allclose(departures[:, 1::2], lindley(arrivals[:, 1::2], services[:, 1::2]))


def test_a_switch_costs_on_the_server_that_switches() -> None:
    codes = np.array([[0, 0, 1, 1, 0]])
    warm, switched = np.full((1, 5), 8.0), np.full((1, 5), 17.0)
    assert after(codes, warm, switched).tolist() == [[17, 8, 17, 8, 17]]
    arrivals = np.array([[0.0, 100, 200, 300, 400]])
    _, took = fleet(arrivals, codes, warm, switched, servers=2, dispatch="affinity", spill_s=18.0)
    assert took.tolist() == [[17, 8, 17, 8, 8]]


def test_a_job_goes_elsewhere_only_where_enough_waits_at_home() -> None:
    codes = np.zeros((1, 4), np.int64)
    warm, switched = np.full((1, 4), 10.0), np.full((1, 4), 15.0)
    departures, took = fleet(np.zeros((1, 4)), codes, warm, switched, servers=2, dispatch="affinity", spill_s=22.0)
    assert took.tolist() == [[15, 10, 15, 10]]
    assert departures.tolist() == [[15, 25, 15, 25]]


def test_a_workload_that_sticks_switches_less_and_costs_less() -> None:
    eight, eleven = np.full(20, 8.0), np.full(20, 11.0)
    pools = pools_of_two([eight, eleven], [eight + 9, eleven + 9])
    free, sticky = Workload(shares=[1, 1]), Workload(shares=[1, 1], stickiness=0.9)
    assert pools.mean_s(free) == pytest.approx(9.5 + 4.5)
    assert pools.mean_s(sticky) == pytest.approx(9.5 + 0.45)
    drawn = sticky.draw((2, 5000), np.random.default_rng(3))
    assert np.mean(drawn[:, 1:] != drawn[:, :-1]) == pytest.approx(0.05, abs=0.01)


def test_jobs_of_one_workflow_count_once() -> None:
    assert pools_of_one([1.0] * 7).n == 7
