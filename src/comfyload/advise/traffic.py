"""Random jobs, drawn once, so that all rates and numbers of servers are compared on the same ones."""

import copy
from collections.abc import Sequence

import numpy as np

from comfyload.advise.queueing import Dispatch, after, fleet, lindley
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.judge.arrays import Floats
from comfyload.retry.decide import SPILL_SWAPS

FULL = 0.97
"""From this share of the capacity on, a queue is called unstable: so near to it, how long jobs wait depends on how
long one looks, and a capacity is seldom known to 3 %.
"""
_SETTLES = 10
"""One job in so many, at the start, is only there to fill the empty queue."""
_TICK_S = 0.001
"""The server counts whole milliseconds: jobs that seem to take no time take less than this."""
_AT_ONCE = 16
"""Rows computed together: few enough to stay in the processor's cache."""


class Traffic:
    """A row of jobs for each of the pools, Poisson arrivals. The first `warmup_jobs` are not counted; None: a tenth."""

    def __init__(
        self,
        pools: Sequence[ServiceTimes],
        workload: Workload,
        jobs: int,
        rng: np.random.Generator,
        *,
        warmup_jobs: int | None = None,
    ) -> None:
        self.rows, self.jobs = len(pools), jobs
        self._pools, self._workload = pools, workload
        self._arrive = np.cumsum(rng.standard_exponential((self.rows, jobs)), axis=1)
        self._workflows = workload.draw((self.rows, jobs), rng)
        self._warm, self._switched, self._swings = np.empty((3, self.rows, jobs))
        u = rng.random((self.rows, jobs))
        for row, pool in enumerate(pools):
            self._warm[row], self._switched[row] = pool.services(self._workflows[row], u[row])
            self._swings[row] = pool.swings(u[row])
        self._overhead = np.array([pool.overhead_s - pool.gap_s for pool in pools])
        self._spill_s = SPILL_SWAPS * float(np.median([pool.switch_cost_s for pool in pools]))
        self._takes = after(self._workflows, self._warm, self._switched)
        self._worked = np.cumsum(self._takes, axis=1)
        self._settled = jobs // _SETTLES if warmup_jobs is None else warmup_jobs

    def repeated(self, times: int) -> "Traffic":
        """The same rows again and again, so that several rates are simulated at once."""
        more = copy.copy(self)
        more.rows, more._pools = times * self.rows, list(self._pools) * times
        for name in ("_arrive", "_workflows", "_warm", "_switched", "_swings", "_overhead", "_takes", "_worked"):
            held = getattr(self, name)
            setattr(more, name, np.tile(held, (times,) + (1,) * (held.ndim - 1)))
        return more

    def most(self, servers: int) -> Floats:
        """The rate, row by row, beyond which nothing is simulated; with several servers it may be less than this."""
        if servers == 1:
            return np.array([FULL / max(pool.mean_s(self._workload), _TICK_S) for pool in self._pools])
        least: Floats = np.minimum(self._warm, self._switched).mean(axis=1)
        return FULL * servers / np.maximum(least, _TICK_S)

    def latencies(
        self, rates_per_s: Floats, servers: int = 1, dispatch: Dispatch = "affinity"
    ) -> tuple[Floats, Floats]:
        """Seconds from arrival to result of each row's jobs at that row's rate, and the share of the servers' time that
        the work takes; infinite where that is `FULL`.
        """
        if servers == 1:
            load = rates_per_s / self.most(1) * FULL
            out = self._alone(rates_per_s)
        else:
            arrive = self._arrive / rates_per_s[:, None]
            done, took = fleet(
                arrive,
                self._workflows,
                self._warm,
                self._switched,
                servers=servers,
                dispatch=dispatch,
                spill_s=self._spill_s,
                expected=(
                    self._expected([pool.warm for pool in self._pools]),
                    self._expected([pool.switched for pool in self._pools]),
                ),
            )
            load = rates_per_s * took[:, self._settled :].mean(axis=1) / servers
            done -= arrive
            out = done[:, self._settled :]
        out += self._overhead[:, None]
        out -= self._swings[:, self._settled :]
        out[load >= FULL] = np.inf
        return out, load

    def _expected(self, parts: Sequence[Sequence[Floats]]) -> Floats:
        """What a client that learns as it goes comes to expect of each job: its row's mean of such jobs."""
        means = np.array([[part.mean() for part in row] for row in parts])
        return np.take_along_axis(means, self._workflows, axis=1)

    def _alone(self, rates_per_s: Floats) -> Floats:
        out = np.empty((self.rows, self.jobs - self._settled))
        for first in range(0, self.rows, _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            arrive = self._arrive[rows] / rates_per_s[rows, None]
            done = lindley(arrive, self._takes[rows], self._worked[rows])
            done -= arrive
            out[rows] = done[:, self._settled :]
        return out
