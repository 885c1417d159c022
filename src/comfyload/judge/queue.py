"""How jobs depend on each other because they waited in one queue: by theory, where a run is too short to show it.

A short run that happened to meet no rush also shows no dependence: what is estimated from it is least where it matters
most. So the end of an interval that a rush would move, and any proof that jobs are quick enough, rest on the theory.
"""

import math

import numpy as np

from comfyload.judge.arrays import Floats
from comfyload.judge.arrivals import Arrivals, Rates
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.overload import occupancy_s
from comfyload.judge.statistics.queue import Queue
from comfyload.record.plan import Closed, Load, Open, Plan

_FEWEST = 3
"""Arrivals from which their gaps vary."""


def queue_of(plan: Plan, jobs: Jobs, arrivals: Arrivals, rates: Rates) -> Queue:
    """The queue that the plan makes before the server.

    Closed: a job waits for the `concurrency - 1` before it, so neighbours share all but one of the executions that
    their latencies are made of, and those `concurrency` apart share none. Open: by heavy traffic (Whitt 1989),
    `2 (ca^2 + cs^2) / (1 - rho)^2` arrivals, with the squared coefficients of variation of the gaps between arrivals
    and of the service. Where gaps vary, `rho^2 cs^2` would be nearer; where they do not, it is too little by half.

    Several servers, closed: between two jobs of the slowest, others complete on the others. Open: as of one that is
    busy while any is, which is longer than any of them is.
    """
    if isinstance(plan.load, Closed):
        ahead = plan.load.concurrency - 1
        together = plan.pages * plan.load.concurrency * _between(jobs)
        return Queue(memory=together, shared=together, early=plan.pages * ahead)
    (rho, cs), ca = _utilisation(plan.load, jobs, arrivals, rates), _gap_cv(plan.load, arrivals)
    memory = max(1.0, 2 * (ca**2 + cs**2) / (1 - rho) ** 2) if rho < 1 else math.inf
    error = ca / math.sqrt(max(1, len(arrivals.due)))
    return Queue(memory=plan.pages * memory, shared=float(plan.pages), rate_error=error)


def _utilisation(load: Load, jobs: Jobs, arrivals: Arrivals, rates: Rates) -> tuple[float, float]:
    """Share of the time that the server is busy, and the variation of its service times; infinite where not known.

    Of a server that runs jobs side by side or reports no times: the share of the time in which any job was running.
    """
    planned = rates.offered
    if isinstance(load, Open):  # at the highest rate of the plan
        planned = 60 * max(max(stage.per_s, stage.to_per_s or 0.0) for stage in load.stages)
    each = occupancy_s(arrivals, jobs)
    if each is not None and planned is not None:
        return planned / 60 * each, _cv(jobs.known("execution")) / math.sqrt(arrivals.pages)
    due, done = arrivals.due, arrivals.done
    known = ~np.isnan(done)
    if known.sum() < _FEWEST:
        return math.inf, math.inf
    order = np.argsort(due[known], kind="stable")
    due, ended = due[known][order], np.maximum.accumulate(done[known][order])
    idle = float(np.maximum(due[1:] - ended[:-1], 0.0).sum())
    return 1 - idle / float(ended[-1] - due[0]), _cv(done - arrivals.due)


def _between(jobs: Jobs) -> float:
    """How many jobs complete while the server with the fewest completes its share of an even division; 1 for one."""
    if jobs.servers == 1:
        return 1.0
    each = np.bincount(jobs.counted.server[jobs.completed], minlength=jobs.servers)[: jobs.servers]
    used = each[each > 0]
    return max(1.0, float(used.sum()) / (len(used) * float(used.min()))) if len(used) else 1.0


def _gap_cv(load: Load, arrivals: Arrivals) -> float:
    if isinstance(load, Open) and len(load.stages) == 1:
        return {"constant": 0.0, "poisson": 1.0, "gamma": load.cv}[load.arrivals]
    return _cv(np.diff(np.sort(arrivals.due)))


def _cv(x: Floats) -> float:
    known = x[~np.isnan(x)]
    if len(known) < _FEWEST:
        return math.inf
    return float(np.std(known) / np.mean(known)) if float(np.mean(known)) > 0 else 0.0
