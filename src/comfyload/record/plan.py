"""What is asked of a run: when jobs are due, how many, and by which rules. Plain values; what they mean is in `load`.

Durations are in seconds and rates in arrivals per second. `None` is "no limit", or "not asked for".
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Arrivals", "Closed", "Load", "OnFull", "Open", "Order", "Plan", "Replay", "Stage"]

Arrivals = Literal["constant", "poisson", "gamma"]
"""Gaps between arrivals: all the same, exponential, or gamma with a coefficient of variation of one's choice."""

OnFull = Literal["wait", "drop"]
"""What becomes of an arrival that finds no place: it waits, its due time kept, or is counted as dropped."""

Order = Literal["random", "sticky", "aabb"]
"""Which workflow a job is of: drawn by weight, drawn but kept with some probability, or by design."""


class Closed(Struct, frozen=True, kw_only=True, tag_field="kind", tag="closed", forbid_unknown_fields=True):
    """`concurrency` users, each sending its next job `think_s` after its last has ended.

    Users start evenly over `ramp_up_s`, the first at once.
    """

    concurrency: int = 1
    think_s: float = 0.0
    ramp_up_s: float = 0.0


class Stage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of time at a rate, which may change evenly to another; `seconds` None: for ever."""

    per_s: float
    to_per_s: float | None = None
    seconds: float | None = None


class Open(Struct, frozen=True, kw_only=True, tag_field="kind", tag="open", forbid_unknown_fields=True):
    """Arrivals that do not wait for each other, at the rates of `stages`, one after the other."""

    stages: list[Stage]
    arrivals: Arrivals = "poisson"
    cv: float = 1.0
    max_in_flight: int | None = None
    on_full: OnFull = "wait"


class Replay(Struct, frozen=True, kw_only=True, tag_field="kind", tag="replay", forbid_unknown_fields=True):
    """Arrivals at given instants, `offsets_s` after the start, ascending, as they are after any speeding up.

    `match`: what was asked to be taken for an arrival; None: what is by default. `read_as`: what was, and what was not.
    """

    offsets_s: list[float]
    source: str = ""
    speedup: float = 1.0
    match: str | None = None
    read_as: str = ""
    max_in_flight: int | None = None
    on_full: OnFull = "wait"


Load = Closed | Open | Replay


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that was asked for. An arrival is a job, or a book of `pages` jobs.

    `jobs` counts arrivals after the `warmup` ones; None: as many as come in `duration_s`, or as the load has.
    `seed` None: a new one for each run, as a server that still has the last run's results would serve them again.
    `max_server_queue`: a job is held back while the server's queue, whoever's prompts are in it, is so long or longer,
    or dropped if its load does that `on_full`. `drain` False: what has not ended when the last arrival was due, or time
    was up, is cut off and counted as censored.
    """

    load: Load = Closed()
    jobs: int | None = None
    duration_s: float | None = None
    warmup: int = 0
    pages: int = 1
    timeout_s: float | None = None
    max_server_queue: int | None = None
    drain: bool = True
    as_is: bool = False
    fetch: bool = False
    seed: int | None = None
    order: Order = "random"
    stickiness: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether an arrival may have to wait, by design, before it is sent."""
        if isinstance(self.load, Closed):
            return self.max_server_queue is not None
        limited = self.load.max_in_flight is not None or self.max_server_queue is not None
        return limited and self.load.on_full == "wait"

    @property
    def concurrency(self) -> int | None:
        """Users of a closed load; an open one has none."""
        return self.load.concurrency if isinstance(self.load, Closed) else None
