"""A retrying client over several simulated servers: where jobs go, and what happens when one fails them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from comfyload.comfy.identify import identify
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.record.model import Execution, Prompt
from comfyload.record.policy import Admission, Breaker, Policy
from comfyload.retry.policy import default
from comfyload.sim import Faults, Server, Which
from tests.support.direct import Direct
from tests.unit.retrying import Scene, ask, scene

POLICY = Policy(deadline_s=600.0, liveness_s=30.0)


def play(
    servers: list[Server], policy: Policy, *seconds: float, gap_s: float = 0.0, **more: Any
) -> tuple[list[Execution], Scene]:
    async def script(found: Scene) -> list[Execution]:
        return await found.run(*seconds, gap_s=gap_s)

    return scene(servers, policy, script, **more)


def ran(found: Scene) -> list[int]:
    return [sum(truth.outcome == "completed" for truth in server.truth) for server in found.servers]


def test_jobs_are_shared_out_by_the_seconds_they_take() -> None:
    done, found = play([Server(), Server(), Server()], POLICY, *[2.0] * 12)
    assert ran(found) == [4, 4, 4] and all(e.outcome == "completed" for e in done)


def test_a_server_that_is_busy_with_others_work_gets_less() -> None:
    async def script(found: Scene) -> list[Execution]:
        for seed in range(6):
            graph: Any = json.loads(ask(2.0).graph())
            graph["10"]["inputs"]["seed"] = seed
            found.servers[0].foreign(graph, client_id="another")
        return await found.run(*[2.0] * 6)

    done, found = scene([Server(), Server()], POLICY, script)
    assert all(e.outcome == "completed" for e in done)
    ours = [sum(t.client_id != "another" and t.outcome == "completed" for t in s.truth) for s in found.servers]
    assert ours[0] < ours[1]


def test_a_dead_server_costs_no_job_and_gets_work_again_when_it_is_back() -> None:
    servers = [Server(faults=Faults(restart_at_s=2.5, downtime_s=60.0)), Server()]
    done, found = play(servers, POLICY, *[1.0] * 150, gap_s=0.9)
    assert all(e.outcome == "completed" for e in done)
    back = [truth for truth in servers[0].truth if truth.started > 62.0]
    assert len(back) > 3 and found.left == [[], []]
    assert len(found.executed()) == len(set(found.executed())) == 150


def test_what_waits_on_a_server_that_hangs_is_taken_back_and_sent_elsewhere() -> None:
    servers = [Server(faults=Faults(hang=Which(at=(1,)))), Server()]
    done, found = play(servers, POLICY, *[1.0] * 6)
    assert all(e.outcome == "completed" for e in done) and ran(found) == [0, 6]
    moved = [e for e in done if e.attempts and e.attempts[0].outcome == "cancelled"]
    assert len(moved) == 2 and all(len({a.prompt_id for a in e.attempts}) == 1 for e in moved)
    assert sum(e.attempts[0].failure.kind == "hung" for e in done if e.attempts and e.attempts[0].failure) == 1


def test_a_server_that_stops_in_silence_loses_its_waiting_jobs_to_another() -> None:
    async def script(found: Scene) -> list[Execution]:
        running = asyncio.create_task(found.run(*[5.0] * 6))
        await asyncio.sleep(1.0)
        found.servers[0].kill_worker()
        done = await running
        assert found.client._pool.backends[0].circuit.broken_s(found.now()) > 0.0, "and is left alone"
        return done

    done, found = scene([Server(), Server()], POLICY, script)
    assert all(e.outcome == "completed" for e in done) and ran(found) == [0, 6]


def test_a_job_that_ran_out_of_memory_prefers_a_bigger_server() -> None:
    servers = [Server(faults=Faults(oom=Which(every=1)), vram_gib=8.0), Server(vram_gib=48.0), Server(vram_gib=8.0)]
    done, found = play(servers, default(), 1.0)
    assert done[0].outcome == "completed" and ran(found) == [0, 1, 0]


def test_a_node_that_one_server_lacks_is_looked_for_on_another() -> None:
    servers = [Server(faults=Faults(http_500="nowhere")), Server()]

    async def script(found: Scene) -> list[Execution]:
        real = found.transports[0].call

        async def call(request: Any) -> Any:
            from comfyload.comfy.wire.calls import Reply

            if request.method == "POST" and request.path == "prompt":
                body = b'{"error": {"type": "missing_node_type", "message": "Node X not found"}, "node_errors": {}}'
                return Reply(status=400, body=body)
            return await real(request)

        found.transports[0].call = call  # type: ignore[method-assign]
        return await found.run(1.0, 1.0, gap_s=5.0)

    done, found = scene(servers, default(), script)
    assert [e.outcome for e in done] == ["completed"] * 2 and ran(found) == [0, 2]
    assert [len(e.attempts) for e in done] == [2, 1], "learnt: the second went to the other at once"


def test_a_place_is_free_again_if_its_job_is_cancelled_as_it_gets_it() -> None:
    async def script(found: Scene) -> list[Execution]:
        dispatcher = found.client._pool.dispatcher
        assign = dispatcher.assign
        running = asyncio.create_task(found.client.run(ask(1.0)))

        def cancelling(*args: Any) -> Any:
            for placed in assign(*args):
                yield placed
                running.cancel()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatcher, "assign", cancelling)
            with pytest.raises(asyncio.CancelledError):
                await running
        assert not found.client._pool.backends[0].held and not found.posts()
        return await found.run(1.0)

    done, _ = scene([Server()], Policy(admission=Admission(depth=0)), script)
    assert done[0].outcome == "completed"


def test_a_job_that_only_a_dead_server_could_run_is_given_up() -> None:
    async def script(found: Scene) -> Execution:
        real = found.transports[0].call

        async def call(request: Request) -> Reply:
            if request.method == "POST" and request.path == "prompt":
                body = b'{"error": {"type": "missing_node_type", "message": "Node X not found"}, "node_errors": {}}'
                return Reply(status=400, body=body)
            return await real(request)

        found.transports[0].call = call  # type: ignore[method-assign]
        found.servers[1].restart(1e6)
        return (await found.run(1.0))[0]

    done, _ = scene([Server(), Server()], default(), script)
    assert done.outcome == "failed" and done.done is not None and 110.0 < done.done < 200.0


def test_a_server_that_fails_while_others_are_asked_gets_nothing() -> None:
    posts: list[float] = []

    async def script(found: Scene) -> float:
        async def slow(_: Request) -> None:
            if found.now() > 5.0:
                await asyncio.sleep(4.0)

        async def count(request: Request) -> None:
            if request.method == "POST" and request.path == "prompt":
                posts.append(found.now())

        found.transports[1].before_call, found.transports[0].before_call = slow, count
        await found.run(1.0)
        await asyncio.sleep(5.0)
        running = asyncio.create_task(found.run(*[1.0] * 4))
        await asyncio.sleep(1.0)
        found.client._pool.backends[0].circuit.trip(found.now())
        tripped = found.now()
        await running
        return tripped

    tripped, _ = scene([Server(), Server()], Policy(breaker=Breaker(open_s=30.0)), script)
    assert not [at for at in posts if tripped < at < tripped + 15.0]


def test_a_server_that_asks_for_a_pause_keeps_what_waits_there() -> None:
    async def script(found: Scene) -> list[Execution]:
        real = found.transports[0].call

        async def call(request: Request) -> Reply:
            if request.method == "POST" and request.path == "prompt" and 1.0 < found.now() < 3.0:
                return Reply(status=429, body=b"busy", headers={"retry-after": "30"})
            return await real(request)

        found.transports[0].call = call  # type: ignore[method-assign]
        first = asyncio.create_task(found.run(*[5.0] * 6))
        await asyncio.sleep(2.0)
        return [*await found.run(5.0, 5.0), *await first]

    done, found = scene([Server(), Server()], default(), script)
    assert all(e.outcome == "completed" for e in done) and ran(found) == [3, 5]
    assert not any(attempt.outcome == "cancelled" for e in done for attempt in e.attempts)


def test_no_server_gets_more_than_its_depth() -> None:
    deepest = [0, 0]

    async def script(found: Scene) -> list[Execution]:
        running = asyncio.create_task(found.run(*[1.0] * 30))
        while not running.done():
            await asyncio.sleep(0.05)
            for index, server in enumerate(found.servers):
                deepest[index] = max(deepest[index], server._state.queue.remaining)
        return await running

    done, _ = scene([Server(), Server()], Policy(admission=Admission(depth=1)), script)
    assert all(e.outcome == "completed" for e in done) and deepest == [2, 2]


@pytest.mark.parametrize("workflows", [2, 3])
def test_models_stay_loaded_where_they_are(workflows: int) -> None:
    """Jobs of a second whose workflow takes ten to load: each server keeps to its own, until it is far behind."""

    workflow_of: dict[str, str] = {}

    async def script(found: Scene) -> None:
        async def one(prompt: Prompt) -> None:
            workflow_of[prompt.id] = prompt.workflow
            assert (await found.client.run(prompt)).outcome == "completed"

        times = found.client._pool.dispatcher.times
        for index in range(workflows):
            times.learn(f"w{index}", None, 11.0)
            times.learn(f"w{index}", f"w{index}", 1.0)
        tasks = []
        for index in range(60):
            prompt = ask(1.0, index, f"w{(7 * index) % workflows}")
            tasks.append(asyncio.create_task(one(prompt)))
            await asyncio.sleep(0.7)
        await asyncio.gather(*tasks)

    _, found = scene([Server() for _ in range(workflows)], Policy(), script)
    ran = [[workflow_of[truth.prompt_id] for truth in server.truth] for server in found.servers]
    assert sum(len(jobs) for jobs in ran) == 60
    assert [len(set(jobs)) for jobs in ran] == [1] * workflows, "each server runs one workflow, and no other"


def test_a_deadline_counts_what_is_before_a_job_in_seconds_and_not_in_jobs() -> None:
    async def script(found: Scene) -> tuple[int, int]:
        times = found.client._pool.dispatcher.times
        for name, seconds in (("short", 1.0), ("long", 10.0)):
            times.learn(name, name, seconds)
            times.learn(name, None, seconds)
        server = found.servers[0]
        tasks = [asyncio.create_task(found.client.run(ask(1.0, n, "short"))) for n in range(8)]
        await asyncio.sleep(0.5)
        short = server._state.queue.remaining
        await asyncio.gather(*tasks)
        tasks = [asyncio.create_task(found.client.run(ask(10.0, n, "long"))) for n in range(4)]
        await asyncio.sleep(0.5)
        long = server._state.queue.remaining
        await asyncio.gather(*tasks)
        return short, long

    (short, long), _ = scene([Server()], Policy(deadline_s=6.5), script)
    assert (short, long) == (6, 1)


@pytest.mark.parametrize("latency_s", [0.001, 0.2, 0.3])
def test_a_server_that_joins_while_jobs_wait_gets_the_next(latency_s: float) -> None:
    """Also while the others are being asked; the account names it, so that its files are sought there."""

    async def script(found: Scene) -> list[Execution]:
        async with Server() as other:
            running = asyncio.create_task(found.run(5.0, 5.0, 5.0))
            await asyncio.sleep(2.0)
            transport = Direct(other, latency_s=latency_s)
            await found.client.join(transport, await identify(transport, "http://joined/", []))
            return await running

    done, _ = scene([Server()], Policy(admission=Admission(depth=0)), script, latency_s=latency_s)
    assert [e.outcome for e in done] == ["completed"] * 3
    servers = [[attempt.server for attempt in e.attempts] for e in done]
    assert servers == [["http://s0/"], ["http://joined/"], ["http://s0/"]]


def test_a_server_that_answers_nothing_does_not_hold_up_the_others() -> None:
    async def script(found: Scene) -> list[float]:
        async def mute(_: Request) -> None:
            await asyncio.sleep(1e5)

        found.transports[0].before_call = mute
        took = []
        for _ in range(4):
            began = found.now()
            assert (await found.run(1.0))[0].outcome == "completed"
            took.append(found.now() - began)
        found.transports[0].before_call = None
        return took

    took, _ = scene([Server(), Server()], Policy(connect_s=5.0, deadline_s=60.0), script)
    assert took[0] < 1.7 and max(took[1:]) < 1.2, took


def test_a_pause_of_years_is_cut_short() -> None:
    """A server that asks for thirty years is asked again in ten minutes; a job with a deadline gives up at once."""

    async def script(found: Scene) -> tuple[Execution, float, Execution]:
        real = found.transports[0].call

        async def call(request: Request) -> Reply:
            if request.method == "POST" and request.path == "prompt" and found.now() < 30.0:
                return Reply(status=429, body=b"busy", headers={"retry-after": "999999999"})
            return await real(request)

        found.transports[0].call = call  # type: ignore[method-assign]
        hurried = await found.client.run(ask(1.0), deadline_s=20.0)
        ended = found.now()
        return hurried, ended, (await found.run(1.0))[0]

    (hurried, ended, patient), found = scene([Server()], default(), script)
    assert hurried.outcome == "failed" and hurried.failure.status == 429 and ended < 20.1
    assert patient.outcome == "completed" and patient.done < 1000.0 and found.posts() == 1
