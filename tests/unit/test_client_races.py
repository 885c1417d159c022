"""Races between us and a server, on virtual time: what may be there is never taken for gone, nor sent twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from yarl import URL

from comfyload import clock
from comfyload.comfy.api import api_of
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.incoming import Broken
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.socket import NotConnected
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.tracker import PromptTracker
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.load import Stop
from comfyload.record.model import Execution
from comfyload.record.model import Server as ServerFacts
from comfyload.record.policy import Breaker, Policy
from comfyload.retry.attempt_log import later_ids
from comfyload.retry.pool import ServerBackend
from comfyload.sim import Faults, Server, Which
from tests.support.direct import Direct
from tests.support.rig import play, play_on, sleeper
from tests.unit.retrying import Scene, ask, scene


def test_a_prompt_that_begins_while_it_is_taken_back_goes_on() -> None:
    """It waits when it is looked up, and runs when the order to delete it arrives, which then does nothing."""
    taken_back: list[bool] = []

    async def script(server: Server, client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.5)
        waiting = next(job for job in client.inflight if job.tracker.started is None)
        call = server.call

        async def late(request: Request) -> Reply:
            if request.method == "POST" and request.path == "queue":
                while waiting.tracker.started is None:
                    await asyncio.sleep(0.01)
            return await call(request)

        server.call = late  # type: ignore[method-assign]
        taken_back.append(await client.recall(waiting.prompt_id))

    played, server = play(jobs=2, concurrency=2, graph=sleeper(1.0), script=script)
    assert taken_back == [False]
    assert played.outcomes() == ["completed"] * 2
    assert [truth.outcome for truth in server.truth] == ["completed"] * 2


def test_a_prompt_that_is_taken_back_never_runs() -> None:
    taken_back: list[bool] = []

    async def script(_server: Server, client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.5)
        waiting = next(job for job in client.inflight if job.tracker.started is None)
        taken_back.append(await client.recall(waiting.prompt_id))

    played, server = play(jobs=2, concurrency=2, graph=sleeper(1.0), script=script)
    assert taken_back == [True]
    assert sorted(played.outcomes()) == ["cancelled", "completed"] and len(server.truth) == 1


class Moving:
    """A server without `/api/jobs` on which the prompt ends right after the first question."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def call(self, request: Request) -> Reply:
        self.paths.append(request.path)
        in_queue = len(self.paths) == 1
        if request.path == "queue":
            running = [[0, "p", {}, {}, []]] if in_queue else []
            body: dict[str, Any] = {"queue_running": running, "queue_pending": []}
        else:
            messages = [["execution_success", {"prompt_id": "p", "timestamp": 1}]]
            entry = {"prompt": [0, "p", {}, {}, []], "outputs": {}, "status": {"messages": messages}}
            body = {} if in_queue else {"p": entry}
        return Reply(status=200, body=json.dumps(body).encode())


def test_a_prompt_that_ends_between_two_questions_is_not_taken_for_absent() -> None:
    transport: Any = Moving()
    api = api_of(transport, ServerFacts(url="http://s/", jobs_api=False))
    assert asyncio.run(api.prompt_state("p")) == "running"
    assert asyncio.run(api.prompt_state("p")) == "finished"
    assert transport.paths == ["queue", "queue", "history/p"]


def test_a_prompt_posted_without_a_reply_that_cannot_be_looked_up_may_be_on_the_server() -> None:
    def before(server: Server) -> None:
        call, posted = server.call, [False]

        async def mute(request: Request) -> Reply:
            posted[0] = posted[0] or request.method == "POST"
            if posted[0] and request.path.startswith(("prompt", "api/jobs/")):
                raise TransportError("reset", sent=True)
            return await call(request)

        server.call = mute  # type: ignore[method-assign]

    played, _ = play(jobs=1, before=before, timeouts=Timeouts(submit_s=5.0))
    (record,) = played.records
    assert record.execution.failure is not None and record.execution.failure.kind == "submit_unknown"
    assert record.execution.server_state_after == "unknown"


def test_a_refused_prompt_leaves_nothing_on_the_server() -> None:
    graph = sleeper(0.1)
    graph["2"]["class_type"] = "NoSuchNode"
    played, _ = play(jobs=1, graph=graph)
    assert played.records[0].execution.server_state_after is None


