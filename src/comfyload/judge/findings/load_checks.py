"""Whether the load that was asked for is the load that was made, and what cut it short."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from comfyload.judge.arrivals import asked_in
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding
from comfyload.judge.overload import SATURATED, Overload
from comfyload.record.plan import Closed, Open, Plan, Replay

__all__ = ["load_findings"]

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
    if evidence.manifest.resumed:
        times = len(evidence.manifest.resumed)
        yield Finding(
            code="resumed",
            level="warning",
            text=f"The run died and was taken up again {_times(times)}: its wall clock has a gap; rates are withheld.",
            evidence={"count": times, "at_s": evidence.manifest.resumed},
            hint="Run again in one piece for a rate.",
        )


def _dropped(evidence: Evidence) -> Iterator[Finding]:
    arrivals, plan = evidence.arrivals, evidence.manifest.plan
    dropped, n = int(arrivals.dropped.sum()), len(arrivals.dropped)
    if not dropped:
        return
    stopped = isinstance(plan.load, Closed) or plan.load.on_full == "wait"
    why = "the run was stopped while they waited for a place"
    hint = "Offer less, or give more places: latencies are those of the arrivals that found one."
    if not stopped:
        why = f"{' or '.join(_full(plan))} when they were due"
    yield Finding(
        code="dropped_arrivals",
        level="invalid",
        text=f"{dropped} of {n} {arrivals.unit}s were never sent: {why}.",
        evidence={"dropped": dropped, "offered": n, "share": dropped / n, **_rates(evidence)},
        hint="Let the run end by itself." if stopped else hint,
    )


def _full(plan: Plan) -> Iterator[str]:
    """What may have been full."""
    if (places := getattr(plan.load, "max_in_flight", None)) is not None:
        yield f"overload: all {places} places were taken"
    if plan.max_server_queue is not None:
        yield f"the server's queue held {plan.max_server_queue} prompts or more (--max-server-queue)"


def _held_back(evidence: Evidence) -> Iterator[Finding]:
    """Jobs that waited on our side for the server's queue to become shorter: that wait is no latency of the server."""
    held, n = evidence.fold.held, evidence.jobs.n
    sent = held.jobs - held.dropped
    if not sent:
        return
    mean, most = held.total_s / held.jobs, evidence.manifest.plan.max_server_queue
    yield Finding(
        code="held_back",
        level="warning",
        text=f"{held.jobs} of {n} jobs were held back on our side, {mean:.3g} s on average and {held.longest_s:.3g} s "
        f"at most, while the server's queue held {most} prompts or more (--max-server-queue). `latency` counts that "
        "wait, which is not the server's; `latency_sent` does not. Rates are those of a client that steps back.",
        evidence={"count": held.jobs, "of": n, "mean_s": mean, "longest_s": held.longest_s, "limit": most},
        hint="To learn what the server can do, have it to yourself and leave --max-server-queue out.",
    )


def _overload(evidence: Evidence) -> Iterator[Finding]:
    """What `Overload` found, in jobs per minute, as ComfyUI knows no books."""
    found = evidence.overload
    if found is None:
        return
    pages = evidence.arrivals.pages
    offered = 60 * pages * found.offered_per_s
    capacity = None if found.capacity_per_s is None else 60 * pages * found.capacity_per_s
    growth = None if found.growth_per_s is None else 60 * pages * found.growth_per_s
    usual = " on average" if found.utilisation is not None and found.utilisation <= SATURATED else ""
    than = "" if capacity is None else f" where the server can do {capacity:.3g}"
    text = f"Overload: {offered:.3g} jobs a minute were offered{usual}{than}."
    if growth is not None and found.grew:
        text += f" The number in the system grew by {growth:.3g} a minute."
    text += f" {_meaning(found)}"
    yield Finding(
        code="overload",
        level="invalid",
        text=text,
        evidence={
            "offered_jobs_per_minute": offered,
            "capacity_jobs_per_minute": capacity,
            "utilisation": found.utilisation,
            "growth_jobs_per_minute": growth,
            "grew": found.grew,
        },
        hint="Offer less." if capacity is None else f"Offer less: {0.8 * capacity:.3g} a minute is 80 % of capacity.",
    )


