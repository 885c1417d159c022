"""The arrivals of a run, each a job or a book of several, and at which rates they came, left and ended."""

import math

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.columns.jobs import Jobs
from comfyload.load.arrivals import area
from comfyload.record.model import Manifest
from comfyload.record.plan import Closed, Open, Plan, Replay


class Arrivals(Struct, frozen=True, kw_only=True):
    """Counted arrivals in the order of completion, on the client's clock; NaN is "never".

    `sent`: its first job was sent. `done`: the end of its last job. `completed`: all its jobs did. `censored`:
    the end of the run cut one off, and none is known to have failed. `dropped`: none was sent.
    """

    due: Floats
    sent: Floats
    done: Floats
    completed: Flags
    censored: Flags
    dropped: Flags
    pages: int

    @property
    def unit(self) -> str:
        """What an arrival is called."""
        return "book" if self.pages > 1 else "job"


class Rates(Struct, frozen=True, kw_only=True):
    """Arrivals per minute. `planned`: by the plan, over the time that arrivals came; None for a closed load.

    `offered`: due, from the first due to the last. `sent`: the same of those sent. `completed`: by wall clock.
    None where fewer than two were, or the wall clock has a gap.
    """

    planned: float | None = None
    offered: float | None = None
    sent: float | None = None
    completed: float | None = None


def arrivals_of(jobs: Jobs, pages: int) -> Arrivals:
    """The jobs themselves, or if there are several pages, their books."""
    columns, due, sent, done = jobs.counted, jobs.instant("due"), jobs.instant("sent"), jobs.instant("done")
    if pages == 1 or not jobs.n:
        ends = {name: getattr(columns, name) for name in ("completed", "censored", "dropped")}
        return Arrivals(due=due, sent=sent, done=done, **ends, pages=pages)
    order = np.argsort(columns.book, kind="stable")
    _, first, size = np.unique(columns.book[order], return_index=True, return_counts=True)
    good = np.add.reduceat(columns.completed[order].astype(np.int64), first)
    cut = np.add.reduceat(columns.censored[order].astype(np.int64), first)
    books = {
        "due": np.minimum.reduceat(due[order], first),
        "sent": np.fmin.reduceat(sent[order], first),
        "done": np.maximum.reduceat(done[order], first),
        "completed": good == pages,
        "censored": (cut > 0) & (good + cut == size),
        "dropped": np.logical_and.reduceat(columns.dropped[order], first),
    }
    by_end = np.argsort(books["done"], kind="stable")
    return Arrivals(**{name: column[by_end] for name, column in books.items()}, pages=pages)


def rates(manifest: Manifest, arrivals: Arrivals, wall_clock_s: float | None) -> Rates:
    """At which rates arrivals were planned, came due, were sent and completed."""
    load, due = manifest.plan.load, arrivals.due
    planned = None
    if not isinstance(load, Closed) and not as_it_came(manifest.plan) and len(due) > 1:
        seconds = _planned_s(manifest, due)
        planned = planned_in(load, seconds) / seconds if seconds > 0 else None
        if isinstance(load, Replay):
            planned = _rate(np.asarray(load.offsets_s, dtype=np.float64))
        planned = None if planned is None else planned * manifest.part.fraction
    found = {"planned": planned}
    if not manifest.resumed:
        completed = int(arrivals.completed.sum()) / wall_clock_s if wall_clock_s else None
        found |= {"offered": _rate(due), "sent": _rate(arrivals.sent), "completed": completed}
    return Rates(**{name: 60 * rate for name, rate in found.items() if rate is not None})


def _rate(instants: Floats) -> float | None:
    known = instants[~np.isnan(instants)]
    span = float(known.max() - known.min()) if len(known) > 1 else 0.0
    return (len(known) - 1) / span if span > 0 else None


def _planned_s(manifest: Manifest, due: Floats) -> float:
    """Seconds over which the plan has arrivals: until its time was up, or else until the last was due."""
    plan, began = manifest.plan, manifest.counted_from
    came = float(due.max()) - (float(due.min()) if began is None else began)
    whole = plan.duration_s if plan.duration_s is not None else math.inf
    if isinstance(plan.load, Open):
        whole = min(whole, sum(math.inf if stage.seconds is None else stage.seconds for stage in plan.load.stages))
    return came if manifest.end != "complete" or plan.jobs is not None or math.isinf(whole) else max(came, whole)


def planned_in(load: Open | Replay, seconds: float) -> float:
    """How many arrivals the load has in its first `seconds`, on average; the integral of its rate."""
    if isinstance(load, Replay):
        return float(np.searchsorted(np.asarray(load.offsets_s, dtype=np.float64), seconds, side="right"))
    count = 0.0
    for stage in load.stages:
        within = seconds if stage.seconds is None else min(seconds, stage.seconds)
        count += area(stage, within)
        seconds -= within
        if seconds <= 0:
            break
    return count


def as_it_came(plan: Plan) -> bool:
    """Whether the jobs are an application's own, and no plan's."""
    return isinstance(plan.load, Replay) and plan.load.as_it_came


def planned_jobs(manifest: Manifest) -> int | None:
    """How many counted jobs the plan makes for certain; of a shard its share. None where that is not known."""
    plan, arrivals = manifest.plan, manifest.scheduled
    if arrivals is None:
        arrivals = _planned_arrivals(plan)
    return None if arrivals is None else manifest.part.share(arrivals, plan.warmup) * plan.pages


def _planned_arrivals(plan: Plan) -> int | None:
    """None where time or chance decides."""
    if plan.duration_s is not None or as_it_came(plan):
        return None
    load, count = plan.load, plan.jobs
    if isinstance(load, Replay):
        count = len(load.offsets_s) if count is None else min(count, len(load.offsets_s))
    elif isinstance(load, Open) and load.stages[-1].seconds is not None:
        count = None
    return count


def books_failed(arrivals: Arrivals) -> Flags:
    """Which books did not complete, in the order of submission; those that the end cut off are left out."""
    known = ~arrivals.censored
    return ~arrivals.completed[known][np.argsort(arrivals.due[known], kind="stable")]