def test_a_job_found_again_was_sent_when_it_was_sent_first() -> None:
    async def script(found: Scene) -> Execution:
        async def cut(request: Request) -> None:
            if 1.0 < found.now() < 61.0 and request.method != "POST":
                raise TransportError("reset", sent=True)

        found.transports[0].before_call = cut
        await asyncio.sleep(2.0)
        return await found.client.run(ask(1.0))

    servers = [Server(faults=Faults(drop_reply=Which(at=(1,)), drop_socket=Which(at=(1,)), drop_socket_event=1))]
    done, found = scene(servers, Policy(submit_s=10.0, deadline_s=200.0), script)
    assert done.outcome == "completed" and found.posts() == 1
    assert done.sent == pytest.approx(2.0, abs=0.1)
    assert done.done is not None and done.done >= 60.0


def test_a_job_whose_result_was_out_of_reach_began_when_its_event_came() -> None:
    """Its events tell that it began and ended; the history that would tell its result answers much later."""

    async def script(found: Scene) -> Execution:
        async def cut(request: Request) -> None:
            if request.method == "GET" and 1.0 < found.now() < 200.0:
                raise TransportError("reset", sent=True)

        found.transports[0].before_call = cut
        return await found.client.run(ask(3.0))

    done, found = scene([Server()], Policy(deadline_s=1000.0), script)
    assert done.outcome == "completed" and found.posts() == 1
    assert done.started == pytest.approx(0.0, abs=0.2) and done.sent == pytest.approx(0.0, abs=0.2)


def test_of_a_job_that_ended_no_server_is_unsure_any_more() -> None:
    prompt = ask(1.0)

    async def script(found: Scene) -> list[set[str]]:
        await found.client.run(prompt)
        return [member.unconfirmed_ids for member in found.client._pool.backends]

    unsure, found = scene([Server(), Server()], Policy(), script, unconfirmed_ids=frozenset([prompt.id]))
    assert unsure == [set(), set()] and found.posts() == 1


class _Answering:
    """What `ServerBackend.look` needs of a client: the queue's length, and which of our jobs were accepted."""

    def __init__(self, queued: int | None, accepted: dict[str, bool]) -> None:
        self.api, self.inflight, self._queued = self, self, queued
        self._accepted = accepted

    async def queue_remaining(self) -> int | None:
        return self._queued

    def get(self, prompt_id: str) -> Any:
        return type("Job", (), {"accepted": self._accepted[prompt_id]})() if prompt_id in self._accepted else None


@pytest.mark.parametrize(
    ("queued", "others", "depth"),
    [
        (2, 0, 3),  # two of ours were accepted; the one under way is taken for there
        (5, 3, 6),
        (None, 0, 3),
    ],
)
def test_our_own_jobs_under_way_are_nobody_elses(queued: int | None, others: int, depth: int) -> None:
    member = ServerBackend(ServerFacts(url="http://s/"), Breaker(), lambda: 0.5)
    client: Any = _Answering(queued, {"a": True, "b": True, "c": False})
    member.client = client
    held: Any = {"a": None, "b": None, "c": None}
    member.held = held
    assert asyncio.run(member.look(1.0)) == (queued is not None)
    assert (member.others, member.depth) == (others, depth)


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (NotConnected(ConnectionRefusedError()), False),  # no connection: nothing can have been sent over it
        (TimeoutError(), True),
        (Broken("the server closed it"), True),
        (UnicodeError("x"), False),
    ],
)
def test_what_broke_says_whether_the_request_may_have_been_sent(error: Exception, sent: bool) -> None:
    async def main() -> bool:
        return Http(URL("http://server/"), {})._error(error).sent

    assert asyncio.run(main()) is sent


