"""Which durations a job has, one row each: between which two instants, and on whose clock.

No numpy here: gates are read before the first job leaves.
"""

from typing import Literal

from msgspec import Struct

from comfyload.record.model import Record, ServerTimes
from comfyload.record.stamps import believed

Instant = Literal["due", "sent", "acknowledged", "done", "create_ms", "start_ms", "end_ms"]
"""The instants of a job: the first four by the client's clock in seconds, the others by the server's in ms."""

INSTANTS: tuple[Instant, ...] = ("due", "sent", "acknowledged", "done", "create_ms", "start_ms", "end_ms")


class Metric(Struct, frozen=True, kw_only=True):
    """A duration of a job, in seconds, from one instant to another of the same clock.

    `words` name it for people. `shown` are the statistics that the summary states of it, as prefixes of `_NAME_s`.
    """

    name: str
    words: str
    clock: Literal["client", "server"]
    begins: Instant
    ends: Instant
    shown: tuple[str, ...]
    meaning: str

    @property
    def per_s(self) -> float:
        """Ticks of the clock in a second."""
        return 1000.0 if self.clock == "server" else 1.0

    def of(self, record: Record) -> float | None:
        """The job's duration; None where an instant is not known, or the clock was set back between them."""
        known = instants(record, believed(record.execution, record.due))
        begin, end = known[INSTANTS.index(self.begins)], known[INSTANTS.index(self.ends)]
        return None if begin is None or end is None or end < begin else (end - begin) / self.per_s


def instants(record: Record, times: ServerTimes) -> tuple[float | None, ...]:
    """All of `INSTANTS`, in their order. `times`: the server's stamps that are believed."""
    run = record.execution
    return record.due, run.sent, run.acknowledged, run.done, times.create_ms, times.start_ms, times.end_ms


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="latency",
            words="latency",
            clock="client",
            begins="due",
            ends="done",
            shown=("avg", "p50", "p90", "p95", "p99", "max"),
            meaning="from when the job was due until its end was seen, on the client's clock",
        ),
        Metric(
            name="latency_sent",
            words="latency once sent",
            clock="client",
            begins="sent",
            ends="done",
            shown=("avg", "p50", "p90", "p95", "p99", "max"),
            meaning="from when the job was sent until its end was seen, on the client's clock",
        ),
        Metric(
            name="queue_wait",
            words="queue wait",
            clock="server",
            begins="create_ms",
            ends="start_ms",
            shown=("avg", "p50", "p95", "max"),
            meaning="from queued to started, on the server's clock",
        ),
        Metric(
            name="execution",
            words="execution",
            clock="server",
            begins="start_ms",
            ends="end_ms",
            shown=("avg", "p50", "p90", "p95", "max"),
            meaning="from started to ended, on the server's clock",
        ),
        Metric(
            name="acknowledge",
            words="acknowledge",
            clock="client",
            begins="sent",
            ends="acknowledged",
            shown=("avg", "p50", "p95", "max"),
            meaning="from sending the job until the reply that it is queued was read, on the client's clock",
        ),
    )
}
"""Every duration of a job, over completed, counted jobs only, cached ones included. Jobs that the end of the run cut
off enter those that end with `done` as longer than the time they were observed for."""

PHASES = ("waiting to be sent", "in the queue", "execution", "rest, such as delivery")
"""What a latency is made of: until sent, the queue wait, the execution, and what is left of it."""
