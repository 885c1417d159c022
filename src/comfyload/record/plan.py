"""The plan of a run: when jobs are due, how many, and by which rules. Plain values; what they mean is in `load`.

Durations are in seconds and rates in arrivals per second. `None` is "no limit", or "not given".
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct

from comfyload.record.bounds import Count, Rate, Seconds
from comfyload.record.flag import LOAD, SERVER, WORK, Flag

__all__ = ["Arrivals", "Closed", "Load", "OnFull", "Open", "Order", "Plan", "Replay", "Stage"]

Arrivals = Literal["constant", "poisson", "gamma"]
"""Gaps between arrivals: all the same, exponential, or gamma with a coefficient of variation of one's choice."""

OnFull = Literal["wait", "drop"]
"""What happens to an arrival at the limit of jobs in flight: it waits, its due time kept, or is counted as dropped."""

Order = Literal["random", "sticky", "aabb"]
"""Which workflow a job is of: drawn by weight, drawn but kept with some probability, or by design."""


class Closed(Struct, frozen=True, kw_only=True, tag_field="kind", tag="closed", forbid_unknown_fields=True):
    """`concurrency` users, each sending its next job `think_s` after its last has ended.

    Users start evenly over `ramp_up_s`, the first at once.
    """

    concurrency: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Flag("--concurrency", "C", "Jobs in flight. One server runs one at a time: 2 keep it busy.", short="-c"),
    ] = 1
    think_s: Annotated[Seconds, Flag("--think", "TIME", "Pause of each user between its jobs.", LOAD)] = 0.0
    ramp_up_s: Annotated[Seconds, Flag("--ramp-up", "TIME", "Start the users evenly over this time.", LOAD)] = 0.0


class Stage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of time at a rate, which may change evenly to another; `seconds` None: for ever."""

    per_s: Rate
    to_per_s: Rate | None = None
    seconds: Annotated[float, Meta(ge=0.001, le=1e10)] | None = None


_IN_FLIGHT = Flag(
    "--max-in-flight", "N", "Most jobs in flight at once with --rate, --stages or --replay.", LOAD, least=1
)
_WHEN_FULL = Flag(
    "--on-full", "wait|drop", "At these limits: wait (latency still counts from the due time) or drop.", LOAD
)


class Open(Struct, frozen=True, kw_only=True, tag_field="kind", tag="open", forbid_unknown_fields=True):
    """Arrivals that do not wait for each other, at the rates of `stages`, one after the other."""

    stages: Annotated[
        list[Stage],
        Flag("--rate", "RATE", "Send jobs at this rate, whether or not earlier ones have ended: 12/min.", LOAD),
        Flag("--stages", "STAGES", "Rates one after the other: 30s@2/min,5m@6/min..12/min.", LOAD),
    ]
    arrivals: Annotated[
        Arrivals, Flag("--arrivals", "KIND", "Gaps between arrivals: constant, poisson or gamma:CV.", LOAD)
    ] = "poisson"
    cv: float = 1.0
    max_in_flight: Annotated[Count | None, _IN_FLIGHT] = None
    on_full: Annotated[OnFull, _WHEN_FULL] = "wait"

    def __post_init__(self) -> None:
        if not self.stages or any(stage.seconds is None for stage in self.stages[:-1]):
            raise ValueError("stages are missing, or follow a stage without an end")
        if self.stages[-1].seconds is None and self.stages[-1].per_s < 1e-9:
            raise ValueError("the last stage has a rate of zero and no end")
        if self.arrivals == "gamma" and not 0.01 <= self.cv <= 100:
            raise ValueError("cv must be from 0.01 to 100")


class Replay(Struct, frozen=True, kw_only=True, tag_field="kind", tag="replay", forbid_unknown_fields=True):
    """Arrivals at given instants, `offsets_s` after the start, ascending, as they are after any speeding up.

    `match`: which requests are arrivals, as given; None: the default. `read_as`: which were arrivals, and which not.
    """

    offsets_s: list[Seconds]
    source: Annotated[
        str, Flag("--replay", "FILE", "Recorded arrivals: offsets, a run directory or an access log.", LOAD)
    ] = ""
    speedup: Annotated[float, Flag("--speedup", "X", "Replay X times as fast.", LOAD, least=0.001)] = 1.0
    match: Annotated[
        str | None,
        Flag(
            "--replay-match",
            "'METHOD PATH'",
            "Which requests of an access log are arrivals; or a text that its lines hold.",
            LOAD,
            default="POST /prompt",
        ),
    ] = None
    read_as: str = ""
    max_in_flight: Annotated[Count | None, _IN_FLIGHT] = None
    on_full: Annotated[OnFull, _WHEN_FULL] = "wait"

    def __post_init__(self) -> None:
        if any(later < earlier for earlier, later in pairwise(self.offsets_s)):
            raise ValueError("offsets_s must ascend")


Load = Closed | Open | Replay


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many arrivals there are, when, and of what. An arrival is a job, or a book of `pages` jobs.

    `jobs` counts arrivals after the `warmup` ones; None: as many as come in `duration_s`, or as the load has.
    `seed` None: a new one for each run, as a server that still has the last run's results would serve them again.
    `max_server_queue`: a job is held back while the server's queue, whoever's prompts are in it, is so long or longer,
    or dropped if its load does that `on_full`. `drain` False: what has not ended when the last arrival was due, or time
    was up, is cut off and counted as censored.
    """

    load: Load = Closed()
    jobs: Annotated[
        Count | None,
        Flag("--jobs", "N", "Jobs to run and count (books, with --pages).", short="-n", default="12", least=1),
    ] = None
    duration_s: Annotated[
        Seconds | None, Flag("--duration", "TIME", "Stop sending after this time: 15s, 5m, 1h30m.", LOAD)
    ] = None
    warmup: Annotated[Count, Flag("--warmup", "N", "Jobs to run first; they are recorded but not counted.")] = 0
    pages: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Flag("--pages", "N", "Jobs of a book; they are due together, and the book has a latency.", WORK),
    ] = 1
    timeout_s: Annotated[
        Seconds | None,
        Flag("--timeout", "TIME", "Give a job up after this time, and cancel it on the server: 5m.", least=0.001),
    ] = None
    max_server_queue: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Flag(
            "--max-server-queue", "N", "Hold jobs back while the server's queue has N prompts; see --on-full.", SERVER
        ),
    ] = None
    drain: Annotated[
        bool, Flag("--no-drain", "", "Cut off the jobs still running when the last arrival was due.", LOAD)
    ] = True
    as_is: Annotated[
        bool, Flag("--as-is", "", "Submit the graph unchanged; the server's cache answers repeats.", WORK)
    ] = False
    fetch: Annotated[
        bool, Flag("--fetch", "", "Download every output and check that it is whole; nothing is kept.", WORK)
    ] = False
    seed: Annotated[
        int | None,
        Flag(
            "--seed",
            "N",
            "Seed of the run: the same seed, the same jobs.",
            WORK,
            default="random",
            least=0,
            repeat=False,
        ),
    ] = None
    order: Annotated[
        Order,
        Flag("--order", "ORDER", "Of several workflows: random, sticky:P, or aabb (each change equally often).", WORK),
    ] = "random"
    stickiness: Annotated[float, Meta(ge=0, le=1)] = 0.0

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