@pytest.mark.parametrize(("deadline_s", "outcome", "kind"), [(60.0, "timed_out", "timeout"), (None, "lost", "lost")])
def test_a_job_of_which_nothing_can_be_learnt_is_late_or_lost(
    deadline_s: float | None, outcome: str, kind: str
) -> None:
    async def script(found: Scene) -> Execution:
        async def cut(request: Request) -> None:
            if found.now() > 1.0 and request.method == "GET":
                raise TransportError("reset", sent=True)

        found.transports[0].before_call = cut
        await asyncio.sleep(2.0)
        found.servers[0].drop_sockets()
        return await found.client.run(ask(1.0))

    faults = Faults(drop_reply=Which(every=1), stall_events=Which(every=1), stalled_s=1e6)
    done, found = scene([Server(faults=faults)], Policy(submit_s=10.0, deadline_s=deadline_s), script)
    assert (done.outcome, done.failure and done.failure.kind) == (outcome, kind)
    assert found.posts() == 1


def test_of_several_servers_even_one_attempt_is_told() -> None:
    async def script(found: Scene) -> Execution:
        return await found.client.run(ask(1.0))

    for servers, attempts in ((1, 0), (2, 1), (3, 1)):
        done, _ = scene([Server() for _ in range(servers)], Policy(), script)
        assert len(done.attempts) == attempts


def test_an_old_server_gets_a_job_again_that_it_ran_and_failed() -> None:
    """It gives ids of its own: what it certainly ran can be sent again, what it may have cannot."""

    async def script(found: Scene) -> Execution:
        return await found.client.run(ask(1.0))

    old = Server(version="0.3.30", faults=Faults(node_error=Which(at=(1,))))
    done, found = scene([old], Policy(), script)
    assert done.outcome == "completed" and found.posts() == 2


def test_a_job_of_a_key_is_followed_under_the_last_id_that_is_known() -> None:
    prompt = ask(5.0)
    second = later_ids(prompt.id)[0]

    async def script(found: Scene) -> Execution:
        body = b'{"prompt":%b,"prompt_id":"%b"}' % (prompt.graph(), second.encode())
        await found.transports[0].call(Request(method="POST", path="prompt", body=body))
        return await found.client.run(prompt, keyed=True)

    done, found = scene([Server()], Policy(), script)
    assert done.outcome == "completed" and found.posts() == 1
    assert [attempt.prompt_id for attempt in done.attempts] == [second]


def test_a_server_that_does_not_say_whether_it_has_a_job_of_a_key_is_asked_again_before_it_gets_it() -> None:
    prompt = ask(5.0)

    async def script(found: Scene) -> Execution:
        async def hush(request: Request) -> None:
            if request.path.startswith("api/jobs") and found.now() < 4.0:
                await asyncio.sleep(1e5)

        body = b'{"prompt":%b,"prompt_id":"%b"}' % (prompt.graph(), prompt.id.encode())
        await found.transports[0].call(Request(method="POST", path="prompt", body=body))
        found.transports[0].before_call = hush
        return await found.client.run(prompt, keyed=True)

    done, found = scene([Server()], Policy(connect_s=1.0, deadline_s=60.0), script)
    assert done.outcome == "completed" and found.posts() == 1


def test_a_result_that_the_history_does_not_get_is_waited_for_as_long_as_is_usual_and_no_longer() -> None:
    played, _ = play(Faults(no_history_s=1e6), jobs=1)
    (record,) = played.records
    assert record.execution.outcome == "lost" and record.execution.server_state_after == "absent"
    assert record.execution.done is not None and 5.0 <= record.execution.done <= 6.5


def test_previews_are_counted_from_nothing() -> None:
    tracker = PromptTracker()
    assert (tracker.previews, tracker.preview_bytes) == (0, 0)
    tracker.on_preview(5)
    tracker.on_preview(7)
    done = tracker.execution("completed", done=1.0, end_source="events")
    assert (done.previews, done.preview_bytes, done.executions, done.held_s) == (2, 12, 0, 0.0)


def after_an_outage(
    timeouts: Timeouts, break_calls: Callable[[Direct, Server], None], outage_s: float | None = None
) -> tuple[Execution, list[str | None]]:
    """A job that is sent as soon as the server is back, before its event stream is; and what the server did with all.

    `outage_s` None: until a job before it is lost.
    """

    async def main() -> tuple[Execution, list[str | None]]:
        async with Server() as server:
            transport = Direct(server)
            facts = await identify(transport, "u", [])
            options = ClientOptions(timeouts=timeouts)
            async with ComfyClient.open(transport, facts, clock.stopwatch(), options) as client:
                if outage_s is None:
                    earlier = asyncio.create_task(client.run(ask(1e3)))
                    await asyncio.sleep(0.1)
                    server.restart(downtime_s=1e6)
                    assert (await earlier).outcome == "lost"
                    server.restart()
                else:
                    server.restart(outage_s)
                    await asyncio.sleep(outage_s + 0.01)
                assert not client.stream.connected
                break_calls(transport, server)
                return await client.run(ask(1.0, nodes=1)), [truth.outcome for truth in server.truth]

    return clock.run_virtual(main())


