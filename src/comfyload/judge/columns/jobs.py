"""A run's jobs as columns, and what of them is a duration, an overlap or a gap."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.metrics import METRICS, Instant

NOWHERE = np.iinfo(np.uint16).max
CACHE_CLASSES = ("fresh", "partial", "cached")
_PAUSES_FASTER, _SEEN_LATE_S = 1.02, 0.25
"""A pause is at most that of our clock, but for the clocks' rates, and for how late ends are seen."""


class Columns(Struct, frozen=True, kw_only=True):
    """Jobs in the order of completion; those without an end come last. NaN is "not known", book -1 "of no book".

    `images` are new ones that were saved, `previews` new ones that were not. `ours`: the generator's machine made them
    fail. `server`: the place among the run's servers of the one that ran it; `NOWHERE`: none did.
    """

    instants: dict[Instant, Floats]
    images: NDArray[np.uint32]
    previews: NDArray[np.uint32]
    book: NDArray[np.int64]
    completed: Flags
    censored: Flags
    dropped: Flags
    cache: NDArray[np.uint8]
    retried: Flags
    ours: Flags
    workflow: NDArray[np.uint16]
    server: NDArray[np.uint16]

    def difference(self, name: str) -> Floats:
        """A duration of each job in seconds; negative where a clock was set back, NaN where it is not known."""
        metric = METRICS[name]
        difference = self.instants[metric.ends] - self.instants[metric.begins]
        difference /= metric.per_s
        return difference

    def metric(self, name: str) -> Floats:
        """A duration of each job in seconds; NaN where it is not known, or a clock was set back."""
        seconds = self.difference(name)
        seconds[seconds < 0] = np.nan
        return seconds


