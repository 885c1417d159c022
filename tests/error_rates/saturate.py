"""Campaigns of `saturate` on serial servers whose truth is known: capacity, interference, rate to deploy, confirmation.

The campaign is the one that ships; its runs are made here, in arithmetic: closed and open loads, a queue, the pauses of
a garbage collector, a job that is slowed while another waits.

    python -m tests.error_rates.saturate [--rate] [--runs N] [--law NAME …]
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import pytest
from msgspec import Struct, structs

from comfyload.advise.rate import Rate
from comfyload.advise.saturation import Saturated
from comfyload.app.campaign import Campaign, CampaignOptions
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.judge.arrays import Floats
from comfyload.judge.summary import Measured, measure
from comfyload.load.arrivals import offsets
from comfyload.record.model import Line, ServerTimes
from comfyload.record.plan import Closed, Open, Plan
from tests.error_rates.laws import LAWS, Law
from tests.unit.judge_runs import FACTS, job, manifest

LIMIT_S = 45.0
JOBS = 76
"""Of a campaign of jobs of some seconds: 40 one by one, 12 with one waiting, 24 that confirm."""
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
        still = (0.0, 0.0)  # While it collects garbage, it answers nobody.
        ready, lines = [0.0] * users, list[Line]()
        ends: list[float] = []
        for index in range(n):
            user = min(range(users), key=ready.__getitem__)
            sent = ready[user] if due is None else float(due[index])
            heard = (still[1] if still[0] <= sent < still[1] else sent) + 0.001
            start = max(heard + 0.001, free)
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
                still = (end, free)
            self.ran += 1
            ready[user] = end + 0.002
            ends.append(end)
            lines.append(_line(index - plan.warmup, workflows[index], (sent, heard, start, end)))
        return lines


def _line(index: int, workflow: str, instants: tuple[float, float, float, float]) -> Line:
    sent, heard, start, end = instants
    create, begin, over = (ZERO_MS + round(1000 * t) for t in (heard, start, end))
    times = ServerTimes(create_ms=create, start_ms=begin, end_ms=over)
    record = job(abs(index) + 10_000 if index < 0 else index, sent, end - sent + 0.002, warmup=index < 0)
    run = structs.replace(record.execution, server=times, sent=sent, acknowledged=heard, nodes=[])
    return structs.replace(record, workflow=workflow, execution=run)


def campaign(world: World, seed: int, *, rate_too: bool = True, replicates: int = 60) -> Saturated:
    """One campaign. Without `rate_too` the rate to deploy is not looked for, which takes nine tenths of the time, and
    the confirming run is at two thirds of the true capacity.
    """
    server = Server(world, np.random.default_rng(seed))
    names = ["a", "b"] if world.switch_s is not None else ["book"]
    options = RunOptions(
        server="http://127.0.0.1:8188",
        workflows=[WorkflowChoice(file=f"{name}.json") for name in names],
        plan=Plan(load=Closed(), timeout_s=None),
    )
    settings = CampaignOptions(run=options, limit_s=world.limit_s, replicates=replicates)
    given = Rate(estimate=40 / world.service_s, low=40 / world.service_s, high=None)

    async def whole() -> Saturated:
        search = Campaign(settings, server.make)
        await search.measure()
        return await search.result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comfyload.app.campaign.randbits", lambda bits: int(server.rng.integers(1 << bits)))
        if not rate_too:
            patch.setattr("comfyload.app.campaign.allowed", lambda *_: given)
        return asyncio.run(whole())


def highest_per_minute(world: World) -> float:
    """The rate at which 95 % of the jobs keep the limit, from 600,000 of them and by its own bisection."""
    rng, n = np.random.default_rng(99), 400_000
    services = world.usual_s * world.slowed * world.law.draw(rng, n)
    if world.switch_s is not None:
        kind = rng.integers(0, 2, n)
        services *= 1 + 0.5 * kind
        services[1:] += world.switch_s * world.law.mean * (kind[1:] != kind[:-1])
    gaps = np.cumsum(rng.standard_exponential(n))
    low, high = 0.0, 0.97 / world.service_s
    for _ in range(14):
        rate = (low + high) / 2
        waited = _latencies(gaps / rate, services, world.pause_s)
        low, high = (rate, high) if np.mean(waited <= world.limit_s) >= 0.95 else (low, rate)
    return 60 * low


def _latencies(arrivals: Floats, services: Floats, pause_s: float) -> Floats:
    """Of a serial server, job by job if it pauses."""
    if not pause_s:
        worked = np.cumsum(services)
        return np.maximum.accumulate(arrivals - worked + services) + worked - arrivals
    free, collected, out = 0.0, 0.0, np.empty(len(arrivals))
    for at, (arrival, takes) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        end = max(arrival, free) + takes
        out[at], free = end - arrival, end
        if end - collected >= 10.0:
            free, collected = end + pause_s, end
    return out


class Shares(Struct, frozen=True, kw_only=True):
    """Shares of campaigns, and errors, of one world."""

    runs: int
    covered: float
    bias: float
    rmse: float
    interference: float
    drift: float
    above: float
    above_and_confirmed: float
    confirmed: float
    withheld: float
    to_deploy: float
    """Median, over the truth."""
    more: float
    """Share that says how many more jobs it takes."""


def shares_of(world: World, runs: int, *, rate_too: bool = True, first: int = 0) -> Shares:
    """What so many campaigns say, beside the truth."""
    every = [campaign(world, first + seed, rate_too=rate_too) for seed in range(runs)]
    truth = 60 / world.service_s
    carries = [found.capacity_per_minute or Rate(estimate=None, low=None, high=None) for found in every]
    errors = np.array([(rate.estimate or math.nan) / truth - 1 for rate in carries])
    most = highest_per_minute(world) if rate_too else 1.0
    rates = [found.sla_rate_per_minute or Rate(estimate=None, low=None, high=None) for found in every]
    deploy = np.array([0.0 if rate.estimate is None else rate.low or 0.0 for rate in rates]) / most
    confirmed = np.array([rate.confirmed is True for rate in rates])
    return Shares(
        runs=runs,
        covered=_share((rate.low or 0.0) <= truth <= (rate.high or math.inf) for rate in carries),
        bias=float(errors.mean()),
        rmse=float(np.sqrt(np.mean(errors**2))),
        interference=_share(found.interference is not None and found.interference.disturbed for found in every),
        drift=_share(any("first job to the last" in words for words in found.findings) for found in every),
        above=float(np.mean(deploy > 1)),
        above_and_confirmed=float(np.mean((deploy > 1.05) & confirmed)),
        confirmed=float(confirmed.mean()),
        withheld=_share(rate.estimate is None for rate in rates),
        to_deploy=float(np.median(deploy)),
        more=_share(found.more_jobs > 0 for found in every),
    )


def _share(flags: Iterable[bool]) -> float:
    return float(np.mean(list(flags)))


ONE = {name: World(name=name, law=law) for name, law in LAWS.items()}
WORLDS = {
    **ONE,
    "two workflows": World(name="two workflows", law=LAWS["logn .1"], switch_s=9.0),
    "logn .2, pauses": World(name="logn .2, pauses", law=LAWS["logn .2"], pause_s=0.35),
    "logn .2 of .15 s, pauses": World(
        name="logn .2 of .15 s, pauses", law=LAWS["logn .2"], usual_s=0.147, pause_s=0.35
    ),
    "15%x2.5 of .15 s, pauses": World(
        name="15%x2.5 of .15 s, pauses", law=LAWS["15%x2.5"], usual_s=0.147, pause_s=0.35
    ),
    "logn .2, x 1.2 beside another": World(name="logn .2, x 1.2 beside another", law=LAWS["logn .2"], slowed=1.2),
    "15%x2.5, x 1.2 beside another": World(name="15%x2.5, x 1.2 beside another", law=LAWS["15%x2.5"], slowed=1.2),
    "logn .2, drift 10 %": World(name="logn .2, drift 10 %", law=LAWS["logn .2"], drift=0.1),
    "15%x2.5, drift 10 %": World(name="15%x2.5, drift 10 %", law=LAWS["15%x2.5"], drift=0.1),
}


def _percent(*shares: float) -> str:
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def main() -> None:
    """Print the table of capacities, or with `--rate` that of rates to deploy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--rate", action="store_true", help="rates to deploy; 0.4 s a campaign")
    parser.add_argument("--law", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    options = parser.parse_args()
    if options.rate:
        print(
            "| law | rate to deploy above the truth % | > 5 % above and CONFIRMED % | CONFIRMED % | withheld % "
            "| to deploy / truth, median | asks for more jobs % |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|")
    else:
        print(
            "| law | 95 % interval covers % | bias % | RMSE % | 1.1 CV / root n | interference reported % | "
            "drift reported % |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|")
    for name in options.law:
        found = shares_of(WORLDS[name], options.runs, rate_too=options.rate)
        if options.rate:
            cells = _percent(found.above, found.above_and_confirmed, found.confirmed, found.withheld)
            print(f"| {name} | {cells} | {found.to_deploy:.2f} | {_percent(found.more)} |", flush=True)
        else:
            least = 1.1 * WORLDS[name].law.cv / math.sqrt(JOBS)
            cells = _percent(found.covered, found.bias, found.rmse, least, found.interference, found.drift)
            print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
