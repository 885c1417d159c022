"""Whether a run was steady enough for one number to stand for it: our own delay, warm-up, drift, dependence."""

import math
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.arrivals import as_it_came
from comfyload.judge.columns.jobs import CACHE_CLASSES
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding
from comfyload.judge.statistics.dependence import autocorrelation_time, lag_one
from comfyload.judge.statistics.shift import block_means, shift
from comfyload.judge.statistics.stats import quantile
from comfyload.judge.statistics.trend import theil_sen
from comfyload.record.plan import Closed
from comfyload.words import duration

_UNREPORTED_S = 0.001
MANY = 200
"""From so many values on a change is looked for by `shift`, which waves and dependent values mislead less."""


def steadiness_findings(evidence: Evidence) -> Iterator[Finding]:
    """Every doubt about time, the most serious first."""
    yield from _late(evidence)
    check = evidence.manifest.self_check
    if check is not None and check.busy_fraction > 0.8:
        text = f"The generator used {100 * check.busy_fraction:.0f} % of a CPU: it may have limited the rate."
        yield finding("generator_busy", text, {"busy_fraction": check.busy_fraction})
    yield from _polled(evidence)
    yield from _little(evidence)
    yield from _series(evidence)


def _late(evidence: Evidence) -> Iterator[Finding]:
    """Sending late falsifies an open load, whose arrivals are the measurement. In a closed loop, where the time between
    arrivals is an outcome and no yardstick, it adds to the latencies: a rare delay to their tail, a usual one to all.
    There, less than 1 ms is not reported, as the server's own times are whole milliseconds.
    """
    jobs, plan = evidence.jobs, evidence.manifest.plan
    latency, due, closed = jobs.known("latency"), jobs.instant("due"), isinstance(plan.load, Closed)
    lateness = _lateness(evidence)
    if lateness is None or not len(latency):
        return
    worst, usual, longest = lateness
    yardstick, whole = "median latency", quantile(latency, 0.5)
    if not closed and len(due) > plan.pages:
        between = float(due.max() - due.min()) / (len(due) / plan.pages - 1)
        if 0 < between < whole:  # arrivals that are all due at one instant have no time between them
            yardstick, whole = "mean time between arrivals", between
    if worst <= max(0.05 * whole, _UNREPORTED_S if closed else 0.0):
        return
    grave = not closed or usual > 0.05 * whole
    what = "These numbers are" if grave else "The tail of the latencies is"
    yield finding(
        "generator_late",
        f"We sent jobs up to {duration(worst)} late (p99; {duration(usual)} on average), more than 5 % of the "
        f"{yardstick} ({duration(whole)}). {what} partly the generator's.",
        {"p99_late_s": worst, "mean_late_s": usual, "max_late_s": longest, "of_s": whole},
        level="invalid" if grave else "warning",
    )


def _lateness(evidence: Evidence) -> tuple[float, float, float] | None:
    """The p99, mean and maximum of our own delay, in seconds; None if not known.

    Where arrivals wait for a place, or for a retry policy to let them go, sent - due is mostly that wait, and no fault
    of ours: there, it is how late our timers fired, the median for the mean.
    """
    if evidence.manifest.plan.waits or evidence.manifest.retry is not None:
        check = evidence.manifest.self_check
        timers = None if check is None else check.timer_lateness_s
        return None if timers is None else (timers.p99, timers.p50, timers.max)
    late = evidence.jobs.late()
    return (quantile(late, 0.99), float(np.mean(late)), float(late.max())) if len(late) else None


def _polled(evidence: Evidence) -> Iterator[Finding]:
    within, latency = np.array(evidence.fold.polled), evidence.jobs.known("latency")
    if not len(within) or not len(latency):
        return
    worst, median, n = float(within.max()), quantile(latency, 0.5), len(latency)
    share = f" ({100 * worst / median:.1f} % of the median)" if median > 0 else ""
    yield finding(
        "polled_ends",
        f"The ends of {len(within)} of {n} jobs were found by polling: their latency may be up to {duration(worst)} "
        f"too long{share}.",
        {"count": len(within), "of": n, "max_within_s": worst, "mean_within_s": float(within.mean())},
        level="warning" if worst > 0.01 * median else "info",
    )


