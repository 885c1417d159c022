"""`capacity` and `policy`: what kept runs say of other loads, and of retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from comfyload.advise.forecast import Forecast, Sizing, Validation, forecast, forecasts, size, validate
from comfyload.advise.pools import Pools, Workload, pools_of
from comfyload.advise.queueing import Dispatch
from comfyload.advise.synthesis import Capabilities, synthesise
from comfyload.app.results import find
from comfyload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comfyload.judge.summary import Measured
    from comfyload.retry.policy import Policy

__all__ = ["Ahead", "Basis", "ahead", "basis", "policy", "validated"]

SEED = 20_240_601
"""The same runs give the same advice."""

DISPATCHES: tuple[Dispatch, ...] = ("affinity", "shortest_queue", "round_robin")
LOADS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TRANSIENT = ("execution_error", "oom", "connect", "submit_unknown", "server_error", "lost")
"""Kinds of failure that may pass; of which of them a job tells again, the retrying client learns."""


class Basis(Struct, frozen=True, kw_only=True):
    """What advice rests on: service times by cause, what is asked for, and how many jobs failed of how many.

    `doubts`: sentences on what the runs cannot tell.
    """

    pools: Pools
    workload: Workload
    transient: tuple[int, int]
    doubts: list[str]


class Ahead(Struct, frozen=True, kw_only=True):
    """What to expect. `rows`: at the asked rate by number of servers, or of a given number by rate; `dispatches`: the
    ways to share jobs out among several servers, at the same load; `sizing` None: the number of servers was given.
    """

    rows: list[Forecast]
    dispatches: list[Forecast]
    sizing: Sizing | None
    capacity_per_s: float


def basis(target: str, archive: Path, shares: Sequence[str] = ()) -> Basis:
    """The runs behind a name or path; `shares`, NAME=WEIGHT: how often each workflow will be asked for.

    Raises:
        UsageError: nothing in them tells how long jobs take, or a share names no workflow of theirs.
    """
    found = find(target, archive)
    runs = [run for run in found.runs if not run.jobs.overlaps()]
    if not runs:
        raise UsageError(
            f"{target}: jobs executed side by side in every run", "the queue of one server is no model of this one"
        )
    doubts = [] if len(runs) == len(found.runs) else [f"{len(found.runs) - len(runs)} runs had jobs side by side."]
    try:
        pools = pools_of(runs)
    except ValueError as error:
        raise UsageError(f"{target}: {error}", "keep a run whose jobs complete") from None
    doubts += [f"{run.path}: {f.text}" for run in runs for f in run.summary.findings if f.level == "invalid"]
    if pools.made_up:
        names = ", ".join(pools.made_up)
        doubts.append(
            f"What {names} takes after another workflow was not measured: run them together with --order aabb."
        )
    if pools.n < 30:
        doubts.append(f"It rests on {pools.n} jobs: 40 and more make a forecast that is good to a few per cent.")
    return Basis(
        pools=pools, workload=Workload(shares=_shares(pools, runs, shares)), transient=_transient(runs), doubts=doubts
    )


def ahead(
    on: Basis, *, rate_per_s: float | None, limit_s: float, servers: int | None, dispatch: Dispatch = "affinity"
) -> Ahead:
    """Expect: at a rate, how many servers it takes; without one, what so many servers do at several loads."""
    per_s = 1 / on.pools.mean_s(on.workload)
    rng = np.random.default_rng(SEED)
    sizing = None
    if rate_per_s is not None and servers is None:
        sizing = size(on.pools, on.workload, rate_per_s=rate_per_s, limit_s=limit_s, dispatch=dispatch, rng=rng)
        rows, count = sizing.rows, sizing.with_spare or sizing.enough or 1
    else:
        count = servers or 1
        rates = [share * per_s * count for share in LOADS] if rate_per_s is None else [rate_per_s]
        rows = forecasts(
            on.pools,
            on.workload,
            rates_per_s=rates,
            servers=[count] if rate_per_s is None or count == 1 else [count - 1, count],
            dispatch=dispatch,
            deadline_s=limit_s,
            rng=rng,
        )
    others = []
    if count > 1:
        at = rate_per_s if rate_per_s is not None else 0.7 * per_s * count
        others = [
            forecast(
                on.pools,
                on.workload,
                rate_per_s=at,
                servers=count,
                dispatch=way,
                deadline_s=limit_s,
                rng=np.random.default_rng(SEED),
            )
            for way in DISPATCHES
        ]
    return Ahead(rows=list(rows), dispatches=others, sizing=sizing, capacity_per_s=per_s)


def validated(on: Basis, run: str, archive: Path) -> list[tuple[str, Validation]]:
    """Each run behind a name or path against the forecast."""
    rng = np.random.default_rng(SEED)
    return [(found.path, validate(found, on.pools, rng=rng)) for found in find(run, archive).runs]


def policy(
    on: Basis,
    *,
    deadline_s: float,
    target: float,
    rate_per_s: float | None,
    servers: int,
    outages_s: Sequence[float] = (),
    depth_known: bool = True,
) -> Policy:
    """The retry policy for a deadline. Without a rate it is tried at 0.6 of what the servers can do."""
    rate = rate_per_s if rate_per_s is not None else 0.6 * servers / on.pools.mean_s(on.workload)
    return synthesise(
        on.pools,
        on.workload,
        deadline_s=deadline_s,
        target=target,
        rate_per_s=rate,
        servers=servers,
        transient=on.transient,
        outages=list(outages_s),
        capabilities=Capabilities(depth=depth_known),
        rng=np.random.default_rng(SEED),
    )


def _shares(pools: Pools, runs: Sequence[Measured], asked: Sequence[str]) -> list[float]:
    named: dict[str, float] = {}
    for text in asked:
        name, _, weight = text.rpartition("=")
        if name not in pools.workflows or not weight.replace(".", "", 1).isdigit() or float(weight) <= 0:
            known = ", ".join(pools.workflows)
            raise UsageError(f"--share {text!r} is none", f"write NAME=WEIGHT, NAME one of {known}")
        named[name] = float(weight)
    if named:
        return [named.get(name, 0.0) or 1e-9 for name in pools.workflows]
    jobs = dict.fromkeys(pools.workflows, 0)
    for run in runs:
        for name, row in run.summary.workflows.items():
            jobs[name] = jobs.get(name, 0) + row.jobs
    return [max(1.0, float(jobs[name])) for name in pools.workflows]


def _transient(runs: Sequence[Measured]) -> tuple[int, int]:
    failed = sum(row.count for run in runs for row in run.summary.failures if row.kind in TRANSIENT)
    return failed, sum(run.jobs.n for run in runs)
