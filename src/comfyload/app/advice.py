"""`capacity` and `policy`: what measured runs show, and what they predict of other loads."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from msgspec import Struct

from comfyload.advise.forecast import Forecast, forecasts, size
from comfyload.advise.queueing import Dispatch
from comfyload.advise.service_times import ServiceTimes, Workload, pools_of
from comfyload.advise.validation import Validation, validate
from comfyload.app.locate import Target, find
from comfyload.errors import UsageError
from comfyload.judge.summary import Measured
from comfyload.report.advice import Outlook

SEED = 20_240_601
"""The same runs give the same advice."""

DISPATCHES: tuple[Dispatch, ...] = ("affinity", "shortest_queue", "round_robin")
FEW_JOBS = 30
WIDE = 0.2
"""Half of a p95's interval, as a share of it, from which on a sentence says how wide it is."""
USUAL_LOAD = 0.7
LOADS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TRANSIENT = ("execution_error", "oom", "connect", "submit_unknown", "server_error", "lost")
"""Kinds of failure that may pass; the retrying client learns which of them come back."""


class Basis(Struct, frozen=True, kw_only=True):
    """What advice rests on: service times by cause, the future load, and how many jobs failed of how many.

    `doubts`: sentences on what the runs do not show.
    """

    pools: ServiceTimes
    workload: Workload
    transient: tuple[int, int]
    doubts: list[str]

    @property
    def jobs_per_s(self) -> float:
        """The capacity of one server."""
        return 1 / self.pools.mean_s(self.workload)


def basis(target: str, archive: Path, shares: Sequence[str] = ()) -> Basis:
    """The runs behind a name or path; `shares`, NAME=WEIGHT: the share of each workflow in the future load.

    Raises:
        UsageError: they have no service times, or a share names no workflow of theirs.
    """
    return basis_of(find(target, archive), target, shares)


def basis_of(found: Target, target: str, shares: Sequence[str] = ()) -> Basis:
    """As `basis`, of what was found; `target`: what it is called in messages.

    Raises:
        UsageError: the runs have no service times, or a share names no workflow of theirs.
    """
    one_by_one = [run for run in found.runs if run.jobs.servers == 1]
    if not one_by_one:
        hint = "measure one server by itself: its numbers hold for each that is like it"
        raise UsageError(f"{target}: every run is over several servers, whose service times are a mixture", hint)
    runs = [run for run in one_by_one if not run.jobs.overlaps()]
    if not runs:
        raise UsageError(
            f"{target}: jobs executed side by side in every run", "the model of one queue does not fit such a server"
        )
    doubts = [] if len(runs) == len(one_by_one) else [f"{len(one_by_one) - len(runs)} runs had jobs side by side."]
    if len(one_by_one) < len(found.runs):
        doubts.append(f"{len(found.runs) - len(one_by_one)} runs over several servers are left out.")
    try:
        pools = pools_of(runs)
    except ValueError as error:
        raise UsageError(f"{target}: {error}", "keep a run whose jobs complete") from None
    doubts += [f"{run.path}: {f.text}" for run in runs for f in run.summary.findings if f.level == "invalid"]
    known = {facts.name for run in runs for facts in run.manifest.workflows}
    if lacking := sorted(known - set(pools.workflows)):
        doubts.append(f"No job of {', '.join(lacking)} completed: left out.")
    if pools.made_up:
        names = ", ".join(pools.made_up)
        doubts.append(
            f"The time of {names} after another workflow was not measured: run them together with --order aabb."
        )
    if pools.n < FEW_JOBS:
        doubts.append(f"It rests on {pools.n} jobs: no interval covers slow jobs that were not among them.")
    failed = sum(row.count for run in runs for row in run.summary.failures if row.kind in TRANSIENT)
    transient = failed, sum(run.jobs.n for run in runs)
    return Basis(
        pools=pools, workload=Workload(shares=_shares(pools, runs, shares)), transient=transient, doubts=doubts
    )


