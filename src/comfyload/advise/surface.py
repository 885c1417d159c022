"""What to expect of so many servers at any rate: simulated at some rates once, so that a slider need not wait.

Between two of these rates a latency is taken to grow as waiting does, with 1 / (1 - load).
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from msgspec import Struct

from comfyload.advise.forecast import Estimate, Forecast, Sizing
from comfyload.advise.queueing import Dispatch
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.advise.traffic import FULL, Traffic
from comfyload.judge.arrays import Floats
from comfyload.record.ranks import nearest_rank

_FRACTIONS = (0.05, 0.3, 0.5, 0.65, 0.75, 0.83, 0.89, 0.93, 0.96, 0.98)
"""Of the rate beyond which nothing is simulated."""
_ROWS, _REPLICATES = 20, 60
_JOBS, _FLEET_JOBS = 8000, 2500
_SIDE = 0.05
_SHARES = [*np.linspace(0.01, 0.9, 90).tolist(), *np.linspace(0.901, 0.999, 99).tolist()]


class Surface(Struct, frozen=True, kw_only=True):
    """Latencies of `servers` at `rates_per_s`, which ascend; beyond the last one they are infinite.

    `latency_s`: for each rate the quantiles at `_SHARES`, three times: what is expected, and the ends of its 90 %
    interval. `load`: the same three of the share of the servers' time.
    """

    servers: int
    dispatch: Dispatch
    rates_per_s: list[float]
    latency_s: list[list[list[float]]]
    load: list[list[float]]

    def at(self, rate_per_s: float, limit_s: float | None = None) -> Forecast:
        """What to expect at a rate."""
        stable = 0 < rate_per_s <= self.rates_per_s[-1]
        expected, low, high = self._latencies(rate_per_s) if stable else np.full((3, len(_SHARES)), np.inf)
        loads = self._loads(rate_per_s)
        p50, p95, p99 = (
            Estimate(estimate=float(expected[at]), low=float(low[at]), high=float(high[at]))
            for at in map(_at, (0.5, 0.95, 0.99))
        )
        return Forecast(
            rate_per_s=rate_per_s,
            servers=self.servers,
            dispatch=self.dispatch,
            load=Estimate(estimate=float(loads[0]), low=float(loads[1]), high=float(loads[2])),
            stable=stable,
            p50_s=p50,
            p95_s=p95,
            p99_s=p99,
            missed=None if limit_s is None else _missed(expected, low, high, limit_s),
        )

    def _latencies(self, rate_per_s: float) -> Floats:
        right = int(np.searchsorted(self.rates_per_s, rate_per_s))
        known: Floats = np.asarray(self.latency_s[right])
        if right == 0 or rate_per_s == self.rates_per_s[right]:
            return known
        ends = [1 / (1 - self.load[at][0]) for at in (right - 1, right)]
        share = (1 / (1 - float(self._loads(rate_per_s)[0])) - ends[0]) / (ends[1] - ends[0])
        before: Floats = np.asarray(self.latency_s[right - 1])
        both = np.isfinite(known) & np.isfinite(before)
        found: Floats = np.full_like(known, np.inf)
        found[both] = before[both] + share * (known[both] - before[both])
        return found

    def _loads(self, rate_per_s: float) -> Floats:
        """Below the first rate and beyond the last in proportion to the rate."""
        at, rates = np.asarray(self.load), np.asarray(self.rates_per_s)
        place = 0 if rate_per_s < rates[0] else -1
        if rates[0] <= rate_per_s <= rates[-1]:
            return np.array([np.interp(rate_per_s, rates, column) for column in at.T])
        scaled: Floats = at[place] * rate_per_s / rates[place]
        return scaled


def surface(
    pools: ServiceTimes, workload: Workload, servers: int, dispatch: Dispatch, rng: np.random.Generator
) -> Surface:
    """Simulate so many servers at several rates, all from the same random jobs."""
    rows = [pools] * _ROWS + [pools.resampled(rng) for _ in range(_REPLICATES)]
    traffic = Traffic(rows, workload, _JOBS if servers == 1 else _FLEET_JOBS, rng)
    rates = [share * float(traffic.most(servers)[:_ROWS].mean()) for share in _FRACTIONS]
    found = Surface(servers=servers, dispatch=dispatch, rates_per_s=[], latency_s=[], load=[])
    for rate, (seconds, load) in zip(rates, _at_rates(traffic, rates, servers, dispatch), strict=True):
        mean = float(load[:_ROWS].mean())
        expected = _quantiles(seconds[:_ROWS].reshape(1, -1))[0]
        if found.rates_per_s and (mean >= FULL or np.isinf(expected).any()):
            break
        found.rates_per_s.append(rate)
        spread = np.sort(_quantiles(seconds[_ROWS:]), axis=0)
        rank = nearest_rank(_REPLICATES, _SIDE) - 1
        low, high = np.minimum(spread[rank], expected), np.maximum(spread[-1 - rank], expected)
        found.latency_s.append([expected.tolist(), low.tolist(), high.tolist()])
        ordered = np.sort(load[_ROWS:])
        found.load.append([mean, min(mean, float(ordered[rank])), max(mean, float(ordered[-1 - rank]))])
    return found


def _at_rates(
    traffic: Traffic, rates: Sequence[float], servers: int, dispatch: Dispatch
) -> Iterator[tuple[Floats, Floats]]:
    """Latencies and loads at each rate; those of several servers are simulated together, since a step of theirs costs
    much whether it is of few rows or of many.
    """
    if servers == 1:
        for rate in rates:
            yield traffic.latencies(np.full(traffic.rows, rate))
        return
    many = traffic.repeated(len(rates))
    latencies, loads = many.latencies(np.repeat(rates, traffic.rows), servers, dispatch)
    yield from zip(np.split(latencies, len(rates)), np.split(loads, len(rates)), strict=True)


def _quantiles(rows: Floats) -> Floats:
    """Those of each row at `_SHARES`, by nearest rank, since some values may be infinite."""
    ordered = np.sort(rows, axis=1)
    return ordered[:, [nearest_rank(rows.shape[1], share) - 1 for share in _SHARES]]


def sized(surfaces: Mapping[int, Surface], rate_per_s: float, limit_s: float) -> Sizing:
    """How many servers keep the p95 within the limit, by the surfaces of one server, two, and so on."""
    idle = surfaces[max(surfaces)].latency_s[0][0][_at(0.95)]
    if idle > limit_s:
        return Sizing(enough=None, with_spare=None, limit_s=limit_s, rows=[])
    rows: list[Forecast] = []
    enough: int | None = None
    for servers in sorted(surfaces):
        rows.append(surfaces[servers].at(rate_per_s, limit_s))
        if rows[-1].p95_s.high <= limit_s:
            enough = enough or servers
            if len(rows) > 1 and rows[-2].stable:
                return Sizing(enough=enough, with_spare=servers, limit_s=limit_s, rows=rows)
    return Sizing(enough=enough, with_spare=None, limit_s=limit_s, rows=rows)


def _at(share: float) -> int:
    return int(np.abs(np.asarray(_SHARES) - share).argmin())


def _missed(expected: Floats, low: Floats, high: Floats, limit_s: float) -> Estimate:
    """The share of jobs that take longer; the quicker the jobs might be, the fewer."""
    late = [1.0 - float(np.interp(limit_s, curve, _SHARES, left=0.0, right=1.0)) for curve in (expected, low, high)]
    return Estimate(estimate=late[0], low=late[1], high=late[2])
