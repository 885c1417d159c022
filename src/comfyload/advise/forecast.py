"""What latencies to expect at a rate, with so many servers, and how far a rate may go: from measured jobs alone.

Each number is simulated; its interval comes from resampling the measured jobs, as the same measurement might have
been another day. At or beyond capacity there is no latency to expect: it is infinite.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from comfyload.advise.queueing import Dispatch
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.advise.traffic import FULL, Traffic
from comfyload.judge.arrays import Flags, Floats
from comfyload.record.ranks import nearest_rank

REPLICATES = 200
_STEPS = 13
"""Of a bisection: to 1 part in 8,000 of what a server can do."""
_IDLE = 1e-6
"""A share of what servers can do at which no job waits."""
_SIDE = 0.05
CAUTION = 0.075
"""On each side of the interval of a highest rate."""
_ROWS = 32
"""Rows of jobs behind an estimate; its own error is then small against that of the measurement."""
_JOBS, _FLEET_JOBS = 8000, 2500
_CURVE_REPLICATES = 60


class Estimate(Struct, frozen=True, kw_only=True):
    """A number, and where it may lie as the measured jobs are few."""

    estimate: float
    low: float
    high: float


class Forecast(Struct, frozen=True, kw_only=True):
    """What to expect, with 90 % intervals. `load`: the share of the servers' time that the work takes.

    `stable` False: it grows for as long as the load lasts, and latencies are infinite. `missed`: the share of jobs
    that takes longer than the deadline; None without one.
    """

    rate_per_s: float
    servers: int
    dispatch: Dispatch
    load: Estimate
    stable: bool
    p50_s: Estimate
    p95_s: Estimate
    p99_s: Estimate
    missed: Estimate | None


class Sizing(Struct, frozen=True, kw_only=True):
    """How many servers a rate needs. None: more than were tried.

    No rows: no number of servers would do, since too many jobs take longer than the limit where none waits.
    `enough`: the fewest whose p95 keeps the limit, by its upper bound. `with_spare`: the fewest that do so and still
    carry the load, if slower, when one of them is lost. `rows`: what to expect of each number of servers.
    """

    enough: int | None
    with_spare: int | None
    limit_s: float
    rows: list[Forecast]


def forecasts(
    pools: ServiceTimes,
    workload: Workload,
    *,
    rates_per_s: Sequence[float],
    servers: Sequence[int] = (1,),
    dispatch: Dispatch = "affinity",
    deadline_s: float | None = None,
    rng: np.random.Generator,
) -> list[Forecast]:
    """What to expect of every number of servers at every rate, in this order, all from the same random numbers.

    Raises:
        ValueError: a rate or a number of servers is not above 0.
    """
    if min(rates_per_s) <= 0 or min(servers) <= 0:
        raise ValueError("rates and numbers of servers must be above 0")
    few = _FLEET_JOBS if max(servers) > 1 else _JOBS
    traffic, doubts = _both(pools, workload, few, few, rng)
    return [_forecast(traffic, doubts, rate, count, dispatch, deadline_s) for count in servers for rate in rates_per_s]


def curve(
    pools: ServiceTimes, workload: Workload, rates_per_s: Sequence[float], rng: np.random.Generator
) -> list[Forecast]:
    """What to expect of one server at each rate, for a picture: from fewer jobs than `forecasts` takes."""
    traffic, doubts = _both(pools, workload, _FLEET_JOBS, _FLEET_JOBS, rng, _CURVE_REPLICATES)
    return [_forecast(traffic, doubts, rate, 1, "affinity", None) for rate in rates_per_s]


def _both(
    pools: ServiceTimes,
    workload: Workload,
    jobs: int,
    doubt_jobs: int,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> tuple[Traffic, Traffic]:
    """Jobs drawn from the measured service times, and from resampled ones."""
    traffic = Traffic([pools] * _ROWS, workload, jobs, rng)
    return traffic, Traffic([pools.resampled(rng) for _ in range(replicates)], workload, doubt_jobs, rng)


def _forecast(
    traffic: Traffic, doubts: Traffic, rate: float, servers: int, dispatch: Dispatch, deadline_s: float | None
) -> Forecast:
    expected, load = traffic.latencies(np.full(traffic.rows, rate), servers, dispatch)
    might, loads = doubts.latencies(np.full(doubts.rows, rate), servers, dispatch)
    if servers > 1:  # rows are random: one may need more than the servers have, another less
        stable = float(load.mean()) < FULL
        if not stable:
            expected = np.full_like(expected, np.inf)
    else:
        stable = bool(np.isfinite(expected).all())
    shares = (0.5, 0.95, 0.99)
    values, spread = _quantiles(expected.reshape(1, -1), shares)[0], _quantiles(might, shares)
    p50, p95, p99 = (_with_interval(value, spread[:, at], _SIDE) for at, value in enumerate(values.tolist()))
    missed = None
    if deadline_s is not None:
        missed = _with_interval(float((expected > deadline_s).mean()), (might > deadline_s).mean(axis=1), _SIDE)
    return Forecast(
        rate_per_s=rate,
        servers=servers,
        dispatch=dispatch,
        load=_with_interval(float(load.mean()), loads, _SIDE),
        stable=stable,
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        missed=missed,
    )


def _quantiles(rows: Floats, shares: Sequence[float]) -> Floats:
    """By nearest rank, row by row: with thousands of values, and infinite ones among them, no need for better."""
    ranks = [nearest_rank(rows.shape[1], share) - 1 for share in shares]
    return np.partition(rows, ranks, axis=1)[:, ranks]


def _with_interval(value: float, replicates: Floats, side: float) -> Estimate:
    """The replicates' own quantiles, opened as far as the estimate where that lies outside."""
    ordered, rank = np.sort(replicates), nearest_rank(len(replicates), side) - 1
    low, high = float(ordered[rank]), float(ordered[-1 - rank])
    return Estimate(estimate=value, low=min(low, value), high=max(high, value))


