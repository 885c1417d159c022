"""Where a job stands, one row each: its badge, and the finer state beneath it."""

from typing import Literal

from msgspec import Struct

from comfyload.record.model import Record

Badge = Literal["pending", "rendering", "attention", "done", "ended"]

BADGES: dict[Badge, str] = {
    "pending": "Pending",
    "rendering": "Rendering",
    "attention": "Needs attention",
    "done": "Done",
    "ended": "Ended",
}
"""In the order in which people read them."""


class JobState(Struct, frozen=True, kw_only=True):
    """A finer state: `key` for tools, `words` for people."""

    key: str
    words: str
    badge: Badge


STATES: tuple[JobState, ...] = (
    JobState(key="unknown", words="end unknown", badge="ended"),
    JobState(key="waiting", words="waiting", badge="pending"),
    JobState(key="sent", words="sent", badge="pending"),
    JobState(key="queued", words="in the queue", badge="pending"),
    JobState(key="retrying", words="retrying", badge="pending"),
    JobState(key="running", words="running", badge="rendering"),
    JobState(key="failed", words="failed", badge="attention"),
    JobState(key="lost", words="lost", badge="attention"),
    JobState(key="timeout", words="timed out", badge="attention"),
    JobState(key="completed", words="completed", badge="done"),
    JobState(key="cached", words="from cache", badge="done"),
    JobState(key="cancelled", words="cancelled", badge="ended"),
    JobState(key="dropped", words="dropped", badge="ended"),
    JobState(key="shed", words="shed", badge="ended"),
    JobState(key="censored", words="cut off", badge="ended"),
)
"""The first is of jobs without a record. Which of those that have none waits or runs, `states.states_of` says."""

PLACES = {state.key: place for place, state in enumerate(STATES)}


def places_of(badge: Badge) -> list[int]:
    """The places in STATES beneath a badge."""
    return [place for place, state in enumerate(STATES) if state.badge == badge]


_ENDS = {"failed": "failed", "lost": "lost", "timed_out": "timeout", "cancelled": "cancelled", "dropped": "dropped"}


def ended_as(record: Record, *, cached: bool) -> int:
    """The place in STATES of a job that has ended; `cached`: all its outputs came from the server's cache."""
    run = record.execution
    kind = None if run.failure is None else run.failure.kind
    if run.outcome == "completed":
        key = "cached" if cached else "completed"
    elif record.censored:
        key = "censored"
    elif kind in ("shed", "dropped"):
        key = kind
    else:
        key = _ENDS[run.outcome]
    return PLACES[key]
