"""Knows which durations a job has, one row each: between which two instants, and on whose clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from comfyload.record.model import Record

__all__ = ["METRICS", "Metric", "acknowledge", "execution", "latency", "latency_sent", "queue_wait"]


class Metric(Struct, frozen=True, kw_only=True):
    """A duration of a job. `shown` are the statistics that the summary states of it, as prefixes of `_NAME_s`.

    `getter` returns None where an instant is not known. A negative duration is returned as it is: a clock was set
    back, which the fold counts and reports instead of averaging it away.
    """

    name: str
    unit: str
    clock: Literal["client", "server"]
    shown: tuple[str, ...]
    description: str
    getter: Callable[[Record], float | None]


def latency(record: Record) -> float | None:
    """Client's seconds from when the job was due until its end was seen."""
    done = record.execution.done
    return None if done is None else done - record.due


def latency_sent(record: Record) -> float | None:
    """Client's seconds from when the job was sent until its end was seen: hides any delay of our own."""
    sent, done = record.execution.sent, record.execution.done
    return None if sent is None or done is None else done - sent


def acknowledge(record: Record) -> float | None:
    """Client's seconds from sending the job until the server's reply to the POST was read."""
    sent, acknowledged = record.execution.sent, record.execution.acknowledged
    return None if sent is None or acknowledged is None else acknowledged - sent


def queue_wait(record: Record) -> float | None:
    """Server's seconds from queueing the job to starting it."""
    times = record.execution.server
    if times.create_ms is None or times.start_ms is None:
        return None
    return (times.start_ms - times.create_ms) / 1000


def execution(record: Record) -> float | None:
    """Server's seconds from starting the job to its end."""
    times = record.execution.server
    if times.start_ms is None or times.end_ms is None:
        return None
    return (times.end_ms - times.start_ms) / 1000


METRICS = (
    Metric(
        name="latency",
        unit="s",
        clock="client",
        shown=("avg", "p50", "p90", "p95", "p99", "max"),
        description="from when the job was due until its end was seen",
        getter=latency,
    ),
    Metric(
        name="latency_sent",
        unit="s",
        clock="client",
        shown=("avg", "p50", "p90", "p95", "p99", "max"),
        description="from when the job was sent until its end was seen",
        getter=latency_sent,
    ),
    Metric(
        name="queue_wait",
        unit="s",
        clock="server",
        shown=("avg", "p50", "p95", "max"),
        description="from queued to started, by the server's clock",
        getter=queue_wait,
    ),
    Metric(
        name="execution",
        unit="s",
        clock="server",
        shown=("avg", "p50", "p90", "p95", "max"),
        description="from started to ended, by the server's clock",
        getter=execution,
    ),
    Metric(
        name="acknowledge",
        unit="s",
        clock="client",
        shown=("avg", "p50", "p95", "max"),
        description="from sending the job to the reply that it is queued",
        getter=acknowledge,
    ),
)
"""Every duration the summary knows. Each is folded over completed, counted jobs only, cached ones included."""