def _little(evidence: Evidence) -> Iterator[Finding]:
    """Little's law, in arrivals: over the time from the first due to the last, the mean number in flight.

    A closed load of N users has N in flight, less those who think or have not begun: else time was lost on our side.
    An open one of rate X and mean latency R has X * R, unless much was still under way when the last was due.
    """
    load, arrivals = evidence.manifest.plan.load, evidence.arrivals
    here = ~arrivals.dropped
    due, done = arrivals.due[here], arrivals.done[here]
    users = evidence.manifest.part.share(load.concurrency) if isinstance(load, Closed) else 10
    doubtful = bool(np.isnan(done).any()) or bool(arrivals.censored.any()) or evidence.overload is not None
    if len(due) < max(20, 2 * users) or doubtful or evidence.manifest.resumed:
        return
    mean, window = in_flight(due, done), float(due.max() - due.min())
    if mean is None:
        return
    unit, expected = arrivals.unit, float(np.sum(done - due)) / window
    if isinstance(load, Closed):
        idle = load.ramp_up_s * (users - 1) / 2 + load.think_s * (len(due) - users)
        expected = users - idle / window
    if expected <= 0 or abs(mean / expected - 1) <= 0.1:
        return
    if isinstance(load, Closed):
        planned = f"{users}" if not idle else f"{expected:.1f} (of {users}, who start and think)"
        text = f"{mean:.1f} {unit}s were in flight on average where the plan has {planned}."
    else:
        text = f"{mean:.1f} {unit}s were in flight on average, and rate times latency is {expected:.1f}: many were "
        text += "still running when the last was due."
    yield finding("little_law", text, {"in_flight": mean, "expected": expected})


def in_flight(due: Floats, done: Floats) -> float | None:
    """Mean number of arrivals between due and done, from the first to the last due; None for no such time.

    Until the last job is due, every user of a closed loop has one; afterwards they run out of work, which would
    count against a load that did nothing wrong. Over that window it is X * R exactly, not only in the long run.
    """
    end = float(due.max())
    window = end - float(due.min())
    return None if window <= 0 else float(np.sum(np.minimum(done, end) - due)) / window


def _series(evidence: Evidence) -> Iterator[Finding]:
    """Head and drift are looked for in execution times: latencies climb by themselves while a queue fills. Traffic has
    neither: it has no warm-up, and what its jobs take changes with what is wanted.
    """
    plan, jobs = evidence.manifest.plan, evidence.jobs
    alone = plan.concurrency == 1 and plan.pages == 1
    fresh = jobs.cache == CACHE_CLASSES.index("fresh")  # compared with a cache hit, any job looks cold
    fleet = evidence.manifest.fleet
    for place, server in enumerate(fleet) if not as_it_came(plan) else ():
        of_it = fresh & (jobs.counted.server == place) if len(fleet) > 1 else fresh
        latency, execution = jobs.known("latency", of_it), jobs.known("execution", of_it)
        steady = execution if len(execution) >= 0.9 * len(latency) else (latency if alone else latency[:0])
        yield from _steady(steady, plan.warmup, server.name if len(fleet) > 1 else "", len(fleet))
    yield from dependence(jobs.known("latency", fresh), alone)


