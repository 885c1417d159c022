"""Where a job stands, one row each: its badge, and the finer state beneath it."""

from typing import Literal

from msgspec import Struct

from comfyload.record.model import Record
from comfyload.record.outcomes import OUTCOMES, Outcome

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


_KEYS: dict[Outcome, str] = {"timed_out": "timeout"}


def _end(outcome: Outcome) -> JobState:
    row = OUTCOMES[outcome]
    badge: Badge = "done" if outcome == "completed" else "attention" if row.error else "ended"
    return JobState(key=_KEYS.get(outcome, outcome), words=row.words, badge=badge)


STATES: tuple[JobState, ...] = (
    JobState(key="unknown", words="end unknown", badge="ended"),
    JobState(key="waiting", words="waiting", badge="pending"),
    JobState(key="sent", words="sent", badge="pending"),
    JobState(key="queued", words="in the queue", badge="pending"),
    JobState(key="retrying", words="retrying", badge="pending"),
    JobState(key="running", words="running", badge="rendering"),
    *map(_end, OUTCOMES),
    JobState(key="cached", words="from cache", badge="done"),
    JobState(key="shed", words="shed", badge="ended"),
    JobState(key="censored", words="cut off", badge="ended"),
)
"""The first is of jobs without a record. Which of those that have none waits or runs, `states.states_of` says."""

PLACES = {state.key: place for place, state in enumerate(STATES)}


def places_of(badge: Badge) -> list[int]:
    """The places in STATES beneath a badge."""
    return [place for place, state in enumerate(STATES) if state.badge == badge]


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
        key = _KEYS.get(run.outcome, run.outcome)
    return PLACES[key]
