"""Stamps of a server that cannot be are in no number, wherever it is made, and are counted; those that can be stay."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from comfyload.advise.service_times import pools_of
from comfyload.comfy.tracker import PromptTracker
from comfyload.comfy.wire.history import decode_history
from comfyload.comfy.wire.messages import decode_message
from comfyload.judge.columns.fold import Fold
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Attempt, Execution, Failure, Record, ServerTimes, Span
from comfyload.record.policy import Policy
from comfyload.record.stamps import believed, node_spans
from comfyload.report.document import jobs
from comfyload.retry.pool import executed_s
from tests.unit.judge_runs import FACTS, job, manifest, one_by_one

AT = 1_700_000_000_000
ALL, NONE = ("create_ms", "start_ms", "end_ms"), ()


def ran(create: int | None, start: int | None, end: int | None, **changes: Any) -> Execution:
    """Sent at 10 s and done at 20 s of our clock."""
    times = ServerTimes(create_ms=create, start_ms=start, end_ms=end)
    return Execution(**{"outcome": "completed", "sent": 10.0, "done": 20.0, "server": times, **changes})


@pytest.mark.parametrize(
    ("create", "start", "end", "kept"),
    [
        (0, 5, 9_990, ALL),
        (0, 0, 0, ALL),
        (0, 5_000, 10_000, ALL),
        (0, 100, 10_200, ALL),  # its clock is 2 % faster at most, and as coarse as 20 ms
        (0, 100, 10_400, ("create_ms", "start_ms")),  # a step of some tenths of a second, by a short job's measure
        (0, 5, 11_790, ("create_ms", "start_ms")),  # set forward by 1.8 s while it executed
        (0, 1_805, 11_790, NONE),  # each fits, both together do not
        (-1_800_000, 5, 9_990, ("start_ms", "end_ms")),  # set forward while it waited
        (100, 5, 9_990, ("start_ms", "end_ms")),  # set back while it waited
        (0, 5, 4, ("create_ms", "start_ms")),  # set back while it executed
        (0, 20_000, 5, NONE),
        (None, 5, 9_990, ("start_ms", "end_ms")),
        (None, 5, 20_000, ("start_ms",)),
        (0, None, 20_000, NONE),
        (0, None, 9_000, ("create_ms", "end_ms")),
        (None, None, None, NONE),
    ],
)
def test_a_duration_is_at_most_what_passed_on_our_clock(
    create: int | None, start: int | None, end: int | None, kept: tuple[str, ...]
) -> None:
    run = ran(*(None if stamp is None else AT + stamp for stamp in (create, start, end)))
    found = believed(run)
    assert {name for name in ALL if getattr(found, name) is not None} == set(kept)
    assert all(getattr(found, name) in (None, getattr(run.server, name)) for name in ALL)


@pytest.mark.parametrize(
    "end",
    [10**18, 10**15, -5, 1_700_000_009, 1_700_000_009_000_000, 2**61],  # of s, µs and ns; of no clock at all
)
def test_what_is_no_time_in_milliseconds_is_not_believed(end: int) -> None:
    assert believed(ran(end - 2, end - 1, end)) == ServerTimes()


def test_a_job_of_an_earlier_process_is_measured_from_when_it_was_due() -> None:
    early = ran(AT, AT + 5, AT + 14_000, sent=None)
    assert believed(early, due=5.0).execution_ms == 13_995
    assert believed(early, due=8.0).execution_ms is None
    assert believed(early).execution_ms == 13_995  # nothing is known to speak against it


def test_a_job_that_we_gave_up_may_go_on_for_a_while() -> None:
    given_up = ran(AT, AT + 5, AT + 14_000, outcome="timed_out")
    assert believed(given_up).execution_ms == 13_995
    assert believed(ran(AT, AT + 5, AT + 10**9, outcome="timed_out")).execution_ms is None


def test_a_pause_of_the_server_after_a_job_is_not_the_time_of_its_last_node() -> None:
    """ComfyUI collects garbage after a job, and sends the message that its last node has ended after that."""
    spans = [Span("3", 11.0, 12.5), Span("9", 12.5, 14.7), Span("8", 12.5, None)]
    late = ran(AT, AT + 1_000, AT + 3_000, started=11.0, nodes=spans, done=14.7)
    assert node_spans(late) == [Span("3", 11.0, 12.5), Span("9", 12.5, 13.0), Span("8", 12.5, None)]
    assert node_spans(ran(AT, AT + 1_000, AT + 2_000, started=11.0, nodes=spans))[1] == Span("9", 12.5, 12.5)
    assert node_spans(ran(None, None, None, started=11.0, nodes=spans)) == spans
    assert node_spans(ran(AT, AT + 1_000, AT + 3_000, started=None, nodes=spans)) == spans
    record = Record(index=0, prompt_id="a", workflow="book", warmup=False, due=10.0, values={}, execution=late)
    (_, node) = measure("r", manifest(), [record]).summary.nodes
    assert node.node == "9" and node.avg_s.value == pytest.approx(0.5)


def _with(times: dict[int, tuple[int, int, int]]) -> Measured:
    records = one_by_one([2.0] * 12)
    for index, (create, start, end) in times.items():
        base = round(1000 * records[index].due) + AT
        server = ServerTimes(create_ms=base + create, start_ms=base + start, end_ms=base + end)
        records[index] = job(index, records[index].due, 2.0, server=server)
    return measure("r", manifest(), records)


def test_a_stamp_of_a_thousand_million_years_is_in_no_number() -> None:
    """10^15 s of execution, in a run that was called valid."""
    good, bad = _with({}), _with({4: (2, 5, 10**18), 7: (2, 3_605_000, 3_607_000)})
    for name in ("avg_execution_s", "p50_execution_s", "avg_queue_wait_s"):
        there, here = good.summary.statistics[name].value, bad.summary.statistics[name].value
        assert there is not None and here is not None and here == pytest.approx(there, abs=0.001)
    assert bad.summary.summary["max_execution_s"] == pytest.approx(1.997, abs=0.005)
    assert bad.summary.statistics["avg_execution_s"].n == 11  # only the wait of job 7 cannot be
    assert bad.summary.statistics["avg_queue_wait_s"].n == 10
    assert bad.jobs.overlaps() == 0
    (said,) = [finding for finding in bad.summary.findings if finding.code == "server_clock"]
    assert (said.level, said.evidence) == ("warning", {"count": 2, "of": 12, "jobs": [4, 7]})
    assert not [finding for finding in good.summary.findings if finding.code == "server_clock"]


def test_pools_tables_and_policies_see_the_same() -> None:
    bad = _with({4: (2, 5, 10**18)})
    assert max(float(pool.max()) for pool in pools_of([bad]).warm if len(pool)) < 2.1
    records = one_by_one([2.0] * 12)
    wrong = job(4, records[4].due, 2.0, server=ServerTimes(create_ms=AT, start_ms=AT + 5, end_ms=AT + 10**9))
    (row,) = jobs(manifest(), [wrong])
    assert row["execution_s"] is None and row["queue_wait_s"] == 0.005
    assert executed_s(structs.replace(wrong.execution, started=wrong.due + 0.5)) == pytest.approx(1.5)


def test_a_pause_over_a_step_of_the_clock_is_no_pause() -> None:
    """Jobs of 10 s wait in a queue; the server's clock is set forward by 1.8 s, 2 % of no one's wait, between two."""
    records = []
    for index in range(20):
        begin, set_by = AT + 10_000 * index, 1_800 if index > 14 else 0
        server = ServerTimes(create_ms=AT + index, start_ms=begin + 100 + set_by, end_ms=begin + 10_000 + set_by)
        records.append(job(index, 0.0, 10.0 * index + 10.0, server=server))
    found = measure("r", manifest(jobs=20, concurrency=20), records)
    assert not [finding for finding in found.summary.findings if finding.code == "server_clock"]
    assert found.jobs.gap_s() == pytest.approx(0.1, abs=0.001) and len(found.jobs.pauses()) == 18


def test_what_attempts_executed_for_nothing_is_not_of_another_age() -> None:
    failed = Attempt(server="a", prompt_id="p", outcome="failed", sent=0.0, done=1.0, executed_ms=900)
    mad = structs.replace(failed, executed_ms=10**15)
    last = Attempt(server="a", prompt_id="p.2", outcome="completed", sent=1.0, done=2.0, executed_ms=900)
    record = job(0, 0.0, 2.0, attempts=[failed, mad, last])
    found = measure("r", manifest(jobs=1, retry=Policy()), [record]).summary.retries
    assert found is not None and found.executed_for_nothing_s == 0.9


@pytest.mark.parametrize("stamp", ["1e25", "1e400", "-1e30", "NaN", "Infinity"])
def test_stamps_that_no_number_holds_are_not_kept(stamp: str) -> None:
    tracker = PromptTracker()
    for kind in ("execution_start", "execution_success"):
        message = decode_message(f'{{"type": "{kind}", "data": {{"prompt_id": "p", "timestamp": {stamp}}}}}')
        assert message is not None
        tracker.on_message(message, 1.0)
    pair = f'["execution_success", {{"prompt_id": "p", "timestamp": {stamp}}}]'
    prompt = f'[0, "p", {{}}, {{"create_time": {stamp}}}, []]'
    body = f'{{"p": {{"prompt": {prompt}, "outputs": {{}}, "status": {{"messages": [{pair}]}}}}}}'
    entry = decode_history(body.encode(), "p")
    assert entry is not None
    execution = tracker.execution("completed", done=2.0, end_source="events", failure=None, entry=entry)
    assert execution.server == ServerTimes()
    json.dumps(execution.server.create_ms)


def test_a_failure_keeps_its_stamps_as_told() -> None:
    record = job(0, 0.0, 2.0, outcome="failed", failure=Failure(kind="oom"))
    assert isinstance(record, Record) and believed(record.execution) is record.execution.server


stamps = st.none() | st.integers(AT, AT + 30_000) | st.sampled_from([-1, 0, 10**9, 1_700_000_000, 10**15, 10**18])
instant = st.none() | st.floats(0.0, 30.0)


@given(create=stamps, start=stamps, end=stamps, due=st.floats(0.0, 30.0), sent=instant, done=instant, ok=st.booleans())
def test_the_columns_hold_the_believed_stamps_and_no_others(
    create: int | None, start: int | None, end: int | None, due: float, sent: float | None, done: float | None, ok: bool
) -> None:
    outcome = "completed" if ok else "timed_out"
    execution = ran(create, start, end, sent=sent, done=done, outcome=outcome)
    record = structs.replace(job(0, due, 1.0), execution=execution)
    fold = Fold([FACTS])
    fold.add([record])
    every = fold.finish().every.instants
    for name in ("create_ms", "start_ms", "end_ms"):
        expected = getattr(believed(execution, due), name)
        assert np.isnan(every[name][0]) if expected is None else every[name][0] == expected
