"""The engine on virtual time against a client that only sleeps: due times, places, users, books, stopping."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from comfyload import clock
from comfyload.load import Engine, Stop
from comfyload.record.model import Attempt, Execution, Line, Prompt, Record, Sent
from comfyload.record.plan import Closed, Load, Open, Plan, Replay, Stage


class Serial:
    """One job at a time, each of `seconds`, first come first served."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.free_at = self.ended = 0.0
        self.most = self.now = 0

    async def run(self, prompt: Prompt) -> Execution:
        self.now += 1
        self.most = max(self.most, self.now)
        loop = asyncio.get_running_loop()
        sent = loop.time()
        self.free_at = max(self.free_at, sent) + self.seconds
        await asyncio.sleep(self.free_at - sent)
        self.now -= 1
        return Execution(outcome="completed", sent=sent, done=loop.time())


def drive(
    load: Load,
    seconds: float = 0.2,
    script: Any = None,
    done: frozenset[int] | None = None,
    spent_s: float = 0.0,
    admits: Callable[[int], bool] = lambda _: True,
    **rules: Any,
) -> tuple[list[Record], Serial]:
    lines: list[Line] = []
    client = Serial(seconds)

    async def main() -> None:
        watch, stop = clock.stopwatch(), Stop(admits)
        engine = Engine(
            Plan(load=load, **rules),
            lambda i: Prompt(id=str(i), index=i, workflow="w", warmup=False, graph_of=lambda _: b""),
            client,
            lines.append,
            clock=watch,
            rng=Random(3),
            stop=stop,
            done=done,
            spent_s=spent_s,
        )
        beside = asyncio.ensure_future(script(stop)) if script else None
        await engine.run()
        client.ended = watch()
        if beside:
            await beside

    clock.run_virtual(main())
    records = sorted((line for line in lines if isinstance(line, Record)), key=lambda record: record.index)
    sent = [line.index for line in lines if isinstance(line, Sent)]
    assert sorted(sent) == [record.index for record in records if record.execution.outcome != "dropped"]
    return records, client


def latencies(records: list[Record]) -> list[float]:
    return sorted((r.execution.done or 0) - r.due for r in records if r.execution.outcome == "completed")


ten = Open(stages=[Stage(per_s=10)], arrivals="constant")


def test_offered_twice_what_it_can_half_is_dropped_where_there_are_four_places() -> None:
    load = Open(stages=ten.stages, arrivals="constant", max_in_flight=4, on_full="drop")
    records, client = drive(load, duration_s=15)
    ends = Counter(record.execution.outcome for record in records)
    assert len(records) == 150
    assert ends["dropped"] == pytest.approx(75, abs=4)
    assert client.most == 4


@pytest.mark.parametrize("places", [None, 4])
def test_waiting_is_in_the_latency_whether_it_is_ours_or_the_servers(places: int | None) -> None:
    load = Open(stages=ten.stages, arrivals="constant", max_in_flight=places)
    records, client = drive(load, duration_s=15)
    assert latencies(records)[int(0.99 * 150)] == pytest.approx(15, abs=0.3)
    assert client.most == places or places is None


def test_due_times_are_the_schedules_however_late_the_server_is() -> None:
    records, _ = drive(ten, seconds=3.0, jobs=20)
    assert [record.due for record in records] == pytest.approx([0.1 * n for n in range(20)])


def test_a_closed_loop_never_has_more_in_flight_than_users() -> None:
    records, client = drive(Closed(concurrency=3), jobs=20)
    assert client.most == 3
    assert records[-1].execution.done == pytest.approx(4.0)


def test_users_think_between_jobs_and_start_one_after_the_other() -> None:
    records, _ = drive(Closed(concurrency=2, think_s=1.0, ramp_up_s=4.0), jobs=6)
    assert [record.due for record in records] == pytest.approx([0, 1.2, 2.0, 2.4, 3.2, 3.6])


def test_a_duration_ends_a_closed_load() -> None:
    records, _ = drive(Closed(concurrency=1), duration_s=1.0)
    assert len(records) == 5


def test_a_replay_sends_when_it_was_sent() -> None:
    records, _ = drive(Replay(offsets_s=[0, 0.5, 0.6, 3]))
    assert [record.due for record in records] == pytest.approx([0, 0.5, 0.6, 3])


