"""Which durations a job has, one row each: between which two instants, and on whose clock."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from comfyload.record.model import Record
from comfyload.record.stamps import believed

__all__ = ["INSTANTS", "METRICS", "Instant", "Metric", "instants"]

Instant = Literal["due", "sent", "acknowledged", "done", "create_ms", "start_ms", "end_ms"]
"""What is known of when: the first four by the client's clock in seconds, the others by the server's in ms."""

INSTANTS: tuple[Instant, ...] = ("due", "sent", "acknowledged", "done", "create_ms", "start_ms", "end_ms")


class Metric(Struct, frozen=True, kw_only=True):
    """A duration of a job, in seconds, from one instant to another of the same clock.

    `shown` are the statistics that the summary states of it, as prefixes of `_NAME_s`.
    """

    name: str
    unit: str
    clock: Literal["client", "server"]
    begins: Instant
    ends: Instant
    shown: tuple[str, ...]
    description: str

    @property
    def per_s(self) -> float:
        """Ticks of the clock in a second."""
        return 1000.0 if self.clock == "server" else 1.0

    def of(self, record: Record) -> float | None:
        """The job's; None where an instant is not known, or the clock was set back between them."""
        known = instants(record)
        begin, end = known[INSTANTS.index(self.begins)], known[INSTANTS.index(self.ends)]
        return None if begin is None or end is None or end < begin else (end - begin) / self.per_s


def instants(record: Record) -> tuple[float | None, ...]:
    """All of `INSTANTS`, in their order; of the server's, those that can be."""
    run, times = record.execution, believed(record.execution, record.due)
    return record.due, run.sent, run.acknowledged, run.done, times.create_ms, times.start_ms, times.end_ms


METRICS = (
    Metric(
        name="latency",
        unit="s",
        clock="client",
        begins="due",
        ends="done",
        shown=("avg", "p50", "p90", "p95", "p99", "max"),
        description="from when the job was due until its end was seen",
    ),
    Metric(
        name="latency_sent",
        unit="s",
        clock="client",
        begins="sent",
        ends="done",
        shown=("avg", "p50", "p90", "p95", "p99", "max"),
        description="from when the job was sent until its end was seen",
    ),
    Metric(
        name="queue_wait",
        unit="s",
        clock="server",
        begins="create_ms",
        ends="start_ms",
        shown=("avg", "p50", "p95", "max"),
        description="from queued to started, by the server's clock",
    ),
    Metric(
        name="execution",
        unit="s",
        clock="server",
        begins="start_ms",
        ends="end_ms",
        shown=("avg", "p50", "p90", "p95", "max"),
        description="from started to ended, by the server's clock",
    ),
    Metric(
        name="acknowledge",
        unit="s",
        clock="client",
        begins="sent",
        ends="acknowledged",
        shown=("avg", "p50", "p95", "max"),
        description="from sending the job to the reply that it is queued",
    ),
)
"""Every duration the summary knows. Each is over completed, counted jobs only, cached ones included; jobs that the end
of the run cut off enter those that end with `done` as longer than what was seen of them."""