def highest_rate(
    pools: ServiceTimes,
    workload: Workload,
    limit_s: float,
    *,
    share: float = 0.95,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> Estimate:
    """The most jobs per second of which one server has that share done within the limit; 0 if it never has.

    `low` is what to deploy: above the truth in no more than one measurement of ten, also where few jobs take very long.
    Never more than 97 % of what the server can do.
    """
    traffic, doubts = _both(pools, workload, _JOBS, _JOBS // 2, rng, replicates)
    spread = _highest(doubts, limit_s, share)
    return _with_interval(float(_highest(traffic, limit_s, share, together=True).mean()), spread, CAUTION)


def _highest(traffic: Traffic, limit_s: float, share: float, *, together: bool = False) -> Floats:
    """By bisection: with equal random numbers, no higher rate lets more jobs through. `together`: one rate for all."""
    most = traffic.most(1)

    def holds(rates: Floats) -> Flags:
        kept = (traffic.latencies(rates)[0] <= limit_s).mean(axis=1)
        return np.full(len(most), kept.mean() >= share) if together else kept >= share

    low, high = most * _IDLE, most.copy()
    possible = holds(low)  # where even a job that waits for none is too slow, no rate is low enough
    if not possible.any():
        return np.zeros_like(most)
    for _ in range(_STEPS):
        rates = (low + high) / 2
        held = holds(rates)
        low, high = np.where(held, rates, low), np.where(held, high, rates)
    return np.where(possible, low, 0.0)


def size(
    pools: ServiceTimes,
    workload: Workload,
    *,
    rate_per_s: float,
    limit_s: float,
    most: int = 32,
    dispatch: Dispatch = "affinity",
    rng: np.random.Generator,
) -> Sizing:
    """How many servers keep the p95 within the limit, and how many of them may be lost."""
    enough, with_spare = None, None
    rows: list[Forecast] = []
    traffic, doubts = _both(pools, workload, _FLEET_JOBS, _FLEET_JOBS, rng)
    if (traffic.latencies(traffic.most(most) * _IDLE, most, dispatch)[0] <= limit_s).mean() < 0.95:
        return Sizing(enough=None, with_spare=None, limit_s=limit_s, rows=[])
    first = max(1, int(rate_per_s * min(float(warm.mean()) for warm in pools.warm)))
    for servers in range(first, most + 1):
        rows.append(_forecast(traffic, doubts, rate_per_s, servers, dispatch, limit_s))
        if rows[-1].p95_s.high <= limit_s:
            enough = enough or servers
            if len(rows) > 1 and rows[-2].stable:
                with_spare = servers
                break
    return Sizing(enough=enough, with_spare=with_spare, limit_s=limit_s, rows=rows)