def _steady(steady: Floats, warmup: int, server: str, servers: int) -> Iterator[Finding]:
    """The head and the drift of one server's times, one of so many."""
    who, named = (f"{server}: the", {"server": server}) if server else ("The", {})
    head = cold_head(steady)
    if head:
        ratio = float(np.median(steady[:head]) / np.median(steady[len(steady) // 2 :]))
        which = f"first {head} jobs took" if head > 1 else "first counted job took"
        slower = f"{100 * abs(ratio - 1):.0f} % {'longer' if ratio > 1 else 'less'}"
        text = f"{who} {which} {slower} than the later median: warm-up was not over."
        enough = warmup + head * servers  # jobs of the warm-up go to all servers
        yield finding("cold_head", text, {"jobs": head, "ratio": ratio, **named}, fields={"warmup": str(enough)})
    found = drifted(steady[head:])
    if found is not None and abs(found.change) > 0.03:
        pace = f"{100 * abs(found.change):.0f} % {'slower' if found.change > 0 else 'faster'}"
        when, after = "from the first to the last", None
        if found.at is not None:
            after = head + round(found.at * len(steady[head:]))
            when = f"after {after} of {len(steady)}"
        text = f"{server}: jobs" if server else "Jobs"
        yield finding("drift", f"{text} became {pace} {when}.", {"change": found.change, "after_jobs": after, **named})


def dependence(latency: Floats, alone: bool) -> Iterator[Finding]:
    """Jobs that queue behind each other depend on each other; one at a time, something else is at work."""
    n, tau = len(latency), autocorrelation_time(latency)
    if n >= 20 and 1 / tau < 0.7 and lag_one(latency) > 2.33 / math.sqrt(n):
        why = "Jobs depend on the ones before them" if alone else "Jobs queue behind each other"
        yield finding(
            "dependent_jobs",
            f"{why}: {n} of them carry the information of {n / tau:.0f} independent ones.",
            {"n": n, "n_eff": n / tau},
            level="warning" if alone else "info",
        )


def cold_head(x: Floats) -> int:
    """How many leading values, at most 10, are unlike the second half: beyond 3.5 robust deviations of its median, and
    beyond all of it (where jobs are of two kinds, the rarer kind is not cold for coming first).

    A deviation is 1.4826 times the median absolute one, but at least 1 % of the median and 1 ms: a server as regular
    as its clock's resolution is not cold for being 1 ms off.
    """
    if len(x) < 8:
        return 0
    half = x[len(x) // 2 :]
    middle = float(np.median(half))
    spread = max(1.4826 * float(np.median(np.abs(half - middle))), 0.01 * middle, 0.001)
    start = x[: min(10, len(x) // 2)]
    unlike = (np.abs(start - middle) > 3.5 * spread) & ((start > half.max()) | (start < half.min()))
    like = np.flatnonzero(~unlike)
    return int(like[0]) if len(like) else len(unlike)


class Drift(Struct, frozen=True, kw_only=True):
    """By which share values changed in all; `at`: the share of them that lie before a step, None: little by little."""

    change: float
    at: float | None = None


def drifted(x: Floats) -> Drift | None:
    """How values of a run changed for good, None if it may be nothing.

    Of few values it is a straight course (Theil-Sen slope), as a share of their median; of many it may be a step, too.
    """
    if len(x) < 20 or float(np.median(x)) <= 0:
        return None
    if len(x) >= MANY and float(x.min()) > 0:
        # By ranks, which neither rare long jobs nor kinds of jobs far apart make uncertain.
        found = shift(block_means(_ranks(x)))
        return None if found is None else Drift(change=_ratio(x, found.at) - 1, at=found.at)
    y = x if len(x) <= MANY else block_means(x)
    t, middle = np.arange(float(len(y))), float(np.median(y))
    slopes = theil_sen(t, y)
    if slopes is not None:
        slopes = theil_sen(t, y, dependence=autocorrelation_time(y - slopes[0] * t))
    if slopes is None or slopes[1] <= 0 <= slopes[2]:
        return None
    return Drift(change=slopes[0] * (len(y) - 1) / middle)


def _ranks(x: Floats) -> Floats:
    """The rank of each value, equal ones sharing theirs."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def _ratio(x: Floats, at: float | None) -> float:
    """The values after a step by those before it, on average over their percentiles from the 5th to the 95th; of a
    straight course, its end by its begin.
    """
    before, after = np.split(x, [round(len(x) * (0.5 if at is None else at))])
    shares = np.linspace(0.05, 0.95, 91)
    ratio = float(np.mean(np.log(np.quantile(after, shares)) - np.log(np.quantile(before, shares))))
    return math.exp(ratio if at is not None else 2 * ratio)