def test_the_pages_of_a_book_are_due_together_and_belong_to_it() -> None:
    records, _ = drive(Open(stages=[Stage(per_s=1)], arrivals="constant"), jobs=3, pages=4)
    assert [record.book for record in records] == [n // 4 for n in range(12)]
    assert [record.due for record in records] == pytest.approx([float(n // 4) for n in range(12)])


def test_warm_up_comes_first_and_the_schedule_starts_after_it() -> None:
    records, _ = drive(ten, jobs=3, warmup=2)
    assert [record.due for record in records] == pytest.approx([0, 0.2, 0.4, 0.5, 0.6])


def test_stopping_sends_no_more_and_lets_what_is_under_way_end() -> None:
    async def script(stop: Stop) -> None:
        await asyncio.sleep(1.05)
        stop.request()

    records, _ = drive(Open(stages=ten.stages, arrivals="constant", max_in_flight=2), script=script, duration_s=100)
    ends = Counter(record.execution.outcome for record in records)
    assert len(records) == 11
    assert ends["completed"] + ends["dropped"] == 11
    assert ends["dropped"] >= 3


def test_stopping_ends_a_pause_at_once() -> None:
    async def script(stop: Stop) -> None:
        await asyncio.sleep(0.5)
        stop.request()

    began = drive(Closed(concurrency=1, think_s=1000.0), script=script, jobs=5)
    assert len(began[0]) == 1
    assert len(drive(Open(stages=[Stage(per_s=0.001)], arrivals="constant"), script=script, jobs=5)[0]) == 1


def test_a_schedule_taken_up_again_keeps_the_gaps_that_are_left() -> None:
    load = Replay(offsets_s=[0, 1, 5, 6, 9])
    records, _ = drive(load, done=frozenset({0, 1, 3}))
    assert [record.index for record in records] == [2, 4]
    assert [record.due for record in records] == pytest.approx([0, 4])


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_an_open_load_taken_up_again_lasts_for_what_is_left_of_its_duration(arrivals: Any) -> None:
    load = Open(stages=[Stage(per_s=1.0)], arrivals=arrivals)
    whole, _ = drive(load, duration_s=100.0)
    done = frozenset(record.index for record in whole if record.due < 60.0)
    rest, client = drive(load, duration_s=100.0, done=done)
    assert sorted([*done, *(record.index for record in rest)]) == list(range(len(whole)))
    assert client.ended == pytest.approx(100.0 - min(record.due for record in whole if record.due >= 60.0), abs=0.2)
    assert drive(load, duration_s=100.0, done=frozenset(range(len(whole))))[0] == []


def test_a_closed_load_taken_up_again_lasts_for_what_is_left_of_its_duration() -> None:
    whole, _ = drive(Closed(concurrency=2), duration_s=20.0)
    rest, client = drive(Closed(concurrency=2), duration_s=20.0, done=frozenset(range(10)), spent_s=15.0)
    assert client.ended == pytest.approx(5.0, abs=1.0) and 3.0 < len(whole) / len(rest) < 5.0
    assert min(record.index for record in rest) == 10
    assert drive(Closed(concurrency=2), duration_s=20.0, done=frozenset(range(10)), spent_s=21.0)[0] == []


class TakenUp:
    """Looks a job up for two seconds before it sends it; of `theirs` an earlier process sent what is followed."""

    def __init__(self, theirs: frozenset[int], again: frozenset[int] = frozenset()) -> None:
        self.theirs, self.again = theirs, again

    async def run(self, prompt: Prompt) -> Execution:
        loop = asyncio.get_running_loop()
        if prompt.index in self.theirs:
            await asyncio.sleep(1.0)
            return Execution(outcome="completed", done=loop.time())
        await asyncio.sleep(2.0 + prompt.index)
        sent = loop.time()
        attempts = []
        if prompt.index in self.again:
            attempts = [Attempt(server="s", prompt_id=str(n), outcome="lost", sent=sent + 5 * n) for n in range(2)]
            sent += 5.0
        await asyncio.sleep(0.5)
        return Execution(outcome="completed", sent=sent, done=loop.time(), attempts=attempts)


def test_a_job_that_only_the_resumed_run_sends_is_due_when_it_is_sent() -> None:
    lines: list[Line] = []

    async def main() -> None:
        watch = clock.stopwatch()
        engine = Engine(
            Plan(load=Closed(concurrency=2), jobs=4),
            lambda i: Prompt(id=str(i), index=i, workflow="w", warmup=False, graph_of=lambda _: b""),
            TakenUp(frozenset({0}), again=frozenset({2})),
            lines.append,
            clock=lambda: 100.0 + watch(),
            rng=Random(3),
            stop=Stop(),
            done=frozenset(range(4)),
        )
        await engine.finish([Sent(index=i, prompt_id=str(i), due=40.0 + i) for i in range(3)])

    clock.run_virtual(main())
    due = {record.index: record.due for record in lines if isinstance(record, Record)}
    late = {r.index: r.execution.sent - r.due for r in lines if isinstance(r, Record) and r.execution.sent is not None}
    assert due[0] == 40.0  # an earlier process sent it: its latency counts from when it was due
    assert late[1] == 0.0 and due[1] == 3.0
    assert due[2] == 4.0 and late[2] == 5.0  # what a retry took is in its latency