class Jobs:
    """The counted jobs, and `every`: warm-up jobs too, after the counted ones. Nothing here is copied. `servers`: how
    many the run has.
    """

    def __init__(self, every: Columns, counted: int, servers: int = 1) -> None:
        self.every = every
        self.servers = servers
        self.n = counted
        fields = {name: getattr(every, name)[:counted] for name in every.__struct_fields__ if name != "instants"}
        instants = {name: column[:counted] for name, column in every.instants.items()}
        self.counted = Columns(instants=instants, **fields)

    @property
    def completed(self) -> Flags:
        return self.counted.completed

    @property
    def cache(self) -> NDArray[np.uint8]:
        return self.counted.cache

    def cache_classes(self) -> dict[str, int]:
        """How many completed jobs are of each class."""
        counts = np.bincount(self.cache[self.completed], minlength=len(CACHE_CLASSES)).tolist()
        return dict(zip(CACHE_CLASSES, counts, strict=True))

    def instant(self, name: Instant) -> Floats:
        """When it was, of each counted job."""
        return self.counted.instants[name]

    def metric(self, name: str) -> Floats:
        """A duration of each counted job, in seconds; NaN where it is not known."""
        return self.counted.metric(name)

    def known(self, name: str, only: Flags | None = None) -> Floats:
        """A metric of completed jobs, where it is known; of those chosen by `only`, if given."""
        seconds = self.metric(name)
        chosen = self.completed & ~np.isnan(seconds)
        return seconds[chosen if only is None else chosen & only]

    def late(self) -> Floats:
        """Seconds from due to sent, of the counted jobs that were sent."""
        late = self.instant("sent") - self.instant("due")
        return late[~np.isnan(late)]

    def negative(self) -> int:
        """How many durations of counted jobs were negative by the client's clock."""
        names = [name for name, metric in METRICS.items() if metric.clock == "client"]
        return sum(int(np.count_nonzero(self.counted.difference(name) < 0)) for name in names)

    def overlaps(self, server: int | None = None) -> int:
        """How many executions, warm-up included, began before an earlier one had ended on the same server, by its
        clock. `server`: of that one alone.
        """
        return sum(self._overlaps) if server is None else self._overlaps[server]

    @cached_property
    def _overlaps(self) -> list[int]:
        start, end = self.every.instants["start_ms"], self.every.instants["end_ms"]
        known = ~(np.isnan(start) | np.isnan(end))
        found = []
        for of_it in self._by_server():
            order = of_it[np.lexsort((end[of_it], start[of_it]))]
            order = order[known[order]]
            found.append(int(np.count_nonzero(start[order[1:]] < np.maximum.accumulate(end[order[:-1]]))))
        return found

    def _by_server(self) -> Iterator[NDArray[np.int64]]:
        """The places of each server's jobs, warm-up included. Two servers' clocks are never compared."""
        if self.servers == 1:
            yield np.arange(len(self.every.server))
            return
        for server in range(self.servers):
            yield np.flatnonzero(self.every.server == server)

    def as_executed(self) -> Iterator[NDArray[np.int64]]:
        """The same, in the order in which the server began them."""
        start = self.every.instants["start_ms"]
        for of_it in self._by_server():
            yield of_it[np.argsort(start[of_it], kind="stable")]

    def gap_s(self) -> float:
        """The server's mean pause between two jobs of which the second was waiting already, in seconds; 0 if none was.

        The mean, since what counts is the time lost: ComfyUI collects garbage after every 10 s of work, for a third of
        a second, and a median of pauses would not know of it.
        """
        pauses = self.pauses()
        return float(pauses.mean()) if len(pauses) else 0.0

    def pauses(self) -> Floats:
        """Each of those pauses, in the order in which a server ran the jobs, by its clock. None is negative: between
        executions side by side there is no pause.
        """
        pauses: Floats = np.concatenate([pauses for _, pauses in self._pauses()])
        return pauses[~np.isnan(pauses)]

    def pause_after(self) -> Floats:
        """Of every job, warm-up included, the pause after it; nan where none was waiting."""
        after = np.full(len(self.every.instants["start_ms"]), np.nan)
        for order, pauses in self._pauses():
            after[order[:-1]] = pauses
        return after

    def _pauses(self) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Each server's order of jobs, and the pause after each but the last.

        One that is longer than our own clock leaves room for, between the two ends that we saw, has a step of the
        server's clock in it, and is not known.
        """
        create, start, end = (self.every.instants[name] for name in ("create_ms", "start_ms", "end_ms"))
        done = self.every.instants["done"]
        for order in self.as_executed():
            ended, later = end[order[:-1]], order[1:]
            waited = create[later] <= ended
            pauses = np.subtract(start[later], ended, out=ended)
            np.maximum(pauses, 0.0, out=pauses)
            pauses[~waited] = np.nan
            pauses /= 1000
            room = np.diff(done[order]) - (end[later] - start[later]) / 1000
            pauses[pauses > _PAUSES_FASTER * np.maximum(room, 0.0) + _SEEN_LATE_S] = np.nan
            yield order, pauses


def failures_of(jobs: Jobs, of: Flags | None = None) -> Flags:
    """Which counted jobs failed, in the order of submission; of those `of` a kind if given. Jobs that the end cut off
    and those that we made fail are left out.
    """
    columns = jobs.counted
    known = ~columns.censored & ~columns.ours
    if of is not None:
        known &= of
    return ~columns.completed[known][np.argsort(jobs.instant("due")[known], kind="stable")]


class Executions(Struct, frozen=True, kw_only=True):
    """Executions in the server's order, one server's after another's, in its seconds. `same`: the job before was of the
    same workflow. `first`: there was none before. `server`: as in the columns.
    """

    seconds: Floats
    workflow: NDArray[np.uint16]
    same: Flags
    first: Flags
    server: NDArray[np.uint16]


def executions_of(jobs: Jobs) -> Executions:
    """Those of completed counted jobs with nothing from the cache. The job before may be of the warm-up; a job wholly
    from the cache loads no model and is passed over.
    """
    every = jobs.every
    ran = ~np.isnan(every.instants["start_ms"]) & (every.cache != CACHE_CLASSES.index("cached"))
    orders = [order[ran[order]] for order in jobs.as_executed()]
    order = np.concatenate(orders)
    seconds, workflow = every.metric("execution")[order], every.workflow[order]
    first = np.zeros(len(order), np.bool_)
    begins = np.cumsum([0, *map(len, orders)])[:-1]
    first[begins[begins < len(order)]] = True
    same = np.zeros(len(order), np.bool_)
    same[1:] = workflow[1:] == workflow[:-1]
    same &= ~first
    kept = (order < jobs.n) & every.completed[order] & (every.cache[order] == CACHE_CLASSES.index("fresh"))
    kept &= ~np.isnan(seconds)
    return Executions(
        seconds=seconds[kept],
        workflow=workflow[kept],
        same=same[kept],
        first=first[kept],
        server=every.server[order][kept],
    )
