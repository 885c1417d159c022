"""Ten thousand jobs through servers that drop, lose, restart and repeat themselves: each ends once, and runs once.

A schedule draws what goes wrong and when; all of it happens on virtual time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from comfyload.record.model import Execution
from comfyload.retry.policy import Admission, Backoff, Policy
from comfyload.sim import Faults, Server, Which
from comfyload.sim.settings import Truth
from tests.unit.retrying import Scene, ask, scene

pytestmark = pytest.mark.long

SCHEDULES = 40
JOBS = 250
UNSEEN_S = 5.0
"""How long the end of a job may stay unseen: its event was lost, or is held up, and the history not yet asked."""

POLICY = Policy(
    deadline_s=600.0,
    liveness_s=60.0,
    attempts=4,
    admission=Admission(depth=6),
    backoff=Backoff(base_s=0.5, cap_s=5.0),
)


def faults(rng: Random) -> Faults:
    """What may go wrong with one server by itself."""

    def share(most: float) -> Which:
        return Which(share=rng.choice([0.0, most * rng.random()]))

    return Faults(
        drop_reply=share(0.1),
        lost_queue=share(0.05),
        refuse=share(0.05),
        drop_socket=share(0.1),
        drop_socket_event=rng.randint(1, 6),
        duplicate_events=rng.random() < 0.5,
        unknown_events=rng.random() < 0.3,
        node_error=share(0.05),
        oom=share(0.02),
        restart=share(0.01),
        downtime_s=rng.choice([0.0, 1.0, 10.0]),
        no_history_s=rng.choice([0.0, 0.0, 0.5]),
        http_500="/prompt" if rng.random() < 0.2 else "",
        http_500_first=rng.randint(1, 10),
    )


async def disturb(found: Scene, rng: Random, until: asyncio.Future[list[Execution]]) -> None:
    """What an operator, a proxy and the power do beside."""
    while not until.done():
        await asyncio.sleep(rng.expovariate(1 / 8.0))
        server = rng.choice(found.servers)
        what = rng.random()
        if not server.up:
            continue
        if what < 0.5:
            server.drop_sockets()
        elif what < 0.75:
            server.stall_events(True)
            await asyncio.sleep(rng.uniform(0.1, 3.0))
            server.stall_events(False)
        elif what < 0.85:
            server.restart(rng.choice([0.0, 2.0, 15.0]))


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_each_job_ends_once_and_runs_once(seed: int) -> None:
    rng = Random(seed)
    servers = [Server(faults=faults(rng), seed=seed + index, speed=1.0) for index in range(rng.randint(1, 3))]
    asked = [ask(rng.uniform(0.05, 0.5), n, rng.choice("ab"), nodes=2) for n in range(JOBS)]

    falls: list[list[float]] = [[] for _ in servers]
    for server, fell in zip(servers, falls, strict=True):
        server.listeners.append(lambda up, fell=fell: None if up else fell.append(asyncio.get_running_loop().time()))

    async def script(found: Scene) -> list[Execution]:
        async def later(n: int) -> Execution:
            await asyncio.sleep(n * 0.15)
            return await found.client.run(asked[n])

        everything = asyncio.gather(*(later(n) for n in range(JOBS)))
        beside = asyncio.create_task(disturb(found, rng, everything))
        done = await everything
        await beside
        return done

    done, found = scene(servers, POLICY, script, seed=seed)
    assert len(done) == JOBS and all(execution.outcome != "cancelled" for execution in done)
    assert all(not ids for ids in found.left), "something of ours is left in a queue"

    job_of = {attempt.prompt_id: prompt.id for prompt, e in zip(asked, done, strict=True) for attempt in e.attempts}
    job_of |= {prompt.id: prompt.id for prompt in asked}
    runs: Counter[str] = Counter()
    for server, fell in zip(servers, falls, strict=True):
        for truth in server.truth:
            if truth.outcome == "completed" and not unknowable(truth, fell):
                runs[job_of[truth.prompt_id]] += 1
    assert all(n == 1 for n in runs.values()), [(job, n) for job, n in runs.items() if n > 1]
    share = sum(execution.outcome == "completed" for execution in done) / JOBS
    assert share > 0.9, (share, Counter(e.failure.kind for e in done if e.failure))


def unknowable(truth: Truth, fell: list[float]) -> bool:
    """Whether it ended so shortly before its server forgot everything that its end may have been seen by nobody."""
    assert truth.ended is not None
    return any(0.0 <= at - truth.ended <= UNSEEN_S for at in fell)
