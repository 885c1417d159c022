"""Whether the load of the plan is the load that was made, and what cut it short."""

import math
from collections.abc import Iterator

import numpy as np

from comfyload.judge.arrivals import planned_in
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding
from comfyload.judge.overload import SATURATED, Overload
from comfyload.record.plan import Closed, Open, Replay
from comfyload.words import digits, duration

_APART = 0.1
"""A rate is missed when it is more than this share off."""


def load_findings(evidence: Evidence) -> Iterator[Finding]:
    """Every doubt about the load, the gravest first."""
    yield from _dropped(evidence)
    yield from _held_back(evidence)
    yield from _overload(evidence)
    yield from _due(evidence)
    yield from _sent(evidence)
    yield from _censored(evidence)
    yield from _one_shard(evidence)
    if evidence.manifest.resumed:
        times = len(evidence.manifest.resumed)
        often = "once" if times == 1 else f"{times} times"
        away = _away_s(evidence)
        gap = "" if away is None else f" of {duration(away)}"
        text = f"The run died and was resumed {often}: its wall clock has a gap{gap}, whose jobs were not made up for."
        text += " Rates are withheld."
        yield finding("resumed", text, {"count": times, "at_s": evidence.manifest.resumed, "away_s": away})


def _away_s(evidence: Evidence) -> float | None:
    """How long no process was there, at most: from the last line of each to the next one's first; None: not known."""
    known = np.sort(np.concatenate([evidence.jobs.instant("due"), evidence.jobs.instant("done")]))
    known = known[~np.isnan(known)]
    before = np.searchsorted(known, evidence.manifest.resumed) - 1
    if not len(known) or before.min() < 0:
        return None
    return float(np.sum(np.array(evidence.manifest.resumed) - known[before]))


def _one_shard(evidence: Evidence) -> Iterator[Finding]:
    """A shard that is read alone: its latencies are of the whole load, its rates are its own."""
    manifest = evidence.manifest
    if isinstance(manifest.shard, str) and not isinstance(manifest.shards, int):
        text = (
            f"This is shard {manifest.shard}: of the plan's arrivals {100 * manifest.part.fraction:.3g} %. The server "
        )
        text += "had the others' as well, and rates here are this shard's."
        yield finding("one_shard", text, {"shard": manifest.shard})


def _dropped(evidence: Evidence) -> Iterator[Finding]:
    arrivals, plan = evidence.arrivals, evidence.manifest.plan
    dropped, n = int(arrivals.dropped.sum()), len(arrivals.dropped)
    if not dropped:
        return
    why = "the run was stopped while they waited for a place"
    if not isinstance(plan.load, Closed) and plan.load.on_full != "wait":
        places, most = plan.load.max_in_flight, plan.max_server_queue
        full = [] if places is None else [f"overload: all {places} places were taken"]
        full += [] if most is None else [f"the server's queue held {most} prompts or more (--max-server-queue)"]
        why = f"{' or '.join(full)} when they were due"
    yield finding(
        "dropped_arrivals",
        f"{dropped} of {n} {arrivals.unit}s were never sent: {why}.",
        {"dropped": dropped, "offered": n, "share": dropped / n, **_rates(evidence)},
    )


def _held_back(evidence: Evidence) -> Iterator[Finding]:
    """Jobs that waited on our side for a shorter queue of the server: that wait is not the server's latency."""
    held, n = evidence.fold.held, evidence.jobs.n
    sent = held.jobs - held.dropped
    if not sent:
        return
    mean, most = held.total_s / held.jobs, evidence.manifest.plan.max_server_queue
    yield finding(
        "held_back",
        f"{held.jobs} of {n} jobs were held back on our side, {mean:.3g} s on average and {held.longest_s:.3g} s "
        f"at most, while the server's queue held {most} prompts or more (--max-server-queue). `latency` counts that "
        "wait, which is not the server's; `latency_sent` does not. Rates are those of a client that steps back.",
        {"count": held.jobs, "of": n, "mean_s": mean, "longest_s": held.longest_s, "limit": most},
    )


def _overload(evidence: Evidence) -> Iterator[Finding]:
    """What `Overload` found, in jobs per minute: the server does not know of books."""
    found = evidence.overload
    if found is None:
        return
    pages = evidence.arrivals.pages
    offered = 60 * pages * found.offered_per_s
    capacity = None if found.capacity_per_s is None else 60 * pages * found.capacity_per_s
    growth = None if found.growth_per_s is None else 60 * pages * found.growth_per_s
    usual = " on average" if found.utilisation is not None and found.utilisation <= SATURATED else ""
    than = "" if capacity is None else f" where the server can do {digits(capacity)}"
    text = f"Overload: {digits(offered)} jobs a minute were offered{usual}{than}."
    if growth is not None and found.grew:
        text += f" The number in the system grew by {digits(growth)} a minute."
    text += f" {_meaning(found)}"
    most = "" if capacity is None else f"{digits(0.8 * capacity)} jobs a minute, 80 % of what the server can do"
    yield finding(
        "overload",
        text,
        {
            "offered_jobs_per_minute": offered,
            "capacity_jobs_per_minute": capacity,
            "utilisation": found.utilisation,
            "growth_jobs_per_minute": growth,
            "grew": found.grew,
        },
        fields={"most": most} if most else {},
    )


