"""Twice the load that can be served, for ten minutes of virtual time, from two tenants of which one floods."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from comfyload import clock
from comfyload.gateway.intake import PromptRefused
from comfyload.record.policy import Budget, Policy
from comfyload.sim import Faults, Server, Which
from tests.support.gateway import Desk, desk, farm
from tests.support.rig import sleeper

__all__ = ["SHAPES", "Load", "overload"]

SERVERS = 2
OVERLOAD_S, DEADLINE_S = 600.0, 120.0
TIMES, SHARE_OF_FLOOD = 2.0, 0.9
CALM_S, CALM = 600.0, 0.5
"""Of a light load before, by which it is learnt what jobs take."""

SHAPES: dict[str, Callable[[Random], float]] = {
    "steady": lambda rng: 10.0 + rng.uniform(-0.5, 0.5),
    "bimodal": lambda rng: 4.0 if rng.random() < 0.7 else 24.0,
}
"""Seconds that a job takes. Both kinds of the second look alike to the gateway: they have one graph's shape."""
MEAN_S = 10.0
BUDGET = (0.1, 5.0)
"""Retries for each job, and at first."""


@dataclass
class Load:
    """What came of it, by tenant where it says so. `late`, `failed`: accepted jobs that were not done in time, or
    failed. `answered_s`: the longest time until a refusal. `took_s`: of each accepted job that was done. `done_s`:
    seconds of work that the servers did, while there was too much, on jobs that were done in time; `wasted_s`: on what
    failed. `taken`: jobs accepted, those before it included. `twice`: ids that were executed twice.
    """

    offered: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    in_time: Counter[str] = field(default_factory=Counter)
    late: int = 0
    failed: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    answered_s: float = 0.0
    took_s: list[float] = field(default_factory=list)
    done_s: float = 0.0
    wasted_s: float = 0.0
    lasted_s: float = 0.0
    taken: int = 0
    retries: int = 0
    twice: int = 0

    @property
    def goodput(self) -> float:
        """Work on jobs done in time while there was too much, as a share of what the servers could do."""
        return self.done_s / (SERVERS * self.lasted_s - self.wasted_s)

    @property
    def allowed(self) -> float:
        """Retries that the budget allows for the jobs that were taken, before and while there was too much."""
        ratio, cap = BUDGET
        return cap + ratio * self.taken

    @property
    def within(self) -> float:
        """The share of accepted jobs that were done in time."""
        return sum(self.in_time.values()) / sum(self.accepted.values())


def overload(folder: Path, shape: str, seed: int = 1, *, failing: float = 0.0) -> Load:
    """Play it. `failing`: the share of executions that fail by lack of memory, and may pass if they are tried again."""
    policy = Policy(deadline_s=DEADLINE_S, liveness_s=60.0, budget=Budget(ratio=BUDGET[0], cap=BUDGET[1]))
    faults = Faults(oom=Which(share=failing)) if failing else Faults()

    async def main() -> Load:
        async with farm(SERVERS, faults=faults, seed=seed) as servers, desk(folder, servers, policy=policy) as front:
            return await _Play(front, servers, Random(seed), SHAPES[shape]).run()

    return clock.run_virtual(main())


class _Play:
    def __init__(self, front: Desk, servers: list[Server], rng: Random, seconds: Callable[[Random], float]) -> None:
        self._front, self._servers, self._rng, self._seconds = front, servers, rng, seconds
        self._load = Load()
        self._counted = False
        self._in_time: set[str] = set()

    async def run(self) -> Load:
        load, capacity = self._load, SERVERS / MEAN_S
        async with asyncio.TaskGroup() as jobs:
            await self._arrivals(jobs, CALM_S, CALM * capacity)
            begin, self._counted = clock.now(), True
            await self._arrivals(jobs, OVERLOAD_S, TIMES * capacity)
            end, self._counted = clock.now(), False
        load.lasted_s = end - begin
        for server in self._servers:
            for truth in server.truth:
                overlap_s = max(0.0, min(end, truth.finished or end) - max(begin, truth.started))
                if truth.outcome != "completed":
                    load.wasted_s += overlap_s
                elif truth.prompt_id in self._in_time:
                    load.done_s += overlap_s
        ran = Counter(truth.prompt_id for server in self._servers for truth in server.truth)
        load.twice = sum(count > 1 for count in ran.values())
        load.taken = self._front.gateway.counts["accepted"]
        load.retries = self._front.gateway.counts["retries"]
        return load

    async def _arrivals(self, jobs: asyncio.TaskGroup, seconds: float, rate: float) -> None:
        until = clock.now() + seconds
        while clock.now() < until:
            jobs.create_task(self._job("flood" if self._rng.random() < SHARE_OF_FLOOD else "calm"))
            await asyncio.sleep(self._rng.expovariate(rate))

    async def _job(self, tenant: str) -> None:
        load, front, came, counted = self._load, self._front, clock.now(), self._counted
        graph = sleeper(self._seconds(self._rng))
        graph["2"]["inputs"]["seed"] = self._rng.randrange(1 << 30)
        load.offered[tenant] += counted
        try:
            prompt_id = (await front.post(graph, tenant=tenant))["prompt_id"]
        except PromptRefused as refused:
            load.refused[refused.status] += 1
            load.answered_s = max(load.answered_s, clock.now() - came)
            return
        load.accepted[tenant] += counted
        while prompt_id in front.gateway.jobs:
            await asyncio.sleep(0.1)
        entry = await front.end_of(prompt_id, tenant)
        took_s = clock.now() - came
        if entry["status"]["status_str"] != "success":
            load.failed += counted
        elif took_s > DEADLINE_S:
            load.late += counted
        else:
            load.in_time[tenant] += counted
            self._in_time |= _ids(front, prompt_id, tenant)
            load.took_s += [took_s] if counted else []


def _ids(front: Desk, prompt_id: str, tenant: str) -> set[str]:
    """All ids under which the job was sent."""
    job = front.history.job(prompt_id, tenant)
    attempts = [] if job is None else job["comfyload"]["attempts"]
    return {prompt_id, *(attempt["prompt_id"] for attempt in attempts)}
