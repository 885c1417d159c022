"""Runs whose truth is known, as the judge sees them: arrivals, services and one queue, made from arrays."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from comfyload.judge.arrays import Floats
from comfyload.judge.arrivals import arrivals_of, rates
from comfyload.judge.columns.fold import Fold
from comfyload.judge.columns.jobs import Columns, Jobs
from comfyload.judge.estimates import Evidence, duration, images_per_minute, success_rate
from comfyload.judge.findings.stability import dependence
from comfyload.judge.queue import queue_of
from comfyload.judge.statistics.queue import ALONE
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured, Summary, summarise
from comfyload.record.plan import Arrivals, Closed, Load, Open, Plan, Stage
from tests.error_rates.laws import Law
from tests.unit.judge_runs import manifest, one_by_one

Flags = NDArray[np.bool_]


class Times(Struct, frozen=True, kw_only=True):
    """When jobs of one run were due, started and ended, in seconds, in the order of submission."""

    load: Load
    due: Floats
    start: Floats
    end: Floats


class Truth(Struct, frozen=True, kw_only=True):
    """What is true of a load for ever, by the names of the summary."""

    values: dict[str, float]


def closed(law: Law, concurrency: int, jobs: int, rng: np.random.Generator) -> Times:
    """So many users before one server that runs a job at a time; the first ones all come at once."""
    end = np.cumsum(law.draw(rng, jobs))
    start = np.concatenate(([0.0], end[:-1]))
    due = np.concatenate((np.zeros(concurrency), end))[:jobs]
    return Times(load=Closed(concurrency=concurrency), due=due, start=start, end=end)


def opened(law: Law, rho: float, jobs: int, rng: np.random.Generator, arrivals: Arrivals = "poisson") -> Times:
    """Arrivals at that utilisation of one server, which is idle at first."""
    per_s = rho / law.mean
    due = np.cumsum(_gaps(arrivals, per_s, jobs, rng))
    service = law.draw(rng, jobs)
    end = np.empty(jobs)
    free = 0.0
    for at, (came, takes) in enumerate(zip(due.tolist(), service.tolist(), strict=True)):
        free = max(free, came) + takes
        end[at] = free
    return Times(load=Open(stages=[Stage(per_s=per_s)], arrivals=arrivals), due=due, start=end - service, end=end)


def _gaps(arrivals: Arrivals, per_s: float, n: int, rng: np.random.Generator) -> Floats:
    return rng.exponential(1 / per_s, n) if arrivals == "poisson" else np.full(n, 1 / per_s)


def waits(
    law: Law, rho: float, jobs: int, rng: np.random.Generator, arrivals: Arrivals = "poisson"
) -> tuple[Floats, Floats]:
    """Latencies and waits in the steady state of many such queues side by side."""
    queues, first = 200, 2000
    wait, found, takes = np.zeros(queues), [], []
    for at in range(first + jobs // queues):
        service = law.draw(rng, queues)
        if at >= first:
            found.append(wait)
            takes.append(service)
        wait = np.maximum(wait + service - _gaps(arrivals, rho / law.mean, queues, rng), 0.0)
    every = np.concatenate(found)
    return every + np.concatenate(takes), every


@cache
def truth_of_closed(law: Law, concurrency: int) -> Truth:
    rng = np.random.default_rng(concurrency)
    latency = law.draw(rng, (400_000, concurrency)).sum(axis=1)
    return Truth(
        values={
            "avg_latency_s": concurrency * law.mean,
            "p50_latency_s": float(np.quantile(latency, 0.5)),
            "p95_latency_s": float(np.quantile(latency, 0.95)),
            "images_per_minute": 60 / law.mean,
        }
    )


@cache
def truth_of_open(law: Law, rho: float, arrivals: Arrivals = "poisson") -> Truth:
    latency, wait = waits(law, rho, 2_000_000, np.random.default_rng(7), arrivals)
    return Truth(
        values={
            "avg_latency_s": float(latency.mean()),
            "avg_queue_wait_s": float(wait.mean()),
            "p50_latency_s": float(np.quantile(latency, 0.5)),
            "p95_latency_s": float(np.quantile(latency, 0.95)),
            "images_per_minute": 60 * rho / law.mean,
        }
    )


def measured(times: Times, failed: Flags | None = None) -> Measured:
    """The run as the judge sees it, with the statistics that the tables here are about."""
    jobs = _jobs(times, np.zeros(len(times.due), np.bool_) if failed is None else failed)
    plan = Plan(load=times.load, jobs=jobs.n)
    of_run = manifest(plan=plan)
    fold = Fold(of_run.workflows)
    fold.ledger.counted = Counter(completed=int(jobs.completed.sum()), failed=int((~jobs.completed).sum()))
    arrivals = arrivals_of(jobs, 1)
    wall_clock_s = float(times.end.max() - times.due.min())
    made = rates(of_run, arrivals, wall_clock_s)
    evidence = Evidence(
        manifest=of_run,
        fold=fold,
        jobs=jobs,
        arrivals=arrivals,
        rates=made,
        overload=None,
        queue=queue_of(plan, jobs, arrivals, made),
        wall_clock_s=wall_clock_s,
    )
    summary = structs.replace(
        _template(),
        statistics=_statistics(evidence),
        findings=list(dependence(jobs.known("latency"), plan.concurrency == 1)),
        summary={"total_jobs": jobs.n, "completed": int(jobs.completed.sum())},
    )
    return Measured(path="", manifest=of_run, summary=summary, jobs=jobs, queue=evidence.queue)


def shares(failed: Flags) -> Measured:
    """A run of which only the order of its failures matters."""
    n = len(failed)
    at = np.arange(float(n))
    jobs = _jobs(Times(load=Closed(), due=at, start=at, end=at + 1), failed)
    summary = structs.replace(_template(), statistics={"success_rate": success_rate(jobs, "jobs offered")})
    return Measured(path="", manifest=manifest(n), summary=summary, jobs=jobs, queue=ALONE)


def _statistics(evidence: Evidence) -> dict[str, Statistic]:
    out = {"images_per_minute": images_per_minute(evidence, np.ones(evidence.jobs.n, np.bool_))}
    for metric, shown in (("latency", ("avg", "p50", "p95")), ("queue_wait", ("avg",))):
        for name, statistic in duration(evidence, metric, shown).items():
            out[f"{name}_{metric}_s"] = statistic
    return out


@cache
def _template() -> Summary:
    return structs.replace(summarise(manifest(12), one_by_one([10.0] * 12)), findings=[])


def _jobs(times: Times, failed: Flags) -> Jobs:
    order = np.argsort(times.end, kind="stable")
    due, start, end = times.due[order], times.start[order], times.end[order]
    none, failed = np.zeros(len(due), np.bool_), failed[order]
    instants = {"due": due, "sent": due, "acknowledged": due, "done": end}
    instants |= {"create_ms": 1000 * due, "start_ms": 1000 * start, "end_ms": 1000 * end}
    columns = Columns(
        instants=instants,  # type: ignore[arg-type]
        images=np.where(failed, 0, 1).astype(np.uint32),
        previews=np.zeros(len(due), np.uint32),
        book=np.full(len(due), -1),
        completed=~failed,
        censored=none,
        dropped=none,
        cache=np.zeros(len(due), np.uint8),
        retried=none,
        ours=none,
        workflow=np.zeros(len(due), np.uint16),
        server=np.zeros(len(due), np.uint16),
    )
    return Jobs(columns, counted=len(due))