def _meaning(found: Overload) -> str:
    if found.censored:
        return "The jobs cut off last would have waited longest: no percentile can be known."
    if found.dropped:
        return "The latencies are those of the arrivals that found a place."
    if found.grew:
        return "There is no steady state: latencies grew through the run, and depend on how long it lasted."
    return "There is no steady state: in a longer run, latencies would have grown."


def _due(evidence: Evidence) -> Iterator[Finding]:
    """Whether as many came due as the plan has in that time: by 10 %, and by three deviations where chance decides.

    Only for runs whose manifest lacks the number of scheduled arrivals: with it, the ledger compares exactly.
    """
    manifest, due = evidence.manifest, evidence.arrivals.due
    load = manifest.plan.load
    if not isinstance(load, Open) or len(due) < 10 or manifest.resumed or manifest.scheduled is not None:
        return
    began = float(due.min()) if manifest.counted_from is None else manifest.counted_from
    expected = planned_in(load, float(due.max()) - began) + (load.arrivals == "constant")
    expected *= manifest.part.fraction
    cv = {"constant": 0.0, "poisson": 1.0, "gamma": load.cv}[load.arrivals]
    if abs(len(due) - expected) > max(_APART * expected, 3 * cv * math.sqrt(expected), 2.0):
        yield _missed(evidence, f"{len(due)} {evidence.arrivals.unit}s came due where the plan has {expected:.0f}.")


def _sent(evidence: Evidence) -> Iterator[Finding]:
    """Whether arrivals were sent as fast as they came due. Dropped ones have a finding of their own."""
    rates, arrivals, load = evidence.rates, evidence.arrivals, evidence.manifest.plan.load
    if not isinstance(load, Open | Replay) or arrivals.dropped.any() or len(arrivals.due) < 10:
        return
    if isinstance(load, Replay) and load.as_it_came:
        return  # when a job is sent is the gateway's choice
    if rates.offered is None or rates.sent is None or abs(rates.sent / rates.offered - 1) <= _APART:
        return
    why = "The generator was held up."
    busy = arrivals.done - arrivals.sent
    busy = busy[~np.isnan(busy)]
    if evidence.fold.held.jobs:
        why = "Jobs were held back while the server's queue was full (--max-server-queue)."
    elif load.max_in_flight is not None and load.on_full == "wait" and len(busy) and float(busy.mean()) > 0:
        carry = f"{load.max_in_flight} places carry {digits(60 * load.max_in_flight / float(busy.mean()))} a minute"
        why = f"{carry} at these latencies; the others waited for one."
    yield _missed(evidence, "", why)


def _missed(evidence: Evidence, what: str, why: str = "The files were cut, or are a part of a run.") -> Finding:
    unit = evidence.arrivals.unit
    known = zip(("planned", "due", "sent", "completed"), _rates(evidence).values(), strict=True)
    each = ", ".join(f"{digits(rate)} {name}" for name, rate in known if rate is not None)
    return finding("rate_missed", f"{what} {unit.capitalize()}s a minute: {each}. {why}".strip(), _rates(evidence))


def _rates(evidence: Evidence) -> dict[str, float | None]:
    rates = evidence.rates
    return {
        "asked_per_minute": rates.planned,
        "offered_per_minute": rates.offered,
        "sent_per_minute": rates.sent,
        "completed_per_minute": rates.completed,
    }


def _censored(evidence: Evidence) -> Iterator[Finding]:
    cut, jobs = evidence.fold.ledger.censored, evidence.jobs
    if not cut:
        return
    waited = jobs.metric("latency")[jobs.counted.censored]
    longest, done = float(np.nanmax(waited)) if not np.isnan(waited).all() else 0.0, jobs.known("latency")
    beyond = " and one of them had taken longer than any that completed" if len(done) and longest > done.max() else ""
    one = cut == 1
    yield finding(
        "censored_jobs",
        f"{cut} of {jobs.n} jobs {'was' if one else 'were'} cut off by the end of the run{beyond}. They count as "
        "no failures; percentiles of latency count each as longer than it was observed for (product limit).",
        {"count": cut, "of": jobs.n, "longest_seen_s": longest},
    )
