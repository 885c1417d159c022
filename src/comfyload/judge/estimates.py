"""Every number of a run that estimates something: its value, its interval, and why it is withheld."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.arrivals import Arrivals, Rates, books_failed
from comfyload.judge.columns.fold import Fold
from comfyload.judge.columns.jobs import Jobs, failures_of
from comfyload.judge.columns.pace import Pace
from comfyload.judge.metrics import METRICS
from comfyload.judge.overload import Overload
from comfyload.judge.statistics.bursts import bursts_of
from comfyload.judge.statistics.means import mean, rate
from comfyload.judge.statistics.queue import ALONE, Queue
from comfyload.judge.statistics.stats import Statistic, proportion
from comfyload.judge.statistics.survival import Lengths, censored_percentiles
from comfyload.record.model import Manifest

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_BOOK_SHOWN = ("avg", "p50", "p95")
GAP = "the run died and was resumed: its wall clock has a gap"
"""Why no rate is given of a resumed run."""


class Evidence(Struct, frozen=True, kw_only=True):
    """What judgement is made from. `overload` None: the load had a steady state, or is closed. `queue`: what the load
    makes jobs wait in.

    `wall_clock_s`: from the first counted job's due time to the last one's end; None for no such time. `paces`: of
    each server's clock against ours, by the server's name.
    """

    manifest: Manifest
    fold: Fold
    jobs: Jobs
    arrivals: Arrivals
    rates: Rates
    overload: Overload | None
    queue: Queue
    wall_clock_s: float | None
    paces: Mapping[str, Pace | None] = {}

    @property
    def pace(self) -> Pace | None:
        """Of the only server, or the first of several."""
        return next(iter(self.paces.values()), None)


def estimates(evidence: Evidence) -> dict[str, Statistic]:
    """Every `Statistic` of the whole run by the name of its key in the summary."""
    jobs, ledger = evidence.jobs, evidence.fold.ledger
    what = "jobs whose end is known" if ledger.censored else "jobs offered"
    out = {"success_rate": success_rate(jobs, "jobs that our own machine did not fail" if ledger.ours else what)}
    for metric in METRICS.values():
        shown = [name for name in metric.shown if name != "max"]  # of n values it estimates nothing: no interval
        for name, statistic in duration(evidence, metric.name, shown).items():
            out[f"{name}_{metric.name}_s"] = statistic
    for name, statistic in _with_failures(evidence).items():
        out[f"{name}_latency_with_failures_s"] = statistic
    out["images_per_minute"] = images_per_minute(evidence)
    out["jobs_per_minute"] = jobs_per_minute(evidence)
    return out | _books(evidence)


def duration(evidence: Evidence, metric: str, shown: Sequence[str], only: Flags | None = None) -> dict[str, Statistic]:
    """Statistics of a metric over completed jobs, those of `only`, by prefix.

    Jobs that the end of the run cut off enter a latency as longer than they were observed for, as if they were to
    complete. Their queue wait is not known, so that of all is withheld: it would be that of the lucky ones. An
    execution is given of the completed alone: a serial server had one under way when the run ended.
    """
    jobs = evidence.jobs
    columns, seconds = jobs.counted, jobs.metric(metric)
    chosen = np.ones(jobs.n, np.bool_) if only is None else only
    cut = columns.censored & chosen
    to_the_end = METRICS[metric].ends == "done"
    at_stake = (columns.completed & chosen) | (cut if to_the_end else False)
    known = at_stake & ~np.isnan(seconds)
    if metric == "queue_wait" and cut.any():
        reason = f"censored: the waits of {int(cut.sum())} jobs that were cut off are not known"
        return {name: _withheld(reason, int(known.sum()), "withheld") for name in shown}
    completed = int((columns.completed & chosen).sum())
    what = "completed jobs" if known.sum() == completed else f"of {completed} completed jobs with this time"
    if columns.censored[known].any():
        what = "completed and cut jobs"
    none_failed = np.zeros(int(known.sum()), np.bool_)
    seconds = seconds[known]  # of a million jobs, those of all are 8 MB that nobody needs any longer
    lengths = Lengths(seconds=seconds, cut=columns.censored[known], failed=none_failed)
    queue = evidence.queue if to_the_end or metric == "queue_wait" else ALONE
    return _statistics(lengths, shown, what, evidence.overload if to_the_end else None, queue)


def success_rate(jobs: Jobs, what: str, of: Flags | None = None) -> Statistic:
    """Of the counted jobs whose end is known and which we did not make fail, those that completed."""
    return _completed(failures_of(jobs, of), what)


def _completed(failed: Flags, what: str) -> Statistic:
    bursts = bursts_of(failed)
    return proportion(bursts.n - bursts.bad, bursts.n, what, bursts.observed())


def images_per_minute(evidence: Evidence, of: Flags | bool = True) -> Statistic:
    """New saved images of the chosen jobs per minute of the run's wall clock; previews where no job saved any file."""
    columns, previews_only = evidence.jobs.counted, evidence.fold.made.previews_only
    made = np.where(of, columns.previews if previews_only else columns.images, 0)
    return _rate(evidence, evidence.jobs.instant("done"), made, 60, "previews" if previews_only else "images")


