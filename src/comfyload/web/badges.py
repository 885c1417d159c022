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


class State(Struct, frozen=True, kw_only=True):
    """A finer state: `key` for tools, `words` for people."""

    key: str
    words: str
    badge: Badge


STATES: tuple[State, ...] = (
    State(key="unknown", words="end unknown", badge="ended"),
    State(key="waiting", words="waiting", badge="pending"),
    State(key="sent", words="sent", badge="pending"),
    State(key="queued", words="in the queue", badge="pending"),
    State(key="retrying", words="retrying", badge="pending"),
    State(key="running", words="running", badge="rendering"),
    State(key="failed", words="failed", badge="attention"),
    State(key="lost", words="lost", badge="attention"),
    State(key="timeout", words="timed out", badge="attention"),
    State(key="completed", words="completed", badge="done"),
    State(key="cached", words="from cache", badge="done"),
    State(key="cancelled", words="cancelled", badge="ended"),
    State(key="dropped", words="dropped", badge="ended"),
    State(key="shed", words="shed", badge="ended"),
    State(key="censored", words="cut off", badge="ended"),
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
