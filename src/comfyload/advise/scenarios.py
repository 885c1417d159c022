"""The troubles in which retry policies are tried, and what happens in one of them: drawn once, for all policies.

Lengths are given for jobs of 9.5 s, and grow and shrink with the mean service time; what stands still for a minute does
so whatever a job takes.
"""

import numpy as np
from msgspec import Struct

from comfyload.advise.service_times import ServiceTimes, Workload

_USUAL_S = 9.5
_SETTLE, _BEFORE, _SCORED, _WATCHED, _QUIET = 5, 10, 10, 55, 60
"""Minutes: until the queue is as usual; looked at before the trouble; scored after it; watched after it; in all where
there is none.
"""
DRAWS = 8
"""Attempts of a job with random numbers of their own; later attempts repeat them."""


class Setting(Struct, frozen=True, kw_only=True):
    """What is the same for all policies."""

    pools: ServiceTimes
    workload: Workload
    servers: int
    deadline_s: float

    @property
    def mean_s(self) -> float:
        """Mean service time."""
        return self.pools.mean_s(self.workload)

    @property
    def overhead_s(self) -> float:
        """What the client adds to each job, beyond the pause that its service time has already."""
        return min(max(0.0, self.pools.overhead_s - self.pools.gap_s), 0.5 * self.deadline_s)


class Scenario(Struct, frozen=True, kw_only=True):
    """Servers loaded to `load` of their capacity, and a trouble of `event_s` seconds, or none.

    `burst`: the load during it. `restarts`: the first server is gone and forgets its queue. `stalls`: it stands still.
    `sick`: the share of executions that fail on it. `fails`: that of executions that fail at any time; `poison`: of
    jobs that always do.
    """

    name: str
    load: float = 0.6
    event_s: float = 0.0
    burst: float | None = None
    restarts: bool = False
    stalls: bool = False
    sick: float = 0.0
    fails: float = 0.0
    poison: float = 0.0


class World(Struct, frozen=True, kw_only=True):
    """What happens, in seconds and by job. `warm`, `switched`: what it takes; `u`: below a chance, its attempt
    fails; `breaks_at`: after which share of its time. `minute_s`: 60 s, stretched as the jobs are. `pace`: mean service
    time where its jobs' times come from, by that which sets its rates.
    """

    scenario: Scenario
    arrivals: list[float]
    workflows: list[int]
    warm: list[float]
    switched: list[float]
    u: list[list[float]]
    breaks_at: list[float]
    poisoned: list[bool]
    seed: int
    minute_s: float
    settled_s: float
    event_from_s: float
    event_to_s: float
    scored_to_s: float
    ends_s: float
    pace: float = 1.0


def scenarios(pools: ServiceTimes, workload: Workload, *, load: float, down_s: float = 60.0) -> list[Scenario]:
    """All troubles, at that load; `down_s`: how long a server is gone when it restarts."""
    stretch = pools.mean_s(workload) / _USUAL_S
    return [
        Scenario(name="steady", load=load),
        Scenario(name="burst", load=load, event_s=300 * stretch, burst=2.0),
        Scenario(name="restart", load=load, event_s=down_s, restarts=True),
        Scenario(name="failures", load=load, fails=0.05),
        Scenario(name="stall", load=max(load, 0.8), event_s=60.0, stalls=True),
        Scenario(name="poison", load=load, fails=0.05, poison=0.03),
        Scenario(name="sick", load=load, event_s=600 * stretch, sick=0.6),
    ]


def draw(scenario: Scenario, setting: Setting, takes: ServiceTimes, rng: np.random.Generator) -> World:
    """One world: arrivals Poisson at the scenario's loads of servers that take what the setting's pools say; the jobs'
    own times are drawn from `takes`.
    """
    mean, servers = setting.mean_s, setting.servers
    minute = 60 * mean / _USUAL_S
    settled = _SETTLE * minute
    # A job that comes just before the trouble already suffers from it.
    begins = settled + _BEFORE * minute + setting.deadline_s if scenario.event_s else settled
    over = begins + scenario.event_s
    scored = over + _SCORED * minute if scenario.event_s else settled + _QUIET * minute
    ends = over + _WATCHED * minute if scenario.event_s else scored
    usual = scenario.load * servers / mean
    during = usual if scenario.burst is None else scenario.burst * servers / mean
    expected = np.cumsum([0.0, usual * begins, during * (over - begins), usual * (ends - over)])
    jobs = int(rng.poisson(expected[-1]))
    arrivals = np.interp(np.sort(rng.random(jobs)) * expected[-1], expected, [0.0, begins, over, ends])
    workflows = setting.workload.draw((1, jobs), rng)[0]
    warm, switched = takes.services(workflows, rng.random(jobs))
    return World(
        scenario=scenario,
        arrivals=arrivals.tolist(),
        workflows=workflows.tolist(),
        warm=warm.tolist(),
        switched=switched.tolist(),
        u=rng.random((jobs, DRAWS)).tolist(),
        breaks_at=rng.random(jobs).tolist(),
        poisoned=(rng.random(jobs) < scenario.poison).tolist(),
        seed=int(rng.integers(2**32)),
        minute_s=minute,
        settled_s=settled,
        event_from_s=begins,
        event_to_s=over,
        scored_to_s=scored,
        ends_s=ends,
        pace=takes.mean_s(setting.workload) / mean,
    )