def _meaning(found: Overload) -> str:
    if found.censored:
        return "Those cut off last would have waited longest: no percentile can be known."
    if found.dropped:
        return "The latencies are of those that found a place."
    if found.grew:
        return "There is no steady state: latencies grew through the run, and depend on how long it lasted."
    return "There is no steady state: in a longer run, latencies would have grown."


def _due(evidence: Evidence) -> Iterator[Finding]:
    """Whether as many came due as the plan has in that time: by 10 %, and by three deviations where chance decides.

    Only for runs that do not say how many arrivals their schedule had: where they do, the ledger compares exactly.
    """
    manifest, due = evidence.manifest, evidence.arrivals.due
    load = manifest.plan.load
    if not isinstance(load, Open) or len(due) < 10 or manifest.resumed or manifest.scheduled is not None:
        return
    began = float(due.min()) if manifest.counted_from is None else manifest.counted_from
    expected = asked_in(load, float(due.max()) - began) + (load.arrivals == "constant")
    cv = {"constant": 0.0, "poisson": 1.0, "gamma": load.cv}[load.arrivals]
    if abs(len(due) - expected) > max(_APART * expected, 3 * cv * math.sqrt(expected), 2.0):
        yield _missed(evidence, f"{len(due)} {evidence.arrivals.unit}s came due where the plan has {expected:.0f}.")


def _sent(evidence: Evidence) -> Iterator[Finding]:
    """Whether arrivals left as fast as they came due. Those that were dropped have a finding of their own."""
    rates, arrivals, load = evidence.rates, evidence.arrivals, evidence.manifest.plan.load
    if not isinstance(load, Open | Replay) or arrivals.dropped.any() or len(arrivals.due) < 10:
        return
    if rates.offered is None or rates.sent is None or abs(rates.sent / rates.offered - 1) <= _APART:
        return
    hint = "The generator was held up: read the self-check."
    busy = arrivals.done - arrivals.sent
    busy = busy[~np.isnan(busy)]
    if evidence.fold.held.jobs:
        hint = "Jobs were held back while the server's queue was full, as --max-server-queue asks."
    elif load.max_in_flight is not None and load.on_full == "wait" and len(busy) and float(busy.mean()) > 0:
        carry = 60 * load.max_in_flight / float(busy.mean())
        hint = f"{load.max_in_flight} places carry {carry:.3g} a minute at the latencies seen; the rest waited for one."
    yield _missed(evidence, "", hint)


def _missed(evidence: Evidence, what: str, hint: str = "The files were cut, or are a part of a run.") -> Finding:
    rates, unit = evidence.rates, evidence.arrivals.unit
    known = {"asked": rates.asked, "due": rates.offered, "sent": rates.sent, "completed": rates.completed}
    each = ", ".join(f"{rate:.3g} {name}" for name, rate in known.items() if rate is not None)
    text = f"{what} {unit.capitalize()}s a minute: {each}.".strip()
    return Finding(code="rate_missed", level="invalid", text=text, evidence=_rates(evidence), hint=hint)


def _rates(evidence: Evidence) -> dict[str, float | None]:
    rates = evidence.rates
    return {f"{name}_per_minute": getattr(rates, name) for name in rates.__struct_fields__}


def _censored(evidence: Evidence) -> Iterator[Finding]:
    cut, jobs = evidence.fold.ledger.censored, evidence.jobs
    if not cut:
        return
    waited = jobs.metric("latency")[jobs.counted.censored]
    longest, done = float(np.nanmax(waited)) if not np.isnan(waited).all() else 0.0, jobs.known("latency")
    beyond = " and one of them had taken longer than any that completed" if len(done) and longest > done.max() else ""
    one = cut == 1
    yield Finding(
        code="censored_jobs",
        level="warning",
        text=f"{cut} of {jobs.n} jobs {'was' if one else 'were'} cut off by the end of the run{beyond}. They count as "
        "no failures; percentiles of latency take each for longer than what was seen of it (product limit).",
        evidence={"count": cut, "of": jobs.n, "longest_seen_s": longest},
        hint="Let the run drain to know them all.",
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
