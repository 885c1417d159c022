"""What is simulated is what runs: one world, played by the client over simulated servers and by the scored one."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from comfyload.advise.cluster import Cluster
from comfyload.advise.policy_client import PolicyClient
from comfyload.advise.scenarios import Scenario, World
from comfyload.record.model import Execution
from comfyload.record.policy import Admission, Backoff, Policy
from comfyload.retry.decide import Dispatcher
from comfyload.sim import Faults, Server
from tests.unit.retrying import Scene, ask, scene

JOBS = 150
POLICY = Policy(
    deadline_s=60.0, liveness_s=60.0, attempts=3, admission=Admission(depth=4), backoff=Backoff(base_s=1, cap_s=5)
)
NOWHERE = -1


def _world(seed: int, servers: int, load: float, scenario: Scenario) -> World:
    """Jobs of two workflows, 2 s and 5 s, the second with a few that take thrice as long."""
    rng = np.random.default_rng(seed)
    workflows = rng.integers(0, 2, JOBS)
    takes = np.where(workflows == 0, 2.0, 5.0) * np.where(rng.random(JOBS) < 0.1, 3.0, 1.0)
    arrivals = np.cumsum(rng.exponential(takes.mean() / load / servers, JOBS))
    ends = float(arrivals[-1])
    return World(
        scenario=scenario,
        arrivals=arrivals.tolist(),
        workflows=workflows.tolist(),
        warm=takes.tolist(),
        switched=takes.tolist(),
        u=[[1.0] * 8] * JOBS,
        breaks_at=[0.5] * JOBS,
        poisoned=[False] * JOBS,
        seed=seed,
        minute_s=60.0,
        settled_s=0.0,
        event_from_s=50.0,
        event_to_s=50.0 + scenario.event_s,
        scored_to_s=ends,
        ends_s=ends,
    )


def _simulated(world: World, servers: int) -> tuple[list[int], list[bool]]:
    farm = Cluster(world, servers)
    client = PolicyClient(POLICY, farm)
    _teach(client._dispatcher.times)
    farm.run(client, longer_s=100.0)
    where = [NOWHERE if job.attempt is None else farm.places.index(job.attempt.place) for job in farm.jobs]
    return where, [job.done is not None for job in farm.jobs]


def _run(world: World, servers: int) -> tuple[list[int], list[bool]]:
    """The same by the client that runs, on virtual time."""

    async def script(found: Scene) -> list[Execution]:
        loop = asyncio.get_running_loop()
        began, tasks = loop.time(), []
        _teach(found.client._pool.dispatcher.times)
        for index, due in enumerate(world.arrivals):
            await asyncio.sleep(max(0.0, began + due - loop.time()))
            prompt = ask(world.warm[index], index, str(world.workflows[index]))
            tasks.append(asyncio.create_task(found.client.run(prompt)))
        return list(await asyncio.gather(*tasks))

    faults = Faults()
    if world.scenario.restarts:
        faults = Faults(restart_at_s=world.event_from_s, downtime_s=world.scenario.event_s)
    machines = [Server(faults=faults if number == 0 else Faults(), seed=number) for number in range(servers)]
    done, _ = scene(machines, POLICY, script)
    names = [f"http://s{number}/" for number in range(servers)]
    # One server goes without saying.
    where = [names.index(e.attempts[-1].server) if e.attempts else 0 if e.sent is not None else NOWHERE for e in done]
    return where, [e.outcome == "completed" for e in done]


def _teach(times: Any) -> None:
    """What both know at first: models take long to load, so that they stay where they are until it costs too much."""
    for name, seconds in (("0", 2.0), ("1", 5.0)):
        times.learn(name, name, seconds)
        times.learn(name, None, seconds + 4.0)


@pytest.mark.parametrize(("servers", "load", "seed"), [(1, 0.7, 1), (2, 0.7, 2), (3, 0.9, 3), (1, 1.3, 4), (2, 1.3, 4)])
def test_each_job_goes_to_the_same_server(servers: int, load: float, seed: int) -> None:
    world = _world(seed, servers, load, Scenario(name="steady"))
    (simulated, done), (ran, completed) = _simulated(world, servers), _run(world, servers)
    assert np.mean(np.array(simulated) == np.array(ran)) >= 0.9
    assert abs(np.mean(done) - np.mean(completed)) <= 0.01


@pytest.mark.parametrize(
    ("servers", "load", "seeds"),
    [(1, 0.9, (10,)), (1, 1.1, (11,)), (2, 1.1, (11, 12)), (2, 0.7, (12,)), (3, 1.1, (11,))],
)
def test_as_many_jobs_survive_a_restart(servers: int, load: float, seeds: tuple[int, ...]) -> None:
    """A minute without a server. Once one job of an idle pair has gone elsewhere, so do those after it: what counts is
    how many are in time. An overloaded pair is played twice, as what one job does changes the fate of many.
    """
    apart = []
    for seed in seeds:
        world = _world(seed, servers, load, Scenario(name="restart", event_s=60.0, restarts=True))
        (_, done), (_, completed) = _simulated(world, servers), _run(world, servers)
        apart.append(np.mean(done) - np.mean(completed))
    assert abs(np.mean(apart)) <= 0.025


def test_both_ask_the_same_chooser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were one of them to choose by itself, the jobs would not all be on the last server."""
    monkeypatch.setattr(Dispatcher, "choose", lambda self, job, usable, now: usable[-1])
    world = _world(5, 2, 0.7, Scenario(name="steady"))
    for where, _ in (_simulated(world, 2), _run(world, 2)):
        # Where the last one is full, the first is the last of those that are not.
        assert np.mean(np.array(where) == 1) > 0.6


def test_they_start_with_the_same_knowledge() -> None:
    world = _world(1, 1, 0.5, Scenario(name="steady"))
    assert PolicyClient(POLICY, Cluster(world, 1))._dispatcher.times.mean_s == 0.0
