"""How fast advice is computed: simulated jobs per second, forecasts, the search for a rate, a retry policy.

`python bench/advise.py` prints a line each, the median of three rounds on one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from comfyload.advise.choose_policy import synthesise
from comfyload.advise.forecast import forecasts, highest_rate, size
from comfyload.advise.naive_client import NAIVE
from comfyload.advise.queueing import fleet, lindley
from comfyload.advise.retry_model import play, worlds
from comfyload.advise.scenarios import Setting, scenarios
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.retry.policy import Admission, Policy

ROUNDS = 3
ONE, TWO = Workload(shares=[1.0]), Workload(shares=[1.0, 1.0])


def seconds(what: Callable[[], object]) -> float:
    """Median wall-clock seconds of a call."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        what()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Print all of it."""
    rng = np.random.default_rng(1)
    values = np.where(rng.random(60) < 0.125, 20.0, 8.0) * rng.lognormal(0, 0.05, 60)
    one = _pools([values])
    two = _pools([values, values + 3])
    arrivals, services = np.cumsum(rng.exponential(1.0, (200, 8000)), 1), rng.random((200, 8000))
    print(f"lindley               {arrivals.size / seconds(lambda: lindley(arrivals, services)) / 1e6:8.1f} M jobs/s")
    few = arrivals[:, :1000]
    codes = rng.integers(0, 2, few.shape)
    took = seconds(lambda: fleet(few, codes, services[:, :1000] * 4, services[:, :1000] * 8, servers=4, spill_s=4.0))
    print(f"fleet of 4, affinity  {few.size / took / 1e6:8.1f} M jobs/s")
    print(f"forecast, 1 server    {seconds(lambda: forecasts(one, ONE, rates_per_s=[0.07], rng=_new())):8.2f} s")
    fleet_rates, servers = [0.2], [4]
    took = seconds(lambda: forecasts(two, TWO, rates_per_s=fleet_rates, servers=servers, rng=_new()))
    print(f"forecast, 4 servers   {took:8.2f} s")
    print(f"highest rate          {seconds(lambda: highest_rate(one, ONE, 45, rng=_new())):8.2f} s")
    print(f"sizing                {seconds(lambda: size(two, TWO, rate_per_s=0.3, limit_s=45, rng=_new())):8.2f} s")
    setting = Setting(pools=one, workload=ONE, servers=1, deadline_s=90.0)
    policy = Policy(deadline_s=90.0, admission=Admission(depth=6))
    for name, drawn in worlds(setting, scenarios(one, ONE, load=0.6), 10, rng).items():
        hours = sum(world.ends_s for world in drawn) / 3600
        ours = seconds(lambda: [play(world, policy, setting) for world in drawn])  # noqa: B023
        naive = seconds(lambda: [play(world, NAIVE[1], setting) for world in drawn])  # noqa: B023
        print(f"an hour of {name:10} {1000 * ours / hours:8.2f} ms, {NAIVE[1].name} {1000 * naive / hours:.2f} ms")
    print(f"retry policy          {seconds(lambda: _policy(one)):8.2f} s")


def _new() -> np.random.Generator:
    return np.random.default_rng(2)


def _pools(of_each: list[NDArray[np.float64]]) -> ServiceTimes:
    return ServiceTimes(
        workflows=[str(number) for number in range(len(of_each))],
        warm=of_each,
        switched=[values + 9.0 * (len(of_each) > 1) for values in of_each],
        made_up=[],
        overhead_s=0.2,
        gap_s=0.0,
    )


def _policy(pools: ServiceTimes) -> Policy:
    return synthesise(pools, ONE, deadline_s=90, rate_per_s=0.063, transient=(1, 60), rng=np.random.default_rng(3))


if __name__ == "__main__":
    main()
