"""Made-up runs for the tests of judgement and report."""

from __future__ import annotations

from typing import Any

from comfyload.record.model import (
    Execution,
    Failure,
    Host,
    Manifest,
    NodeFacts,
    Output,
    Record,
    SelfCheck,
    Server,
    ServerTimes,
    Span,
    Spread,
    WorkflowFacts,
)
from comfyload.record.plan import Closed, Plan

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
            timer_lateness_s=Spread(n=1000, p50=0.0001, p99=0.0009, max=0.004),
            send_lateness_s=Spread(n=12, p50=0.0002, p99=0.0011, max=0.0013),
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
        "seen_by": "events",
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
