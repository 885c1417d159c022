"""One record per arrival, whatever the server does; the journal gives back what was written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.record.environment.host import describe_host
from comfyload.record.model import Execution, Failure, Manifest, Record, Sample, Sent, Server, Span
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RECORDS, RunReader, RunWriter
from comfyload.sim import Faults
from comfyload.sim.faults import Which
from tests.support.rig import play

which = st.builds(Which, at=st.lists(st.integers(1, 12), max_size=2).map(tuple))
faults = st.builds(
    Faults,
    node_error=which,
    oom=which,
    partial=which,
    success_lie=which,
    restart=which,
    downtime_s=st.sampled_from([0.0, 0.5, 10.0]),
    drop_reply=which,
    lost_queue=which,
    no_history_s=st.sampled_from([0.0, 0.05, 2.0]),
    drop_socket=which,
    drop_socket_event=st.integers(1, 9),
    stall_events=which,
    stalled_s=st.sampled_from([0.5, 30.0]),
    dead_worker=which,
    hang=which,
    hang_s=st.sampled_from([1.0, 50.0]),
    duplicate_events=st.booleans(),
    unknown_events=st.booleans(),
    nan_in_error=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(faults, st.integers(1, 12), st.integers(1, 6), st.integers(0, 2), st.sampled_from(["0.33.0", "0.3.64"]))
def test_every_arrival_ends_in_one_record_and_nothing_is_posted_twice(
    fault: Faults, jobs: int, concurrency: int, warmup: int, version: str
) -> None:
    played, server = play(
        fault, jobs=jobs, concurrency=concurrency, warmup=warmup, timeout_s=15.0, server={"version": version}
    )
    assert sorted(record.index for record in played.records) == list(range(jobs + warmup))
    assert len({record.prompt_id for record in played.records}) == jobs + warmup
    assert all(count == 1 for count in server.posts.values())
    really = {truth.prompt_id: truth.outcome for truth in server.truth}
    for record in played.records:
        execution = record.execution
        if execution.outcome == "completed":
            assert really[record.prompt_id] == "completed"
            assert execution.done is not None
            assert execution.sent is not None
            assert record.due <= execution.sent <= execution.done
        else:
            assert execution.failure is not None


number = st.floats(-1e10, 1e10)
text = st.text(max_size=20)
records = st.builds(
    Record,
    index=st.integers(0, 10**9),
    prompt_id=text,
    workflow=text,
    warmup=st.booleans(),
    due=number,
    values=st.dictionaries(text, st.integers(0, 2**64 - 1), max_size=3),
    execution=st.builds(
        Execution,
        outcome=st.sampled_from(["completed", "failed", "lost"]),
        sent=st.none() | number,
        done=st.none() | number,
        nodes=st.lists(st.builds(Span, text, number, st.none() | number), max_size=3),
        cached=st.lists(text, max_size=3),
        failure=st.none() | st.builds(Failure, kind=st.just("oom"), message=text),
    ),
)
lines = st.lists(records | st.builds(Sent, index=st.integers(0, 10**9), prompt_id=text, due=number), max_size=8)


def manifest() -> Manifest:
    return Manifest(
        format=1,
        tool="comfyload test",
        run_id="r",
        name="r",
        started_utc="2026-01-01T00:00:00+00:00",
        ended_utc=None,
        end=None,
        plan=Plan(load=Closed(), jobs=1, warmup=0, timeout_s=None, as_is=False, fetch=False, seed=2**53 - 1),
        client=describe_host(),
        server=Server(url="http://x/", version=(0, 33, 0)),
        workflows=[],
    )


@settings(deadline=None)
@given(lines, st.integers(0, 200))
def test_a_journal_gives_back_all_whole_lines_even_if_the_last_is_torn(written: list[Record | Sent], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        writer = RunWriter(path, manifest())
        for line in written:
            writer.write_line(line)
        writer.write_sample(Sample(t=1.5, source="s", name="n", value=None))
        writer.close()
        reader = RunReader(path)
        assert list(reader.lines()) == written
        assert list(reader.samples()) == [Sample(t=1.5, source="s", name="n", value=None)]
        assert msgspec.to_builtins(reader.manifest) == msgspec.to_builtins(manifest())
        content = (path / RECORDS).read_bytes()
        torn = content[: max(0, len(content) - cut)]
        (path / RECORDS).write_bytes(torn)
        assert list(RunReader(path).lines()) == written[: torn.count(b"\n")]
