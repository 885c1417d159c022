"""Retry policies through the real client and real sockets: the synthesised one and those that are usually written.

A simulated server runs `--speed` times as fast, and all times of the policies are divided by it; what is printed is in
seconds of the jobs. All policies meet the same arrivals, jobs and troubles, each on a server of its own. The usual ones
follow their jobs by the same client, so that they hear of every end at once; what they have given up on stays in the
queue. The policy is made from a run of `--baseline` jobs on the same simulator.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, structs

from comfyload import clock
from comfyload.advise.choose_policy import OURS, synthesise
from comfyload.advise.naive_client import NAIVE, Naive
from comfyload.advise.naive_client import scaled as retimed
from comfyload.advise.service_times import ServiceTimes
from comfyload.app.advice import Basis, basis
from comfyload.app.naive_client import NaiveHttpClient
from comfyload.app.run.launch import run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.viewer import Viewer
from comfyload.comfy.address import parse_server
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.timeouts import Timeouts
from comfyload.load.engine import Client
from comfyload.record.model import Prompt
from comfyload.record.plan import Closed, Plan
from comfyload.retry.client import RetryingClient
from comfyload.retry.policy import Policy
from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve

JOBS_S = {"short": (8.0, 7), "long": (20.0, 1)}
"""What a job takes, and how many of eight are such: a mean of 9.5 s."""
MEAN_S = 9.5
DEADLINE_S = 90.0
USUAL_S = 60.0
"""The timeout that scripts have when nobody has thought about it."""
SETTLES_S, SCORED_S, STEADY_S = 180.0, 600.0, 1500.0
LOADS = {"steady": 0.6, "burst": 0.6, "restart": 0.6, "stall": 0.8}
EVENTS_S = {"steady": 0.0, "burst": 300.0, "restart": 60.0, "stall": 60.0}
BURST = 2.0
USUAL = ("no retry", "3 retries at once", "4 retries, 5 s apart", "tenacity, exponential", "stamina, as it comes")


class Job(Struct, frozen=True):
    due_s: float
    kind: str


class Result(Struct):
    """What one policy made of one world. Times are of jobs. `counted`: jobs that came in the time that is scored."""

    scenario: str
    policy: str
    jobs: int
    counted: int = 0
    good: int = 0
    sent: int = 0
    executed: int = 0
    twice: int = 0
    spent_s: float = 0.0
    useful_s: float = 0.0
    left: int = 0
    lag_s: float = 0.0


class Next(Which, frozen=True, kw_only=True):
    """The next prompt that starts after `armed` was filled."""

    armed: list[int]

    def hits(self, ordinal: int, rng: random.Random) -> bool:
        return bool(self.armed) and bool(self.armed.pop())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speed", type=float, default=30.0, help="of the simulated server (default: %(default)g)")
    parser.add_argument("--worlds", type=int, default=4, help="of each trouble (default: %(default)d)")
    parser.add_argument("--baseline", type=int, default=56, help="jobs that are measured (default: %(default)d)")
    parser.add_argument("--workers", type=int, default=2, help="worlds at a time (default: %(default)d)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    policy = synthesised(args.speed, args.baseline, args.seed)
    behaviours: dict[str, Policy | Naive] = {OURS: scaled(policy, args.speed), **usual(args.speed)}
    worlds = [(name, args.seed + number) for number in range(args.worlds) for name in LOADS]
    results: list[Result] = []
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(play, worlds, [behaviours] * len(worlds), [args.speed] * len(worlds)):
            results += found
    took_min = (time.monotonic() - began) / 60
    print(f"{args.worlds} worlds of each trouble at speed {args.speed:g}, seeds from {args.seed}, {took_min:.1f} min.")
    print(f"The policy: at most {policy.admission.depth} prompts before a job, {policy.attempts} attempts.")
    print(f"Event loops were late by {max(row.lag_s for row in results):.2g} s of the jobs at most.\n")
    print(table(results))
    print("\n".join(claims(results)))


def synthesised(speed: float, jobs: int, seed: int) -> Policy:
    """From a run of so many jobs, its times multiplied by the speed."""
    found = clock.run(measured(speed, jobs, seed))
    return synthesise(
        slower(found.pools, speed),
        found.workload,
        deadline_s=DEADLINE_S,
        rate_per_s=0.6 / MEAN_S,
        transient=found.transient,
        rng=np.random.default_rng(seed),
    )


async def measured(speed: float, jobs: int, seed: int) -> Basis:
    with tempfile.TemporaryDirectory() as folder:
        choices = []
        for kind, (_, weight) in JOBS_S.items():
            file = Path(folder, f"{kind}.json")
            file.write_bytes(graph(kind, 1))  # noqa: ASYNC240 - nothing is measured yet
            choices.append(WorkflowChoice(file=str(file), weight=weight))
        plan = Plan(load=Closed(concurrency=1), jobs=jobs, warmup=2, seed=seed)
        async with Server(speed=speed, seed=seed) as server, serve(server) as url:
            options = RunOptions(server=url, workflows=choices, plan=plan, run_dir=f"{folder}/run", telemetry=False)
            path = await run(options, Viewer())
        return basis(str(path), Path(folder, "none"))


def slower(pools: ServiceTimes, speed: float) -> ServiceTimes:
    return structs.replace(
        pools,
        warm=[speed * times for times in pools.warm],
        switched=[speed * times for times in pools.switched],
        overhead_s=speed * pools.overhead_s,
        gap_s=speed * pools.gap_s,
    )


def scaled(policy: Policy, speed: float) -> Policy:
    """The same policy of a faster world. The sockets are no faster, so what waits for them keeps a second."""
    assert policy.deadline_s is not None and policy.liveness_s is not None
    back, breaker = policy.backoff, policy.breaker
    return structs.replace(
        policy,
        deadline_s=policy.deadline_s / speed,
        connect_s=max(1.0, policy.connect_s / speed),
        submit_s=max(1.0, policy.submit_s / speed),
        liveness_s=policy.liveness_s / speed,
        backoff=structs.replace(back, base_s=back.base_s / speed, cap_s=back.cap_s / speed),
        breaker=structs.replace(breaker, open_s=breaker.open_s / speed, open_max_s=breaker.open_max_s / speed),
    )


def usual(speed: float) -> dict[str, Policy | Naive]:
    """With the deadline as the timeout of each attempt, the best that can be done for them; two with the usual one."""
    known = {naive.name: naive for naive in NAIVE}
    given = {name: (known[name], DEADLINE_S) for name in USUAL}
    given |= {f"{name}, {USUAL_S:g} s each": (known[name], USUAL_S) for name in USUAL[1:3]}
    return {name: retimed(naive, 1 / speed, timeout_s=timeout_s) for name, (naive, timeout_s) in given.items()}


# --- one world


def play(world: tuple[str, int], behaviours: dict[str, Policy | Naive], speed: float) -> list[Result]:
    """All policies at once, each on a server of its own."""

    async def all_of_them() -> list[Result]:
        return list(await asyncio.gather(*(one(world, name, how, speed) for name, how in behaviours.items())))

    return clock.run(all_of_them())


def drawn(scenario: str, seed: int) -> list[Job]:
    """Arrivals: Poisson, at the load of the scenario and during a burst at twice the capacity."""
    rng, event_s = random.Random(f"{seed}/{scenario}"), EVENTS_S[scenario]
    ends = SETTLES_S + (event_s + SCORED_S if event_s else STEADY_S)
    kinds, weights = list(JOBS_S), [weight for _, weight in JOBS_S.values()]
    jobs, due = list[Job](), 0.0
    while True:
        in_burst = scenario == "burst" and SETTLES_S <= due < SETTLES_S + event_s
        due += rng.expovariate((BURST if in_burst else LOADS[scenario]) / MEAN_S)
        if due >= ends:
            return jobs
        jobs.append(Job(due, rng.choices(kinds, weights)[0]))


async def one(world: tuple[str, int], name: str, how: Policy | Naive, speed: float) -> Result:
    scenario, seed = world
    jobs, armed = drawn(scenario, seed), list[int]()
    faults = Faults(hang=Next(armed=armed), hang_s=EVENTS_S["stall"] / speed)
    # Sockets take what they take at any speed.
    timeouts = Timeouts(lost_s=0.1, silence_s=0.2, confirm_s=1.0, cancel_s=1.0, unreachable_s=120 / speed, submit_s=1.0)
    result, now = Result(scenario, name, len(jobs)), clock.stopwatch()
    done: dict[int, float] = {}
    ids: dict[int, list[str]] = {}
    async with (
        Server(speed=speed, seed=seed, faults=faults) as server,
        serve(server) as url,
        Http.connect(parse_server(url), {}) as transport,
    ):
        facts = await identify(transport, url, [])
        lags = asyncio.create_task(watch(result, speed))
        options = ClientOptions(timeouts=timeouts)
        if isinstance(how, Policy):
            async with RetryingClient.open(
                [(transport, facts)], how, now, rng=random.Random(seed), options=options
            ) as client:
                await send(client, jobs, speed, now, done, ids, trouble(scenario, server, armed, speed))
                result.left = await remaining(transport)
        else:
            async with ComfyClient.open(transport, facts, now, options) as follower:
                naive = NaiveHttpClient(how, follower.run, now, random.Random(seed))
                await send(naive, jobs, speed, now, done, ids, trouble(scenario, server, armed, speed))
                result.left = await remaining(transport)
                ids = {index: naive.ids.get(of_it[0], of_it) for index, of_it in ids.items()}
        lags.cancel()
    account(result, server, jobs, done, ids, speed)
    return result


async def send(
    client: Client,
    jobs: Sequence[Job],
    speed: float,
    now: Callable[[], float],
    done: dict[int, float],
    ids: dict[int, list[str]],
    trouble: Any,
) -> None:
    """Until all that come in time have come; `done` gets the jobs' latencies in their own seconds."""
    zero = now()

    async def see(index: int, job: Job) -> None:
        body = graph(job.kind, index)
        prompt = Prompt(id=str(uuid.uuid4()), index=index, workflow=job.kind, warmup=False, graph_of=lambda _: body)
        ids[index] = [prompt.id]
        execution = await client.run(prompt)
        ids[index] = [attempt.prompt_id for attempt in execution.attempts] or [prompt.id]
        if execution.outcome == "completed":
            done[index] = (now() - zero) * speed - job.due_s

    troubling = asyncio.create_task(trouble)
    tasks = []
    for index, job in enumerate(jobs):
        await asyncio.sleep(max(0.0, zero + job.due_s / speed - now()))
        tasks.append(asyncio.create_task(see(index, job)))
    # What is not done by then is late, whatever becomes of it.
    _, late = await asyncio.wait(tasks, timeout=1.2 * DEADLINE_S / speed)
    for task in late:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    await troubling


