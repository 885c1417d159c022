"""Whether an open load offered more than the server can do, so that its queue grew for as long as it lasted."""

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.arrivals import Arrivals, Rates
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.statistics.trend import theil_sen
from comfyload.record.plan import Closed, Load, Open, Replay

SATURATED = 0.97
"""Utilisation from which a queue is taken to have no steady state: the wait there is that of 30 jobs and more."""

_FEWEST = 20
_BLOCKS = 10
"""Block means the backlog's trend is looked for in. Over ten, the server's own ups and downs pass for no trend: in
simulations of a stable queue at 70 % of capacity, 60 arrivals gave a false alarm in 4 of 100, 200 in none."""


class Overload(Struct, frozen=True, kw_only=True):
    """An open load at or beyond capacity. Rates are in arrivals per second.

    `capacity_per_s` and `utilisation` (offered rate times the server's time for an arrival) are None where executions
    overlap or their times are not known: then the growth itself was the evidence. `growth_per_s` is the Theil-Sen slope
    of the number in the system at due times; None of too few arrivals. `offered_per_s` is the mean over the run.

    What it does to the numbers: in a run that was drained, every latency is known, and every percentile is true of
    this run; but it grew with the run and would be another had the run been longer. So it is given, and marked. Where
    arrivals were dropped, the latency that they would have had is not known, and percentiles from the p90 up are
    withheld: those that completed are the ones that found a place. Where jobs were cut off by the end, all percentiles
    are withheld: the ones cut off are those that came last and would have waited longest, which no estimator can know.
    """

    offered_per_s: float
    capacity_per_s: float | None
    utilisation: float | None
    growth_per_s: float | None
    dropped: int
    censored: int
    arrivals: int
    unit: str

    def withholds(self, shown: str) -> str:
        """Why a percentile of latency is withheld; "" if it is not."""
        if self.censored:
            return f"no steady state: {self.censored} {self.unit}s were cut off while the queue grew"
        if self.dropped and shown != "p50":
            return f"overload: {self.dropped} of {self.arrivals} {self.unit}s were dropped"
        return ""

    @property
    def grew(self) -> bool:
        """Whether the queue grew; it does not where arrivals are dropped instead."""
        return self.growth_per_s is not None and self.growth_per_s > 0.01 * self.offered_per_s


def find_overload(load: Load, arrivals: Arrivals, jobs: Jobs, rates: Rates) -> Overload | None:
    """Judge an open load; None if it had a steady state, or too few arrivals to tell, or the load is closed.

    On a serial server that tells its execution times: the offered rate times an arrival's mean occupancy (execution
    and the pause after it) is above `SATURATED`. The rate is the plan's, which chance does not move. Elsewhere, and
    where the plan changes its rate: the number in the system grew by more than 5 and faster than 3 % of the offered
    rate, with 99 % confidence.
    """
    rate = rates.planned or rates.offered
    if isinstance(load, Closed) or rate is None or len(arrivals.due) < _FEWEST:
        return None
    offered, occupancy, slopes = rate / 60, occupancy_s(arrivals, jobs), _growth(arrivals)
    growth, surely = (None, 0.0) if slopes is None else slopes
    found = occupancy is not None and offered * occupancy > SATURATED
    if not found and (occupancy is None or _changes(load)):
        span = float(arrivals.due.max() - arrivals.due.min())
        found = growth is not None and growth * span > 5 and surely > (1 - SATURATED) * offered
    if not found:
        return None
    return Overload(
        offered_per_s=offered,
        capacity_per_s=None if occupancy is None else 1 / occupancy,
        utilisation=None if occupancy is None else offered * occupancy,
        growth_per_s=growth,
        dropped=int(arrivals.dropped.sum()),
        censored=int(arrivals.censored.sum()),
        arrivals=len(arrivals.due),
        unit=arrivals.unit,
    )


def _changes(load: Load) -> bool:
    if isinstance(load, Open):
        return len(load.stages) > 1 or load.stages[0].to_per_s not in (None, load.stages[0].per_s)
    return isinstance(load, Replay)


def in_system(due: Floats, done: Floats) -> Floats:
    """How many arrivals were due and not done when each came, itself included, in the order of `due`."""
    ordered = np.sort(due)
    return np.arange(1.0, len(due) + 1) - np.searchsorted(np.sort(done), ordered, side="right")


def _growth(arrivals: Arrivals) -> tuple[float, float] | None:
    """Arrivals per second by which the number in the system grew, and what it surely grew by; None if too few came."""
    known = ~np.isnan(arrivals.done)
    due, done = arrivals.due[known], arrivals.done[known]
    if len(due) < _FEWEST:
        return None
    inside = in_system(due, done)
    x, y = (np.array([block.mean() for block in np.array_split(s, _BLOCKS)]) for s in (np.sort(due), inside))
    slopes = theil_sen(x, y) if bool(np.all(np.diff(x) > 0)) else None
    return None if slopes is None else slopes[:2]


def occupancy_s(arrivals: Arrivals, jobs: Jobs) -> float | None:
    """Mean seconds for which an arrival keeps a serial server busy; None if it is not serial, or that is not known. Of
    several it is not: what they can do together depends on which gets what.
    """
    if jobs.servers > 1:
        return None
    execution, completed = jobs.known("execution"), int(jobs.completed.sum())
    if not len(execution) or len(execution) < 0.9 * completed or jobs.overlaps():
        return None
    return arrivals.pages * (float(np.mean(execution)) + jobs.gap_s())
