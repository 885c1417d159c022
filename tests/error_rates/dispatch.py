"""What a way to share jobs out among servers does to latency, by a simulation of its own, job by job.

The first table holds the forecast of `capacity` against it; the second is why a job may wait where its models are until
that costs three times as much as loading them elsewhere.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Callable

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from comfyload.advise.queueing import Dispatch
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.advise.traffic import Traffic
from comfyload.judge.arrays import Floats
from tests.error_rates.laws import LAWS

MEDIAN_S = 8.0
SWAP_S = 12.0
PER_STREAM = 20_000
SPILLS = (1.0, 2.0, 3.0, 4.0)


class Server:
    """One server: departures of what is on it, what is expected of each, and the workflow that it runs last."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[float, float, float]] = deque()  # begins, ends, expected
        self.workflow = -1
        self.used = -1

    def leave(self, now: float) -> None:
        while self.jobs and self.jobs[0][1] <= now:
            self.jobs.popleft()

    def work_s(self, now: float) -> float:
        """Expected seconds before a job that comes now."""
        if not self.jobs:
            return 0.0
        begun, _, expected = self.jobs[0]
        return max(0.0, expected - (now - begun)) + sum(job[2] for job in list(self.jobs)[1:])


class Stream(Struct, frozen=True, kw_only=True):
    """Jobs in the order of arrival: when each comes, its workflow, and what it takes of itself."""

    arrivals: Floats
    workflows: NDArray[np.int64]
    takes: Floats


def stream(law: str, rate_per_s: float, shares: list[float], jobs: int, rng: np.random.Generator) -> Stream:
    return Stream(
        arrivals=np.cumsum(rng.exponential(1 / rate_per_s, jobs)),
        workflows=rng.choice(len(shares), jobs, p=np.array(shares) / sum(shares)),
        takes=MEDIAN_S * LAWS[law].draw(rng, jobs),
    )


def in_turn(servers: list[Server], now: float, workflow: int, at: int) -> Server:
    return servers[at % len(servers)]


def fewest_jobs(servers: list[Server], now: float, workflow: int, at: int) -> Server:
    return min(servers, key=lambda server: (len(server.jobs), server.used))


def at_home(spill_s: float) -> Callable[[list[Server], float, int, int], Server]:
    def choose(servers: list[Server], now: float, workflow: int, at: int) -> Server:
        best = min(servers, key=lambda server: (server.work_s(now), server.used))
        homes = [server for server in servers if server.workflow == workflow]
        home = min(homes, key=lambda server: server.work_s(now), default=best)
        return home if home.work_s(now) - best.work_s(now) <= spill_s else best

    return choose


def latencies(
    jobs: Stream, count: int, choose: Callable[[list[Server], float, int, int], Server], mean_s: float, swap_s: float
) -> Floats:
    """Seconds from arrival to end; the dispatcher expects the mean of a job, and the switch where there is one."""
    servers = [Server() for _ in range(count)]
    out = np.empty(len(jobs.takes))
    for at, (now, workflow, takes) in enumerate(zip(jobs.arrivals, jobs.workflows, jobs.takes, strict=True)):
        for server in servers:
            server.leave(now)
        server = choose(servers, now, int(workflow), at)
        more = 0.0 if server.workflow == workflow else swap_s
        begins = max(now, server.jobs[-1][1] if server.jobs else now)
        server.jobs.append((begins, begins + takes + more, mean_s + more))
        server.workflow, server.used = int(workflow), at
        out[at] = begins + takes + more - now
    return out[len(out) // 10 :]


def p95s(law: str, load: float, servers: int, way: Dispatch, workflows: int, streams: int) -> tuple[float, Floats]:
    """What the product forecasts, and what comes out job by job of each stream: all of the same 4000 measured jobs, so
    many that their number does not matter.
    """
    takes = MEDIAN_S * LAWS[law].draw(np.random.default_rng(7), 4000)
    mean_s, swap_s = float(takes.mean()), SWAP_S if workflows > 1 else 0.0
    pools = ServiceTimes(
        workflows=[str(code) for code in range(workflows)],
        warm=[takes] * workflows,
        switched=[takes + swap_s] * workflows,
        made_up=[],
        overhead_s=0.0,
        gap_s=0.0,
    )
    rate = load * servers / mean_s
    traffic = Traffic([pools] * 300, Workload(shares=[1.0] * workflows), 2500, np.random.default_rng(8))
    said = float(np.quantile(traffic.latencies(np.full(300, rate), servers, way)[0], 0.95))
    rules = {"round_robin": in_turn, "shortest_queue": fewest_jobs, "affinity": at_home(3 * swap_s)}
    each = []
    for number in range(streams):
        rng = np.random.default_rng(number)
        drawn = stream(law, rate, [1.0] * workflows, PER_STREAM, rng)
        drawn = structs.replace(drawn, takes=rng.choice(takes, PER_STREAM))
        each.append(np.quantile(latencies(drawn, servers, rules[way], mean_s, swap_s), 0.95))
    return said, np.array(each)


def spilled(spill: float, load: float, shares: list[float], streams: int, jobs: int) -> tuple[float, float]:
    """p95 of all streams, and the half-width of its 95 % interval, from the streams."""
    mean_s = MEDIAN_S * LAWS["logn .2"].mean
    each = []
    for number in range(streams):
        rng = np.random.default_rng([number, round(100 * load)])
        drawn = stream("logn .2", load * 4 / mean_s, shares, jobs, rng)
        each.append(float(np.quantile(latencies(drawn, 4, at_home(spill * SWAP_S), mean_s, SWAP_S), 0.95)))
    return float(np.mean(each)), float(1.96 * np.std(each, ddof=1) / np.sqrt(streams))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=4, help="streams of jobs (default: %(default)d)")
    args = parser.parse_args()
    print("| servers, workflows, law, load | dispatch | p95 forecast, s | p95 job by job, s | |")
    print("|---|---|---:|---:|---:|")
    for law, servers, workflows, load in (("15%x2.5", 4, 1, 0.85), ("logn .3", 4, 1, 0.85), ("logn .2", 4, 4, 0.7)):
        for way in ("affinity", "shortest_queue", "round_robin"):
            if workflows > 1 and way != "affinity":
                continue
            said, each = p95s(law, load, servers, way, workflows, 2 * args.runs)
            true, half = each.mean(), 1.96 * each.std(ddof=1) / math.sqrt(len(each))
            which = f"{servers}, {workflows}, {law}, {load}"
            print(f"| {which} | {way} | {said:.1f} | {true:.1f} ± {half:.1f} | {said / true - 1:+.1%} |")
    print("\n| mix, warm load | " + " | ".join(f"{spill:g} switches" for spill in SPILLS) + " |")
    print("|---|" + "---:|" * len(SPILLS))
    for name, shares in (("even", [1.0] * 4), ("70 % one", [7.0, 1.0, 1.0, 1.0])):
        for load in (0.45, 0.6, 0.7, 0.75, 0.8):
            cells = [spilled(spill, load, shares, args.runs, 12_000) for spill in SPILLS]
            print(f"| {name}, {load} | " + " | ".join(f"{p95:.0f} ± {half:.0f}" for p95, half in cells) + " |")


if __name__ == "__main__":
    main()
