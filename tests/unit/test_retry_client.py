"""The retrying client against one simulated server: what it sends again, what not, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import structs

from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.errors import UsageError
from comfyload.record.model import Execution
from comfyload.record.policy import Admission, Backoff, Breaker, Budget, Policy, Rule
from comfyload.retry.policy import RULES, default
from comfyload.sim import Faults, Server, Which
from tests.support.direct import Direct
from tests.unit.retrying import Scene, ask, ids, kinds, scene

ONCE = Which(at=(1,))


def play(
    faults: Faults | None, policy: Policy, *seconds: float, gap_s: float = 0.0, **more: Any
) -> tuple[list[Execution], Scene]:
    """Jobs of so many seconds against one server."""

    async def script(found: Scene) -> list[Execution]:
        return await found.run(*seconds, gap_s=gap_s)

    return scene([Server(faults=faults)], policy, script, **more)


def test_a_job_that_ends_at_once_tells_of_no_attempts() -> None:
    done, found = play(None, default(90.0), 1.0, 1.0)
    assert [(e.outcome, e.attempts) for e in done] == [("completed", [])] * 2
    assert found.posts() == len(found.executed()) == 2 and found.left == [[]]


def test_a_refused_connection_is_tried_again_under_the_same_id() -> None:
    done, found = play(Faults(refuse=Which(at=(6, 7))), default(90.0), 1.0)
    assert done[0].outcome == "completed" and kinds(done[0]) == ["connect", None] and len(set(ids(done[0]))) == 1
    assert found.posts() == 1 and done[0].attempts[1].waited_s > 0.0


def test_a_lost_reply_is_looked_up_and_not_sent_again() -> None:
    done, found = play(Faults(drop_reply=Which(every=1)), default(90.0), 1.0, 1.0)
    assert [e.outcome for e in done] == ["completed"] * 2 and not done[0].attempts and found.posts() == 2


def test_a_job_that_the_server_forgot_is_sent_again_under_its_id() -> None:
    done, found = play(Faults(lost_queue=Which(at=(2,))), default(90.0), 1.0, 1.0)
    assert kinds(done[1]) == ["lost", None] and len(set(ids(done[1]))) == 1 and len(found.executed()) == 2


def test_a_restart_costs_time_and_no_job() -> None:
    done, found = play(Faults(restart_at_s=1.5, downtime_s=20.0), default(90.0), 1.0, 1.0, 1.0)
    assert [e.outcome for e in done] == ["completed"] * 3 and found.left == [[]]
    ran, waited = ids(done[1]), ids(done[2])
    assert len(set(ran)) == 2, "it had begun to run: another id"
    assert len(set(waited)) == 1, "it waited, and is known to nobody now: the same id"


def test_memory_is_freed_once_and_the_job_sent_again() -> None:
    done, found = play(Faults(oom=ONCE), default(90.0), 1.0)
    assert done[0].outcome == "completed" and kinds(done[0]) == ["oom", None]
    assert found.servers[0].calls["POST /free"] == 1
    done, found = play(Faults(oom=Which(every=1)), default(90.0), 1.0)
    assert done[0].outcome == "failed" and kinds(done[0]) == ["oom", "oom"]
    assert found.servers[0].calls["POST /free"] == 1


def test_an_error_that_may_pass_is_tried_again_and_one_that_comes_again_is_learnt() -> None:
    done, found = play(Faults(node_error=Which(every=1)), default(90.0), 1.0, 1.0, gap_s=10.0)
    assert kinds(done[0]) == ["execution_error"] * 2 and not done[1].attempts and found.posts() == 3
    done, found = play(Faults(node_error=Which(at=(1, 3))), default(90.0), 1.0, 1.0, gap_s=10.0)
    assert [e.outcome for e in done] == ["completed"] * 2, "a job got past it, so that it may pass"


def test_an_error_of_the_graph_is_never_tried_again() -> None:
    done, found = play(Faults(node_error=Which(every=1), error_type="ValueError"), default(90.0), 1.0)
    assert done[0].outcome == "failed" and not done[0].attempts and found.posts() == 1


def test_a_refused_graph_is_never_sent_again() -> None:
    async def script(found: Scene) -> Execution:
        prompt = ask(1.0)
        broken = prompt.graph().replace(b'"width": 8', b'"width": "wide"')
        return await found.client.run(structs.replace(prompt, graph_of=lambda _: broken))

    done, found = scene([Server()], default(90.0), script)
    assert done.failure.kind == "validation" and found.servers[0].calls["POST /prompt"] == 1


def test_what_somebody_else_stopped_stays_stopped() -> None:
    async def script(found: Scene) -> Execution:
        running = asyncio.create_task(found.client.run(ask(5.0)))
        await asyncio.sleep(1.0)
        await found.transports[0].call(Request(method="POST", path="interrupt", body=b"{}"))
        return await running

    done, found = scene([Server()], default(90.0), script)
    assert done.failure.kind == "interrupted" and found.posts() == 1


def test_the_budget_ends_retries_that_cost_gpu_time() -> None:
    faults = Faults(node_error=Which(at=(1, 3)))
    policy = Policy(budget=Budget(ratio=0.0, cap=1.0), classes={"transient": Rule(retry=True, delay="none")})
    done, found = play(faults, policy, 1.0, 1.0, gap_s=5.0)
    assert [e.outcome for e in done] == ["completed", "failed"] and found.posts() == 3
    done, _ = play(faults, structs.replace(policy, budget=Budget(ratio=1.0, cap=1.0)), 1.0, 1.0, gap_s=5.0)
    assert [e.outcome for e in done] == ["completed"] * 2, "each new job puts one in"


def test_the_retry_says_of_which_job_it_is_one() -> None:
    seen: list[bytes] = []

    async def script(found: Scene) -> Execution:
        async def look(request: Request) -> None:
            if request.path == "prompt" and request.body:
                seen.append(request.body)

        found.transports[0].before_call = look
        return await found.client.run(ask(1.0, prompt_id="00000000-0000-4000-8000-00000000000a"))

    done, _ = scene([Server(faults=Faults(node_error=ONCE))], default(90.0), script)
    assert done.outcome == "completed" and b"extra_data" not in seen[0]
    assert b'"comfyload": {"attempt": 2, "retry_of": "00000000-0000-4000-8000-00000000000a"}' in seen[1]


def test_the_deadline_counts_from_the_ask_over_all_attempts() -> None:
    slow = Faults(node_error=ONCE)
    done, found = play(slow, Policy(deadline_s=8.0), 6.0, 6.0)
    assert [e.outcome for e in done] == ["timed_out", "completed"]
    assert done[0].done == pytest.approx(8.0, abs=0.1) and done[0].failure and done[0].failure.kind == "timeout"
    assert found.left == [[]] and len(found.executed()) == 1


@pytest.mark.parametrize("mute", ["prompt", "api/jobs", "queue", ""])
def test_no_silence_of_a_server_holds_a_job_beyond_its_deadline(mute: str) -> None:
    async def script(found: Scene) -> tuple[Execution, float]:
        async def hush(request: Request) -> None:
            if mute in request.path:
                await asyncio.sleep(1e5)

        found.transports[0].before_call = hush
        execution = await found.client.run(ask(100.0))
        ended = found.now()
        found.transports[0].before_call = None
        return execution, ended

    (done, ended), found = scene([Server()], Policy(deadline_s=20.0), script)
    assert done.outcome in ("timed_out", "failed") and ended <= 27.0, (done, ended)
    assert found.left == [[]]


def test_a_place_is_waited_for_and_a_job_that_would_be_late_is_shed() -> None:
    done, found = play(None, Policy(deadline_s=20.0, admission=Admission(depth=2)), *[5.0] * 8)
    assert [e.outcome for e in done] == ["completed"] * 3 + ["failed"] * 5
    assert {e.failure.kind for e in done if e.failure} == {"shed"} and found.posts() == 3
    assert all(e.done == pytest.approx(15.0, abs=0.2) for e in done[3:]), "as soon as it is known, not at the deadline"


def test_others_jobs_count_for_the_depth() -> None:
    async def script(found: Scene) -> list[Execution]:
        graph: Any = json.loads(ask(3.0).graph())
        for seed in range(4):
            graph["10"]["inputs"]["seed"] = seed
            found.servers[0].foreign(graph)
        began = found.now()
        done = await found.run(1.0)
        assert found.now() - began > 3.0
        assert done[0].sent is not None and 6.0 <= done[0].sent <= 8.5, "two of four were done by then"
        return done

    done, _ = scene([Server()], Policy(admission=Admission(depth=2)), script)
    assert done[0].outcome == "completed"


def test_an_estimate_longer_than_the_deadline_does_not_shed_everything_for_good() -> None:
    done, found = play(None, Policy(deadline_s=10.0), 9.9, 1.0, 1.0, gap_s=20.0)
    assert [e.outcome for e in done] == ["completed"] * 3 and found.posts() == 3


def test_a_hung_job_is_given_up_and_said_so() -> None:
    done, found = play(Faults(hang=ONCE, hang_s=300.0), Policy(liveness_s=30.0, deadline_s=3600.0), 1.0, 1.0)
    assert kinds(done[0]) == ["hung", None] and [e.outcome for e in done] == ["completed"] * 2
    assert found.left == [[]]


def test_a_long_job_that_shows_progress_is_not_hung() -> None:
    done, _ = play(None, Policy(liveness_s=30.0), 20.0, 20.0, 20.0)
    assert [e.outcome for e in done] == ["completed"] * 3


@pytest.mark.parametrize("open_s", [5.0, 0.0])
def test_a_server_that_never_comes_back_is_given_up(open_s: float) -> None:
    policy = Policy(breaker=Breaker(open_s=open_s))
    done, _ = play(Faults(restart_at_s=0.05, downtime_s=1e6), policy, 1.0, 1.0, gap_s=1.0)
    assert [e.outcome for e in done] == ["lost", "failed"] and kinds(done[1])[-1] == "connect"
    assert all(e.done is not None and 110.0 < e.done < 140.0 for e in done)


def test_a_server_that_is_back_after_a_long_time_is_tried_again() -> None:
    """Whoever asked while it was away has gone: nobody has tried it since, and it has worked all the while."""

    async def script(found: Scene) -> list[Execution]:
        await found.run(1.0)
        found.servers[0].restart(60.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(found.client.run(ask(1.0, 1)), 30.0)
        await asyncio.sleep(600.0)
        return await found.run(1.0, 1.0)

    done, _ = scene([Server()], default(), script)
    assert [e.outcome for e in done] == ["completed"] * 2


def test_a_job_that_cannot_be_built_takes_no_place() -> None:
    async def script(found: Scene) -> list[Execution]:
        with pytest.raises(ZeroDivisionError):
            await found.client.run(structs.replace(ask(1.0), graph_of=lambda _: b"%d" % (1 // 0)))
        return await found.run(1.0)

    done, found = scene([Server()], Policy(admission=Admission(depth=0)), script)
    assert done[0].outcome == "completed" and not found.client._pool.backends[0].held


def test_retry_after_holds_though_a_job_completes_meanwhile() -> None:
    posts: list[float] = []

    async def script(found: Scene) -> list[Execution]:
        real = found.transports[0].call

        async def call(request: Request) -> Reply:
            if request.path == "prompt" and request.method == "POST":
                posts.append(found.now())
                if len(posts) == 2:
                    return Reply(status=429, body=b"busy", headers={"retry-after": "30"})
            return await real(request)

        found.transports[0].call = call  # type: ignore[method-assign]
        return await found.run(3.0, 1.0, 1.0, gap_s=2.0)

    done, _ = scene([Server()], default(90.0), script)
    assert [e.outcome for e in done] == ["completed"] * 3
    assert len(posts) == 4 and all(at >= 32.0 for at in posts[2:])


def test_retry_after_keeps_everybody_away() -> None:
    posts: list[float] = []

    async def script(found: Scene) -> list[Execution]:
        real = Direct.call

        async def call(self: Direct, request: Request) -> Reply:
            if request.path == "prompt" and request.method == "POST":
                posts.append(found.now())
                if len(posts) == 1:
                    return Reply(status=503, body=b"busy", headers={"retry-after": "12"})
            return await real(self, request)

        patch.setattr(Direct, "call", call)
        return await found.run(1.0, 1.0, gap_s=5.0)

    with pytest.MonkeyPatch.context() as patch:
        done, _ = scene([Server()], default(90.0), script)
    assert [e.outcome for e in done] == ["completed"] * 2
    assert len(posts) == 3 and all(12.0 <= at <= 20.0 for at in posts[1:])


def test_a_reply_that_is_lost_while_nothing_can_be_asked_is_cleared_up_later() -> None:
    """The POST arrives, its reply does not, and the server answers nothing for a minute: it runs once all the same."""

    async def script(found: Scene) -> Execution:
        async def cut(request: Request) -> None:
            if 1.0 < found.now() < 61.0 and request.method != "POST":
                raise TransportError("reset", sent=True)

        found.transports[0].before_call = cut
        await asyncio.sleep(2.0)
        return await found.client.run(ask(1.0))

    policy = Policy(submit_s=10.0, deadline_s=200.0)
    done, found = scene([Server(faults=Faults(drop_reply=ONCE))], policy, script)
    assert done.outcome == "completed" and found.posts() == 1 and len(found.executed()) == 1


def test_a_cancelled_run_takes_its_job_off_the_server() -> None:
    async def script(found: Scene) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(found.client.run(ask(100.0)), 5.0)
        done = await found.run(1.0)
        assert done[0].outcome == "completed" and found.now() < 15.0

    _, found = scene([Server()], default(), script)
    assert found.left == [[]]


def test_abandoning_ends_what_runs_and_what_waits_for_a_place() -> None:
    async def script(found: Scene) -> list[Execution]:
        running = asyncio.create_task(found.run(50.0, 50.0, 50.0))
        await asyncio.sleep(5.0)
        await found.client.cancel_all("censored")
        done = await running
        assert found.now() < 12.0
        return [*done, await found.client.run(ask(1.0))]

    done, found = scene([Server()], Policy(admission=Admission(depth=0)), script)
    assert [(e.outcome, e.failure.kind) for e in done] == [("cancelled", "censored")] * 4
    assert found.left == [[]] and found.posts() == 1


def test_a_server_that_gives_its_own_ids_is_not_sent_twice_what_it_may_have() -> None:
    async def script(found: Scene) -> list[Execution]:
        return await found.run(1.0)

    done, found = scene([Server(version="0.3.30", faults=Faults(drop_reply=ONCE))], Policy(deadline_s=60.0), script)
    assert done[0].outcome == "failed" and found.posts() == 1


@pytest.mark.parametrize("policy", [Policy(cancel=False), Policy(lookup=False)])
def test_a_policy_for_simulations_is_refused(policy: Policy) -> None:
    with pytest.raises(UsageError):
        play(None, policy, 1.0)


def test_backoff_is_waited_and_told() -> None:
    policy = Policy(backoff=Backoff(base_s=3.0, jitter="none"), classes={"connect": RULES["connect"]})
    done, _ = play(Faults(refuse=Which(at=(5, 6))), policy, 1.0)
    assert [round(a.waited_s) for a in done[0].attempts][:2] == [0, 3]


def test_jobs_that_a_restart_took_keep_none_after_them_from_being_looked_at() -> None:
    """Their ends are seen before the next restart forgets them, though no event of them comes."""

    async def script(found: Scene) -> list[Execution]:
        server = found.servers[0]

        async def cut() -> None:
            while True:
                server.drop_sockets()
                await asyncio.sleep(0.02)

        taken = [asyncio.create_task(found.client.run(ask(60.0, n))) for n in range(40)]
        await asyncio.sleep(1.0)
        server.restart()
        cutting = asyncio.create_task(cut())
        later = [asyncio.create_task(found.client.run(ask(0.1, 100 + n))) for n in range(3)]
        await asyncio.sleep(5.5)
        server.restart()
        cutting.cancel()
        done = list(await asyncio.gather(*later))
        await found.client.cancel_all()
        await asyncio.gather(*taken)
        return done

    done, _ = scene([Server()], Policy(breaker=Breaker(failures=1000)), script)
    assert [len(execution.attempts) for execution in done] == [0, 0, 0]


def test_a_server_out_of_reach_is_not_sent_what_it_lost() -> None:
    done, _ = play(Faults(restart_at_s=0.5, downtime_s=1e6), Policy(), 1.0)
    assert kinds(done[0]) in ([], ["lost"]) and done[0].outcome == "lost"


def test_what_was_left_on_a_server_is_taken_off_once_it_answers() -> None:
    async def script(found: Scene) -> int:
        async def hush(_: Request) -> None:
            if found.now() > 1.0:
                await asyncio.sleep(1e5)

        found.transports[0].before_call = hush
        done = (await found.run(500.0))[0]
        assert done.outcome == "timed_out" and done.server_state_after == "unknown"
        await asyncio.sleep(200.0)
        assert found.servers[0]._state.queue.remaining == 1
        found.transports[0].before_call = None
        await asyncio.sleep(30.0)
        return found.servers[0]._state.queue.remaining

    remaining, _ = scene([Server()], Policy(deadline_s=20.0), script)
    assert remaining == 0


LATER = Policy(
    backoff=Backoff(base_s=600.0, cap_s=600.0, jitter="none"),
    breaker=Breaker(failures=100),
    classes={"oom": Rule(retry=True, attempts=9)},
)


@pytest.mark.parametrize("what", ["hurry", "give_up"])
def test_a_wait_between_attempts_can_be_ended(what: str) -> None:
    """`hurry` ends this wait and no later one; `give_up` all of them."""

    async def script(found: Scene) -> tuple[Execution, float, list[bool]]:
        prompt = ask(1.0)
        running = asyncio.create_task(found.client.run(prompt))
        act = getattr(found.client, what)
        done = [act(prompt.id)]
        await asyncio.sleep(30.0)
        done.append(act(prompt.id))
        execution = await running
        return execution, found.now(), [*done, act(prompt.id)]

    (done, took_s, acted), found = scene([Server(faults=Faults(oom=Which(at=(1, 2))))], LATER, script)
    assert acted == [False, True, False], "before it failed, and after its end, there is nothing to do"
    assert done.failure is None or done.failure.kind == "oom"
    if what == "give_up":
        assert (done.outcome, found.posts()) == ("failed", 1) and took_s < 60.0
    else:
        assert (done.outcome, found.posts()) == ("completed", 3) and 600.0 < took_s < 700.0
    assert found.left == [[]]


def test_a_job_that_waits_for_a_server_can_be_given_up() -> None:
    async def script(found: Scene) -> Execution:
        prompt = ask(1.0)
        running = asyncio.create_task(found.client.run(prompt))
        await asyncio.sleep(5.0)
        found.client.drain("http://s0/")
        assert found.client.hurry(prompt.id)
        await asyncio.sleep(5.0)
        assert not running.done() and found.client.give_up(prompt.id)
        return await running

    done, found = scene([Server(faults=Faults(oom=ONCE))], LATER, script)
    assert done.outcome == "failed" and done.failure.kind == "oom" and found.posts() == 1 and found.left == [[]]
