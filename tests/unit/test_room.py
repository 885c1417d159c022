"""Jobs are held back while the server's queue is as long as it may be, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from comfyload.comfy.client import ComfyClient
from comfyload.comfy.room import STOPPED, Room
from comfyload.load import Stop
from comfyload.record.model import Execution, Failure
from comfyload.record.plan import Closed, Open, Plan, Stage
from comfyload.retry.attempt_log import AttemptLog
from comfyload.sim import Server
from tests.support.rig import Played, play, sleeper


def _others(server: Server, *seconds: float) -> None:
    for seed, length in enumerate(seconds, 1000):
        graph = sleeper(length)
        graph["2"]["inputs"]["seed"] = seed  # else the cache serves all but the first
        server.foreign(graph)


def _of(played: Played) -> list[Execution]:
    return [record.execution for record in sorted(played.records, key=lambda record: record.index)]


def test_of_our_own_prompts_too_no_more_than_allowed_are_in_the_queue() -> None:
    played, server = play(jobs=9, concurrency=6, room=lambda _: Room(2))
    assert played.outcomes() == ["completed"] * 9
    assert max(played.queue) == 2
    held = [execution.held_s for execution in _of(played)]
    assert held[0] == 0.0 and sum(one > 0 for one in held) >= 6
    assert len(server.truth) == 9


def test_a_job_waits_for_others_and_what_it_waited_is_known() -> None:
    played, _ = play(
        before=lambda server: _others(server, 5.0, 5.0, 5.0), jobs=1, timeout_s=8.0, room=lambda _: Room(2)
    )
    (record,) = played.records
    run = record.execution
    assert run.outcome == "completed", "the time for which it was held back is none of its timeout"
    assert run.sent is not None and run.done is not None
    assert 10.0 <= run.sent - record.due <= 11.0
    assert run.held_s == run.sent - record.due


def test_without_others_nothing_is_held_back() -> None:
    played, _ = play(jobs=5, room=lambda _: Room(1))
    assert [execution.held_s for execution in _of(played)] == [0.0] * 5


def test_the_queue_is_asked_for_although_no_event_tells_of_it() -> None:
    async def drops(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        server.drop_sockets()

    played, _ = play(before=lambda server: _others(server, 5.0, 5.0), script=drops, jobs=1, room=lambda _: Room(2))
    assert played.outcomes() == ["completed"]
    assert 5.0 <= _of(played)[0].held_s <= 6.5


def test_an_open_load_can_drop_what_finds_no_room() -> None:
    load = Open(stages=[Stage(per_s=1.0)], arrivals="constant", on_full="drop")
    played, server = play(
        before=lambda server: _others(server, 2.5), jobs=6, load=load, room=lambda _: Room(1, drops=True)
    )
    assert played.outcomes() == ["dropped"] * 3 + ["completed"] * 3
    failure = _of(played)[0].failure
    assert failure is not None and failure.message == "the server's queue held 1 prompts when it was due"
    assert sum(server.posts.values()) == 4, "theirs too"


def test_what_is_held_back_when_the_run_is_stopped_is_not_sent() -> None:
    async def stops(_server: Server, _client: ComfyClient, stop: Stop) -> None:
        await asyncio.sleep(3.0)
        stop.request()

    played, server = play(
        before=lambda server: _others(server, 60.0),
        script=stops,
        jobs=9,
        concurrency=3,
        room=lambda stop: Room(1, stopped=lambda: stop.requested),
    )
    assert played.outcomes() == ["dropped"] * 3
    assert {execution.failure.message for execution in _of(played) if execution.failure} == {STOPPED}
    assert sum(server.posts.values()) == 1, "theirs"


def test_what_is_held_back_when_all_is_cancelled_is_not_sent() -> None:
    async def cancels(_server: Server, client: ComfyClient, stop: Stop) -> None:
        await asyncio.sleep(3.0)
        stop.request()
        await client.cancel_all()

    played, server = play(before=lambda server: _others(server, 60.0), script=cancels, jobs=2, room=lambda _: Room(1))
    assert played.outcomes() == ["cancelled"]
    assert sum(server.posts.values()) == 1, "theirs"


def test_that_jobs_are_held_back_is_told_with_the_length() -> None:
    lengths: list[int] = []
    play(before=lambda server: _others(server, 1.0, 1.0), jobs=1, room=lambda _: Room(1, on_full=lengths.append))
    assert lengths == [2]


def test_of_several_attempts_all_waits_count_and_one_never_sent_is_none() -> None:
    story = AttemptLog("a", 0.0, listed=False)
    failed: dict[str, Any] = {"outcome": "failed", "failure": Failure(kind="oom"), "sent": 3.0, "done": 4.0}
    story.add("s", "a", Execution(**failed, held_s=3.0), 0.0, 4.0)
    unsent = Execution(outcome="dropped", failure=Failure(kind="dropped", message=STOPPED), held_s=2.0)
    story.add("s", "b", unsent, 4.0, 6.0)
    closed = story.close(unsent)
    assert (closed.outcome, closed.failure, closed.held_s) == ("failed", Failure(kind="oom"), 5.0)
    assert len(closed.attempts) <= 1


def test_a_closed_load_has_no_place_to_wait_for_but_room() -> None:
    assert not Plan(load=Closed(concurrency=4)).waits
    assert Plan(load=Closed(), max_server_queue=2).waits
    rate = Open(stages=[Stage(per_s=1.0)])
    assert not Plan(load=rate).waits
    assert Plan(load=rate, max_server_queue=2).waits