async def trouble(scenario: str, server: Server, armed: list[int], speed: float) -> None:
    await asyncio.sleep(SETTLES_S / speed)
    if scenario == "restart":
        server.restart(EVENTS_S[scenario] / speed)
    elif scenario == "stall":
        armed.append(1)


async def remaining(transport: Http) -> int:
    from comfyload.comfy.wire.calls import Request

    reply = await transport.call(Request(method="GET", path="prompt"))
    return int(json.loads(reply.body)["exec_info"]["queue_remaining"])


async def watch(result: Result, speed: float) -> None:
    """How late the event loop is at worst."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(0.05)
        result.lag_s = max(result.lag_s, (loop.time() - before - 0.05) * speed)


def account(
    result: Result, server: Server, jobs: Sequence[Job], done: dict[int, float], ids: dict[int, list[str]], speed: float
) -> None:
    """Fill in the result from what the server did."""
    event_s = EVENTS_S[result.scenario]
    until = SETTLES_S + (event_s + SCORED_S if event_s else STEADY_S)
    counted = [index for index, job in enumerate(jobs) if SETTLES_S <= job.due_s < until]
    good = [index for index, late in done.items() if late <= DEADLINE_S]
    times = {truth.prompt_id: truth for truth in server.truth if truth.outcome == "completed"}
    result.counted, result.good = len(counted), len(set(counted) & set(good))
    result.sent, result.executed = sum(server.posts.values()), len(times)
    result.twice = sum(sum(prompt_id in times for prompt_id in set(of_it)) > 1 for of_it in ids.values())
    # A job's own time counts, not what a stall adds to it.
    result.useful_s = sum(JOBS_S[jobs[index].kind][0] for index in good)
    result.spent_s = sum(speed * ((truth.ended or truth.started) - truth.started) for truth in server.truth)
    result.spent_s -= event_s if result.scenario == "stall" else 0.0


def graph(kind: str, seed: int) -> bytes:
    sleep = {"image": ["1", 0], "seconds": JOBS_S[kind][0], "seed": seed}
    nodes = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SimSleep", "inputs": sleep},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "policies/x"}},
    }
    return json.dumps(nodes).encode()


# --- what is printed


def table(results: Iterable[Result]) -> str:
    """Markdown, a row for each policy in each trouble."""
    words = {"steady": "none", "burst": "twice the capacity, 5 min", "restart": "restart, 60 s", "stall": "stall, 60 s"}
    lines = [
        "| trouble | policy | jobs | in time | worlds from | to | sent per job | run twice | wasted | left |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (scenario, policy), rows in grouped(results).items():
        shares = [row.good / row.counted for row in rows]
        name = f"**{policy}**" if policy == OURS else policy
        jobs = sum(row.jobs for row in rows)
        cells = [
            words[scenario],
            name,
            str(sum(row.counted for row in rows)),
            f"{100 * share(rows):.1f} %",
            f"{100 * min(shares):.0f}",
            f"{100 * max(shares):.0f}",
            f"{sum(row.sent for row in rows) / jobs:.2f}",
            str(sum(row.twice for row in rows)),
            f"{100 * max(0.0, 1 - sum(row.useful_s for row in rows) / sum(row.spent_s for row in rows)):.0f} %",
            str(sum(row.left for row in rows)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def claims(results: Iterable[Result]) -> list[str]:
    """Whether it is so: better than every other in trouble, and nowhere more than a point worse without."""
    found, out = grouped(results), []
    for scenario in LOADS:
        ours = 100 * share(found[scenario, OURS])
        others = {
            policy: 100 * share(rows) for (of, policy), rows in found.items() if of == scenario and policy != OURS
        }
        best = max(others, key=lambda policy: others[policy])
        holds = ours >= others[best] - 1.0 if scenario == "steady" else ours > others[best]
        out.append(f"{scenario}: {OURS} {ours:.1f} %, best other {others[best]:.1f} % ({best}): {holds}")
    return out


def share(rows: Sequence[Result]) -> float:
    return sum(row.good for row in rows) / max(1, sum(row.counted for row in rows))


def grouped(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    out: dict[tuple[str, str], list[Result]] = {}
    for scenario in LOADS:
        for row in results:
            if row.scenario == scenario:
                out.setdefault((scenario, row.policy), []).append(row)
    return out


if __name__ == "__main__":
    main()
