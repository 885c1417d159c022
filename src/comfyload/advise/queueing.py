"""Knows how jobs wait: departures of servers that each run one job at a time, in the order in which jobs come.

Arrays end in the axis of the jobs; what stands before it are replications, all simulated at once. Times in seconds.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dispatch", "after", "fleet", "lindley"]

Floats = NDArray[np.float64]
Dispatch = Literal["round_robin", "shortest_queue", "affinity"]
"""How a job gets its server at once when it comes: in turn, where the least work waits, or where its models are."""


def lindley(arrivals: Floats, services: Floats) -> Floats:
    """Departures from one server (Lindley 1952), as a running maximum: no loop over the jobs."""
    worked = np.cumsum(services, axis=-1)
    # How far the clock has run ahead of the work: the server has idled as long as the most so far.
    ahead = arrivals - worked
    ahead += services
    np.maximum.accumulate(ahead, axis=-1, out=ahead)
    ahead += worked
    return ahead


def fleet(
    arrivals: Floats,
    workflows: NDArray[np.int64],
    warm: Floats,
    switched: Floats,
    *,
    servers: int,
    dispatch: Dispatch = "affinity",
    spill_s: float = 0.0,
) -> tuple[Floats, Floats]:
    """Departures of `(replications, jobs)` from several servers, and what each job took.

    A job takes `warm` where the server's last job was of the same workflow, else `switched`; no server has run any at
    first. `spill_s`: how many seconds of work more may wait where the job's models are, before it goes elsewhere.
    """
    if servers == 1 or dispatch == "round_robin":
        return _in_turn(arrivals, workflows, warm, switched, servers)
    rows, jobs = arrivals.shape
    row = np.arange(rows)
    free = np.zeros((rows, servers))
    last = np.full((rows, servers), -1)
    out, took = np.empty_like(arrivals), np.empty_like(arrivals)
    for at in range(jobs):
        now, workflow = arrivals[:, at], workflows[:, at]
        backlog = np.maximum(free - now[:, None], 0.0)
        chosen = np.argmin(free, axis=1)  # of several idle ones, that which has idled longest
        if dispatch == "affinity":
            chosen = _home(backlog, last == workflow[:, None], chosen, row, spill_s)
        takes = np.where(last[row, chosen] == workflow, warm[:, at], switched[:, at])
        done = now + backlog[row, chosen] + takes
        free[row, chosen], last[row, chosen], out[:, at], took[:, at] = done, workflow, done, takes
    return out, took


def _in_turn(
    arrivals: Floats, workflows: NDArray[np.int64], warm: Floats, switched: Floats, servers: int
) -> tuple[Floats, Floats]:
    """Every server's jobs are known before any time is: each is a queue of its own, without a loop over the jobs."""
    out, took = np.empty_like(arrivals), np.empty_like(arrivals)
    for server in range(servers):
        mine = np.s_[:, server::servers]
        takes = after(workflows[mine], warm[mine], switched[mine])
        out[mine], took[mine] = lindley(arrivals[mine], takes), takes
    return out, took


def after(workflows: NDArray[np.int64], warm: Floats, switched: Floats) -> Floats:
    """What jobs take that one server runs in this order: `warm` after one of the same workflow, else `switched`."""
    takes = switched.copy()
    np.copyto(takes[..., 1:], warm[..., 1:], where=workflows[..., 1:] == workflows[..., :-1])
    return takes


def _home(
    backlog: Floats, homes: NDArray[np.bool_], least: NDArray[np.int64], row: NDArray[np.int64], spill_s: float
) -> NDArray[np.int64]:
    """The home with the least work, unless so much waits there that another server does better."""
    at_home = np.where(homes, backlog, np.inf)
    home = np.argmin(at_home, axis=1)
    stays = at_home[row, home] - backlog[row, least] <= spill_s
    return np.where(stays, home, least)