def no_history(transport: Direct, _server: Server) -> None:
    """Connections break that ask for the history."""

    async def before_call(request: Request) -> None:
        if request.path.startswith("history"):
            await asyncio.sleep(0.1)
            raise TransportError("the connection broke", sent=True)

    until = asyncio.get_running_loop().time() + 1.1

    async def for_a_while(request: Request) -> None:
        if asyncio.get_running_loop().time() < until:
            await before_call(request)

    transport.before_call = for_a_while


def no_history_and_no_reply(transport: Direct, server: Server) -> None:
    """Neither does a POST get its reply."""
    no_history(transport, server)
    call = server.call

    async def without_reply(request: Request) -> Reply:
        reply = await call(request)
        if request.method == "POST" and request.path == "prompt":
            raise TransportError("the connection broke", sent=True)
        return reply

    server.call = without_reply  # type: ignore[method-assign]


@pytest.mark.parametrize("break_calls", [lambda *_: None, no_history, no_history_and_no_reply])
def test_a_job_that_a_server_takes_as_soon_as_it_is_back_is_not_lost(
    break_calls: Callable[[Direct, Server], None],
) -> None:
    """The last attempt to open its event stream was refused; whatever it answers shows that it is back."""
    execution, truth = after_an_outage(Timeouts(refused_s=2.0), break_calls, 20.0)
    assert execution.outcome == "completed" and truth == ["completed"]


@pytest.mark.parametrize("timeouts", [Timeouts(unreachable_s=10.0), Timeouts(refused_s=10.0)])
def test_a_job_of_an_earlier_process_is_lost_with_its_server(timeouts: Timeouts) -> None:
    """It is looked up before it is sent, on a server that has gone for good."""

    async def main() -> tuple[Execution, float]:
        async with Server() as server:
            transport, prompt, now = Direct(server), ask(1.0), clock.stopwatch()
            facts = await identify(transport, "u", [])
            options = ClientOptions(timeouts=timeouts, unconfirmed_ids={prompt.id})
            async with ComfyClient.open(transport, facts, now, options) as client:
                server.restart(downtime_s=1e6)
                return await client.run(prompt), now()

    execution, took_s = clock.run_virtual(main())
    assert (execution.outcome, execution.server_state_after) == ("lost", "unknown")
    assert 10.0 <= took_s < 20.0


def slow(transport: Direct, _server: Server) -> None:
    async def before_call(request: Request) -> None:
        await asyncio.sleep(1.0)

    transport.before_call = before_call


def test_an_outage_by_which_jobs_were_lost_does_not_count_against_the_next() -> None:
    execution, truth = after_an_outage(Timeouts(unreachable_s=10.0), slow)
    assert (execution.outcome, truth[-1]) == ("completed", "completed")


@pytest.mark.parametrize("path", ["history", "api/jobs"])
def test_a_connection_that_hangs_does_not_hold_up_the_look_ups_of_all_jobs(path: str) -> None:
    """The event stream hangs too, so that nothing but the look-ups tells the ends."""

    async def main() -> list[str]:
        async with Server(faults=Faults(stall_events=Which(at=(1,)))) as server:
            calls = 0

            async def every_fifth_hangs(request: Request) -> None:
                nonlocal calls
                calls += request.path.startswith(path)
                if request.path.startswith(path) and calls % 5 == 2:
                    await asyncio.sleep(1e6)

            transport = Direct(server, before_call=every_fifth_hangs)
            played = await play_on(transport, graph=sleeper(1.0), jobs=12, concurrency=4, timeout_s=30.0)
            assert calls >= 2
            return played.outcomes()

    assert clock.run_virtual(main()) == ["completed"] * 12