def ahead(
    on: Basis, *, rate_per_s: float | None, limit_s: float, servers: int | None, dispatch: Dispatch = "affinity"
) -> Outlook:
    """Expect: at a rate, how many servers it takes; without one, what so many servers do at several loads."""
    per_s = on.jobs_per_s
    rng = np.random.default_rng(SEED)
    expect = partial(forecasts, on.pools, on.workload, deadline_s=limit_s)
    sizing = None
    if rate_per_s is not None and servers is None:
        sizing = size(on.pools, on.workload, rate_per_s=rate_per_s, limit_s=limit_s, dispatch=dispatch, rng=rng)
        rows, count = sizing.rows, sizing.with_spare or sizing.enough or 1
    else:
        count = servers or 1
        rates = [share * per_s * count for share in LOADS] if rate_per_s is None else [rate_per_s]
        several = [count] if rate_per_s is None or count == 1 else [count - 1, count]
        rows = expect(rates_per_s=rates, servers=several, dispatch=dispatch, rng=rng)
    at = rate_per_s if rate_per_s is not None else USUAL_LOAD * per_s * count
    others: list[Forecast] = []
    for way in DISPATCHES if count > 1 else ():
        others += expect(rates_per_s=[at], servers=[count], dispatch=way, rng=np.random.default_rng(SEED))
    wanted = [row for row in rows if row.servers == count]
    return Outlook(
        jobs=on.pools.n,
        rows=list(rows),
        dispatches=others,
        sizing=sizing,
        capacity_per_s=per_s,
        limit_s=limit_s,
        doubts=on.doubts + _width(wanted, on.pools.n),
    )


def _width(rows: Sequence[Forecast], jobs: int) -> list[str]:
    """A sentence on the p95 at the given rate, or at the usual load, if its interval is wide."""
    stable = [row for row in rows if row.stable]
    if not stable:
        return []
    row = min(stable, key=lambda row: abs(row.load.estimate - USUAL_LOAD))
    p95 = row.p95_s
    if (p95.high - p95.low) / 2 <= WIDE * p95.estimate:
        return []
    below, above = (100 * abs(end / p95.estimate - 1) for end in (p95.low, p95.high))
    much = f"{above:.0f} % more" if math.isfinite(above) else "any number of times as much"
    return [
        f"At {60 * row.rate_per_s:.3g} a minute the p95 may be {below:.0f} % less or {much} than shown, because it "
        f"rests on {jobs} jobs. Four times as many, {4 * jobs}, halve that interval."
    ]


def validated(on: Basis, run: str, archive: Path) -> dict[str, Validation]:
    """Each run behind a name or path against the forecast.

    Raises:
        UsageError: a run has a workflow that the forecast knows nothing of.
    """
    rng = np.random.default_rng(SEED)
    try:
        return {found.path: validate(found, on.pools, rng=rng) for found in find(run, archive).runs}
    except ValueError as error:
        raise UsageError(f"{run}: {error}", "give --validate a run of the workflows that were measured") from None


def _shares(pools: ServiceTimes, runs: Sequence[Measured], given: Sequence[str]) -> list[float]:
    named: dict[str, float] = {}
    for text in given:
        name, _, weight = text.rpartition("=")
        if name not in pools.workflows or not weight.replace(".", "", 1).isdigit() or float(weight) <= 0:
            known = ", ".join(pools.workflows)
            raise UsageError(f"unknown --share {text!r}", f"write NAME=WEIGHT, NAME one of {known}")
        named[name] = float(weight)
    if named:
        return [named.get(name, 0.0) or 1e-9 for name in pools.workflows]
    jobs = dict.fromkeys(pools.workflows, 0)
    for run in runs:
        for name, row in run.summary.workflows.items():
            jobs[name] = jobs.get(name, 0) + row.jobs
    return [max(1.0, float(jobs[name])) for name in pools.workflows]
