"""Made-up runs for the tests of judgement and report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from comfyload.record.model import (
    Execution,
    Failure,
    Host,
    Manifest,
    NodeFacts,
    Output,
    Quantiles,
    Record,
    SelfCheck,
    Server,
    ServerTimes,
    Span,
    WorkflowFacts,
)
from comfyload.record.plan import Closed, Load, Plan

FACTS = WorkflowFacts(
    name="book",
    sha256="0" * 64,
    nodes={
        "3": NodeFacts(class_type="KSampler", sampler=True),
        "4": NodeFacts(class_type="CheckpointLoaderSimple"),
        "8": NodeFacts(class_type="VAEDecode"),
        "9": NodeFacts(class_type="SaveImage", output=True, samplers=["3"]),
    },
    varied=["3.seed"],
)


def manifest(jobs: int = 12, concurrency: int = 1, *, warmup: int = 0, **changes: Any) -> Manifest:
    """A run that ended well; `as_is` and `fetch` go to its plan, all else to the manifest."""
    plan = Plan(
        load=Closed(concurrency=concurrency),
        jobs=jobs,
        warmup=warmup,
        timeout_s=None,
        as_is=changes.pop("as_is", False),
        fetch=changes.pop("fetch", False),
        seed=1,
    )
    base: dict[str, Any] = {
        "format": 1,
        "tool": "comfyload 0",
        "run_id": "20260101T000000Z-book-abcdef",
        "name": "book",
        "started_utc": "2026-01-01T00:00:00+00:00",
        "ended_utc": "2026-01-01T01:00:00+00:00",
        "end": "complete",
        "plan": plan,
        "client": Host(os="Linux", cpu=None, cores=2, ram_bytes=None, python="3.11", libraries={}),
        "server": Server(url="http://127.0.0.1:8188", comfyui_version="0.28.1"),
        "workflows": [FACTS],
        "self_check": SelfCheck(
            wall_s=100,
            timer_lateness_s=Quantiles(n=1000, p50=0.0001, p99=0.0009, max=0.004),
            send_lateness_s=Quantiles(n=12, p50=0.0002, p99=0.0011, max=0.0013),
            busy_fraction=0.031,
            gc_pauses_s=None,
            run_queue_delay_s=0.01,
            max_rss_bytes=90_000_000,
        ),
    }
    return Manifest(**{**base, **changes})


def job(index: int, due: float, seconds: float, **changes: Any) -> Record:
    """A job that made its own picture in `seconds`, sent 1 ms late; `warmup` is its own, all else its execution's."""
    warmup = changes.pop("warmup", False)
    start = round(1000 * due) + 1_700_000_000_000
    base: dict[str, Any] = {
        "outcome": "completed",
        "sent": due + 0.001,
        "acknowledged": due + 0.004,
        "done": due + seconds,
        "end_source": "events",
        "server": ServerTimes(create_ms=start + 2, start_ms=start + 5, end_ms=start + round(1000 * seconds) - 3),
        "nodes": [Span("3", due + 0.01, due + 0.9 * seconds), Span("9", due + 0.9 * seconds, due + 0.98 * seconds)],
        "outputs": [Output(node="9", kind="images", count=1, files=[f"output/run/book_{index:05}_.png"])],
        "executions": 1,
    }
    return Record(
        index=index,
        prompt_id=f"id-{index}",
        workflow="book",
        warmup=warmup,
        due=due,
        values={"3.seed": index},
        execution=Execution(**{**base, **changes}),
    )


def failed(index: int, due: float, seconds: float, outcome: str = "failed", **failure: Any) -> Record:
    """A job that ended otherwise after `seconds`; a RuntimeError in the sampler unless told."""
    cause = {"kind": "execution_error", "type": "RuntimeError", "message": "mat1 and mat2", "node_class": "KSampler"}
    return job(index, due, seconds, outcome=outcome, outputs=[], failure=Failure(**{**cause, **failure}))


def one_by_one(seconds: list[float], first: int = 0) -> list[Record]:
    """Jobs of these durations, each due when the one before has ended."""
    records, due = [], 0.0
    for index, duration in enumerate(seconds, first):
        records.append(job(index, due, duration))
        due += duration
    return records


# --- made-up servers, in arithmetic


def planned(load: Load, jobs: int | None = None, **changes: Any) -> Manifest:
    """A run of that load; fields of `Plan` go to its plan, all else to the manifest."""
    plan = {name: changes.pop(name) for name in Plan.__struct_fields__ if name in changes}
    return manifest(plan=Plan(load=load, jobs=jobs, **plan), **changes)


def served(
    due: Sequence[float],
    seconds: Sequence[float] | float,
    *,
    places: int | None = None,
    drop: bool = False,
    until: float | None = None,
    workflows: Sequence[str] = (),
) -> list[Record]:
    """Jobs of a serial server in the order they came: each starts when it is due and the one before has ended.

    With `places`, no more than so many are sent at a time: others wait, or with `drop` are never sent. Jobs not done
    by `until` are cut off there.
    """
    records: list[Record] = []
    ends: list[float] = []
    for index, instant in enumerate(due):
        took = seconds if isinstance(seconds, float) else seconds[index]
        under_way = [end for end in ends if end > instant + 1e-9]
        full = places is not None and len(under_way) >= places
        if full and drop:
            failure = Failure(kind="dropped", message="no slot was free when it was due")
            dropped = Execution(outcome="dropped", failure=failure)
            records.append(structs.replace(job(index, instant, 0.0), execution=dropped))
            continue
        sent = sorted(under_way)[-(places or 0)] if full else instant
        start = max(sent, ends[-1] if ends else 0.0)
        ends.append(start + took)
        records.append(_served(index, instant, sent, start, took, until))
        if workflows:
            records[-1] = structs.replace(records[-1], workflow=workflows[index])
    return records


def _served(index: int, due: float, sent: float, start: float, took: float, until: float | None) -> Record:
    create, begin, end = (round(1000 * t) + 1_700_000_000_000 for t in (sent, start, start + took))
    times = ServerTimes(create_ms=create, start_ms=begin, end_ms=end)
    if until is not None and start + took > until:
        return censored(job(index, due, until - due, sent=sent, acknowledged=None, server=ServerTimes()))
    return job(index, due, start + took - due, sent=sent, acknowledged=sent + 0.003, server=times, nodes=[])


def censored(record: Record) -> Record:
    """The same job, cut off by the end of the run when it would have been done."""
    failure = Failure(kind="censored", message="cut off by the end of the run")
    run = structs.replace(
        record.execution, outcome="cancelled", outputs=[], failure=failure, server_state_after="cancelled"
    )
    return structs.replace(record, execution=run, censored=True)


def booked(records: Sequence[Record], pages: int) -> list[Record]:
    """The same jobs as pages of books, due when the first of them is."""
    return [
        structs.replace(record, book=number // pages, due=records[number - number % pages].due)
        for number, record in enumerate(records)
    ]
