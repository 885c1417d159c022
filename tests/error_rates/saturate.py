"""Campaigns of `saturate` on serial servers whose truth is known: capacity, interference, rate to deploy, confirmation.

The campaign is the one that ships; its runs are made here, in arithmetic: closed and open loads, a queue, the pauses of
a garbage collector, a job that is slowed while another waits.

    python -m tests.error_rates.saturate [--runs N] [--law NAME …]
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.saturation import Saturated
from comfyload.app.campaign import Asked, Campaign
from comfyload.app.drawn import arrivals_rng
from comfyload.app.options import RunOptions, WorkflowChoice
from comfyload.judge.summary import Measured, measure
from comfyload.load.arrivals import offsets
from comfyload.record.model import Line, ServerTimes
from comfyload.record.plan import Closed, Open, Plan
from tests.error_rates.laws import Floats, Law
from tests.unit.judge_runs import FACTS, job, manifest

LIMIT_S = 45.0
ZERO_MS = 1_700_000_000_000


class World(Struct, frozen=True, kw_only=True):
    """A serial server. A job takes `usual_s` times the law; `slowed`: that much longer while another one waits.

    `pause_s` after every ten seconds; `drift`: how much longer the last of 76 jobs is than the first; `switch_s`: what
    another workflow costs, of two.
    """

    name: str
    law: Law
    usual_s: float = 8.0
    slowed: float = 1.0
    pause_s: float = 0.0
    drift: float = 0.0
    switch_s: float | None = None

    @property
    def limit_s(self) -> float:
        """Of the latency, in the same proportion to a job as 45 s to one of 8 s."""
        return LIMIT_S * self.usual_s / 8 * (2 if self.switch_s is not None else 1)

    @property
    def service_s(self) -> float:
        """Mean time that a job keeps a server busy that is never done with its queue."""
        mean = self.usual_s * self.law.mean * self.slowed
        if self.switch_s is not None:
            mean = self.law.mean * (self.usual_s * 1.25 + self.switch_s / 2)
        if not self.pause_s:
            return mean
        # The collector runs at the first end of a job at least ten seconds after its last run.
        return mean * (1 + self.pause_s / _cycle_s(self, mean))


def _cycle_s(world: World, mean: float) -> float:
    """The work between two pauses, by renewal: the jobs of ten seconds, and the rest of the last one."""
    rng = np.random.default_rng(5)
    ends = np.cumsum(world.usual_s * world.slowed * world.law.draw(rng, 200_000))
    since, found, at = 0.0, 0, 0
    while True:
        at = int(np.searchsorted(ends, since + 10.0))
        if at >= len(ends):
            return since / found if found else math.inf
        since, found = float(ends[at]), found + 1


class Server:
    """One server over a whole campaign: it drifts, and remembers its last workflow and its last collection."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.ran = 0
        self.clock = 0.0

    async def make(self, plan: Plan, name: str, words: str) -> Measured:
        """A run of that plan."""
        jobs = (plan.jobs or 0) + plan.warmup
        workflows = self._workflows(plan, jobs)
        if isinstance(plan.load, Closed):
            lines = self._play(workflows, plan, plan.load.concurrency, None)
        else:
            due = np.array(list(islice(offsets(plan.load, arrivals_rng(plan)), plan.jobs)))
            lines = self._play(workflows, plan, 1, np.concatenate([np.zeros(plan.warmup), due + 60.0]))
        names = ["a", "b"] if self.world.switch_s is not None else ["book"]
        facts = [structs.replace(FACTS, name=each, sha256=f"{n}" * 64) for n, each in enumerate(names)]
        return measure(name, manifest(plan=plan, workflows=facts), lines)

    def _workflows(self, plan: Plan, jobs: int) -> list[str]:
        if self.world.switch_s is None:
            return ["book"] * jobs
        if isinstance(plan.load, Open):
            return ["ab"[n] for n in self.rng.integers(0, 2, jobs)]
        return ["aabb"[n % 4] for n in range(jobs)]

    def _play(self, workflows: Sequence[str], plan: Plan, users: int, due: Floats | None) -> list[Line]:
        """`due` None: a closed load; each user asks again as soon as it has its answer."""
        world, n = self.world, len(workflows)
        takes = world.usual_s * world.law.draw(self.rng, n)
        free, collected, last = 0.0, 0.0, ""
        ready, lines = [0.0] * users, list[Line]()
        ends: list[float] = []
        for index in range(n):
            user = min(range(users), key=ready.__getitem__)
            sent = ready[user] if due is None else float(due[index])
            start = max(sent + 0.002, free)
            another = due is None and users > 1 if due is None else index + 1 < n and float(due[index + 1]) < start
            seconds = float(takes[index]) * (world.slowed if another else 1.0)
            if world.switch_s is not None:
                seconds *= 1.0 if workflows[index] == "a" else 1.5
                seconds += world.switch_s * world.law.mean * (workflows[index] != last)
            seconds *= 1 + world.drift * self.ran / 76
            end = start + seconds
            free, last = end + 0.001, workflows[index]
            if world.pause_s and end - collected >= 10.0:
                free, collected = end + world.pause_s, end
            self.ran += 1
            ready[user] = end + 0.002
            ends.append(end)
            lines.append(_line(index - plan.warmup, workflows[index], sent, start, end))
        return lines


def _line(index: int, workflow: str, sent: float, start: float, end: float) -> Line:
    create, begin, over = (ZERO_MS + round(1000 * t) for t in (sent + 0.001, start, end))
    times = ServerTimes(create_ms=create, start_ms=begin, end_ms=over)
    record = job(abs(index) + 10_000 if index < 0 else index, sent, end - sent + 0.002, warmup=index < 0)
    run = structs.replace(record.execution, server=times, sent=sent, acknowledged=sent + 0.001, nodes=[])
    return structs.replace(record, workflow=workflow, execution=run)


def campaign(world: World, seed: int, *, rate: bool = True, replicates: int = 60) -> Saturated:
    """One campaign; without `rate` none of its rates rests on more than a glance, and none is confirmed."""
    server = Server(world, np.random.default_rng(seed))
    names = ["a", "b"] if world.switch_s is not None else ["book"]
    options = RunOptions(
        server="http://127.0.0.1:8188",
        workflows=[WorkflowChoice(file=f"{name}.json") for name in names],
        plan=Plan(load=Closed(), timeout_s=None),
    )
    asked = Asked(options=options, limit_s=world.limit_s, replicates=replicates)
    if not rate:
        asked = structs.replace(asked, replicates=1)

    async def whole() -> Saturated:
        search = Campaign(asked, server.make)
        await search.measure()
        return await search.result()

    return asyncio.run(whole())
