"""How far the p95 that `capacity` forecasts is off, and how often its 90 % interval holds the true one: one server."""

from __future__ import annotations

import argparse

import numpy as np
from msgspec import Struct

from comfyload.advise.queueing import lindley
from comfyload.advise.service_times import ServiceTimes, Workload
from tests.error_rates.laws import LAWS, Law
from tests.unit.advise_pools import forecast

LOAD = 0.7


class Found(Struct, frozen=True, kw_only=True):
    """Shares of the true p95: the root of the mean squared error, and the median half-width of the interval."""

    rmse: float
    covers: float
    half: float


def true_p95(law: Law, rows: int = 60, jobs: int = 20_000) -> float:
    """At that share of the law's own capacity, in a long run."""
    rng = np.random.default_rng(99)
    services = law.draw(rng, (rows, jobs))
    arrivals = np.cumsum(rng.exponential(law.mean / LOAD, (rows, jobs)), axis=1)
    return float(np.quantile((lindley(arrivals, services) - arrivals)[:, jobs // 10 :], 0.95))


def found(name: str, jobs: int, runs: int) -> Found:
    """Of so many baselines of so many jobs."""
    law, true = LAWS[name], true_p95(LAWS[name])
    errors, held, halves = [], 0, []
    for seed in range(runs):
        rng = np.random.default_rng([seed, jobs])
        taken = law.draw(rng, jobs)
        pools = ServiceTimes(workflows=["w"], warm=[taken], switched=[taken], made_up=[], overhead_s=0.0, gap_s=0.0)
        p95 = forecast(pools, Workload(shares=[1.0]), rate_per_s=LOAD / law.mean, rng=rng).p95_s
        errors.append((min(p95.estimate, 1e3) - true) / true)
        held += p95.low <= true <= p95.high
        halves.append((p95.high - p95.low) / 2 / true)
    return Found(rmse=float(np.sqrt(np.mean(np.square(errors)))), covers=held / runs, half=float(np.median(halves)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="baselines of each kind (default: %(default)d)")
    args = parser.parse_args()
    print("| law | jobs | RMSE | interval, median ± | 90 % interval holds |")
    print("|---|---:|---:|---:|---:|")
    for name in ("logn .2", "logn .3", "15%x2.5", "5%x6"):
        for jobs in (60, 240):
            row = found(name, jobs, args.runs)
            print(f"| {name} | {jobs} | {row.rmse:.0%} | {row.half:.0%} | {row.covers:.0%} |")


if __name__ == "__main__":
    main()