def jobs_per_minute(evidence: Evidence, of: Flags | bool = True) -> Statistic:
    """Of the chosen jobs how many completed per minute of the run's wall clock."""
    return _rate(evidence, evidence.jobs.instant("done"), evidence.jobs.completed & of, 60, "jobs")


def lengths_with_failures(jobs: Jobs, metric: str, only: Flags | None = None) -> Lengths:
    """A job without success took longer than any limit; one whose end is unknown counts as longer, too.

    A completed job of unknown duration is in neither; one that was cut off is not a failure, and one that failed by a
    fault of our own machine is left out.
    """
    columns, seconds = jobs.counted, jobs.metric(metric)
    failed = ~columns.completed & ~columns.censored
    known = (failed | ~np.isnan(seconds)) & ~columns.ours & (True if only is None else only)
    return Lengths(seconds=np.nan_to_num(seconds), cut=columns.censored, failed=failed).chosen(known)


def _with_failures(evidence: Evidence) -> dict[str, Statistic]:
    lengths, overload = lengths_with_failures(evidence.jobs, "latency"), evidence.overload
    if overload is not None and not overload.censored:
        overload = None  # dropped arrivals are in it, as infinite
    return _statistics(lengths, list(PERCENTILES), "jobs offered", overload, evidence.queue)


def _books(evidence: Evidence) -> dict[str, Statistic]:
    """A book takes until its last page is done. It is complete if all its pages are, and cut off if one page was."""
    arrivals = evidence.arrivals
    if arrivals.pages == 1:
        units = {"book_success_rate": "1", "books_per_hour": "books/h"}
        units |= {f"{name}_book_latency_s": "s" for name in _BOOK_SHOWN}
        return {name: _withheld("no books: an arrival is one job", 0, "none", unit) for name, unit in units.items()}
    cut, completed = arrivals.censored, arrivals.completed
    out = {
        "book_success_rate": _completed(books_failed(arrivals), "books whose end is known"),
        "books_per_hour": _rate(evidence, arrivals.done, completed, 3600, "books"),
    }
    seconds = arrivals.done - arrivals.due
    known = (completed | cut) & ~np.isnan(seconds)
    lengths = Lengths(seconds=seconds[known], cut=cut[known], failed=np.zeros(int(known.sum()), np.bool_))
    queue = evidence.queue.of_books(arrivals.pages)
    shown = _statistics(lengths, _BOOK_SHOWN, "completed books", evidence.overload, queue)
    return out | {f"{name}_book_latency_s": statistic for name, statistic in shown.items()}


def _statistics(
    lengths: Lengths, shown: Sequence[str], what: str, overload: Overload | None, queue: Queue
) -> dict[str, Statistic]:
    out = {}
    if "avg" in shown:
        out["avg"] = mean(lengths.seconds, what=what, queue=queue)
        if lengths.cut.any():
            out["avg"] = _withheld("censored: the mean is not identifiable", len(lengths.seconds), "mean")
    percentiles = [name for name in shown if name in PERCENTILES]
    found = censored_percentiles(lengths, [PERCENTILES[name] for name in percentiles], what, queue)
    for name, statistic in zip(percentiles, found, strict=True):
        reason = "" if overload is None or statistic.value is None else overload.withholds(name)
        finite = statistic.value is not None and statistic.value < np.inf
        out[name] = _withheld(reason, statistic.n, statistic.method) if reason and finite else statistic
    return {name: out[name] for name in shown}


def _rate(evidence: Evidence, ends: Floats, made: Flags | NDArray[np.uint32], per_s: float, what: str) -> Statistic:
    """What was made, over the counted window, with the interval of a renewal-reward rate. `ends` ascend, NaN last.

    A gap is the time from one end that made something to the next; the first counts from the window's start, the last
    to its end. So the gaps sum to the window, the rate is the plain quotient, and its n is the ends that made it.
    """
    method, unit = "renewal reward", f"{what}/{'min' if per_s == 60 else 'h'}"
    ended = ~np.isnan(ends)
    good = ended & (made > 0)
    n = int(good.sum())
    if evidence.manifest.resumed:
        return _withheld(GAP, n, method, unit)
    if evidence.wall_clock_s is None or n == 0:
        reason = _MAKERS[what][1] if evidence.jobs.completed.any() else "no job completed"
        return _withheld(reason, 0, method, unit)
    last, gaps = float(ends[int(ended.sum()) - 1]), ends[good]
    rest = last - float(gaps[-1])
    gaps[1:] -= gaps[:-1].copy()
    gaps[0] -= float(evidence.jobs.instant("due").min())
    gaps[-1] += rest
    return rate(made[good], gaps, per_s=per_s, unit=unit, what=_MAKERS[what][0], queue=evidence.queue)


_MAKERS = {
    "images": ("jobs with images", "no new image was saved"),
    "previews": ("jobs with previews", "no new preview was made"),
    "jobs": ("completed jobs", "no job completed"),
    "books": ("complete books", "no book is complete"),
}
"""What ends bring each thing, and why there is no rate where none did."""


def _withheld(reason: str, n: int, method: str, unit: str = "s") -> Statistic:
    return Statistic(value=None, n=n, unit=unit, method=method, reason=reason)
