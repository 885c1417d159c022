"""The plan of a run: when jobs are due, how many, and by which rules. Plain values; what they mean is in `load`.

Durations are in seconds and rates in arrivals per second. `None` is "no limit", or "not given".
"""

from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct

from comfyload.record.bounds import Count, Rate, Seconds
from comfyload.record.flag import LOAD, SERVER, WORK, Flag

Arrivals = Literal["constant", "poisson", "gamma"]
"""Gaps between arrivals: all the same, exponential, or gamma with a coefficient of variation of one's choice."""

OnFull = Literal["wait", "drop"]
"""An arrival at the limit of jobs in flight waits and keeps its due time, or is dropped."""

Order = Literal["random", "sticky", "aabb"]
"""Which workflow a job is of: drawn by weight, drawn but kept with some probability, or by design."""


class Closed(Struct, frozen=True, kw_only=True, tag_field="kind", tag="closed"):
    """`concurrency` users, each sending its next job `think_s` after its last has ended.

    Users start evenly over `ramp_up_s`, the first immediately.
    """

    concurrency: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Flag("--concurrency", "C", "Jobs in flight. A server runs one job at a time; 2 keep it busy.", short="-c"),
    ] = 1
    think_s: Annotated[Seconds, Flag("--think", "TIME", "Pause of each user between its jobs.", LOAD)] = 0.0
    ramp_up_s: Annotated[Seconds, Flag("--ramp-up", "TIME", "Start the users evenly over this time.", LOAD)] = 0.0


class Stage(Struct, frozen=True, kw_only=True):
    """A period with a rate, which may change linearly to another; `seconds` None: without an end."""

    per_s: Rate
    to_per_s: Rate | None = None
    seconds: Annotated[float, Meta(ge=0.001, le=1e10)] | None = None


_IN_FLIGHT = Flag(
    "--max-in-flight", "N", "Most jobs in flight at once with --rate, --stages or --replay.", LOAD, least=1
)
_WHEN_FULL = Flag(
    "--on-full", "wait|drop", "At --max-in-flight or --max-server-queue: wait (latency counts from due) or drop.", LOAD
)


class Open(Struct, frozen=True, kw_only=True, tag_field="kind", tag="open"):
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


class Replay(Struct, frozen=True, kw_only=True, tag_field="kind", tag="replay"):
    """Arrivals at given instants: `offsets_s` after the start, ascending, with `speedup` already applied. Without any,
    they are what applications sent, as the records have them.

    `match`: the pattern of requests that are arrivals; None: the default. `read_as`: which requests were arrivals.
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
            "Requests of an access log that are arrivals, or a text in its lines.",
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

    @property
    def as_it_came(self) -> bool:
        """Whether nobody planned the arrivals."""
        return not self.offsets_s


Load = Closed | Open | Replay


class Plan(Struct, frozen=True, kw_only=True):
    """The arrivals of a run: how many, when, and of which workflow. An arrival is a job, or a book of `pages` jobs.

    `jobs` counts arrivals after the `warmup` ones; None: as many as come in `duration_s`, or as the load has.
    `seed` None: a new one for each run, because a server may still have the last run's results in its cache.
    `max_server_queue`: while the server's queue has this many prompts or more, of any client, a job is held back, or
    dropped if `on_full` says so. `drain` False: jobs that run when the last arrival was due, or when time is up, are
    cut off and counted as censored.
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
        Flag("--pages", "N", "Jobs per book: due together, with one latency for the book.", WORK),
    ] = 1
    timeout_s: Annotated[
        Seconds | None,
        Flag("--timeout", "TIME", "Give up a job after this time and cancel it on the server: 5m.", least=0.001),
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
        bool, Flag("--fetch", "", "Download every output to check that it is complete; keep nothing.", WORK)
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
        Flag("--order", "ORDER", "Order of workflows: random, sticky:P or aabb (all switches equally often).", WORK),
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
