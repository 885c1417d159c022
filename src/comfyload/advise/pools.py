"""Knows how long jobs take, by cause: which workflow, and whether the server had just run another one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.jobs import CACHE_CLASSES, Jobs
from comfyload.judge.summary import Measured
from comfyload.record.plan import Closed

__all__ = ["Pools", "Workload", "pools_of"]

Floats = NDArray[np.float64]
_FEW = 3
"""A cell of fewer values is made up of the warm median and the usual cost of a switch."""


class Workload(Struct, frozen=True, kw_only=True):
    """What is asked of the servers: each workflow's share of the jobs, and the chance that one follows itself beyond
    that.
    """

    shares: list[float]
    stickiness: float = 0.0

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
        """Workflows, in the order of arrival."""
        share = np.asarray(self.shares) / sum(self.shares)
        out = rng.choice(len(share), size=shape, p=share)
        if self.stickiness and len(share) > 1:
            stays = rng.random(shape) < self.stickiness
            stays[:, 0] = False
            place = np.where(stays, 0, np.arange(shape[1]))
            out = np.take_along_axis(out, np.maximum.accumulate(place, axis=1), axis=1)
        return out.astype(np.int64)


class Pools(Struct, frozen=True, kw_only=True):
    """Service times that were measured, in seconds: a job's execution, and the server's usual pause after it.

    `warm[w]`: after a job of the same workflow; `switched[w]`: after another one. `made_up`: of which workflows the
    latter was too seldom seen. `cold`: first after a start. `overhead_s`: what the client adds, between due and done,
    to wait and execution.
    """

    workflows: list[str]
    warm: list[Floats]
    switched: list[Floats]
    made_up: list[str]
    cold: Floats
    overhead_s: float
    gap_s: float

    @property
    def n(self) -> int:
        """Jobs it was made from. Of one workflow there is no switch to see."""
        warm = sum(len(pool) for pool in self.warm)
        if len(self.workflows) == 1:
            return warm
        return warm + sum(
            len(pool) for name, pool in zip(self.workflows, self.switched, strict=True) if name not in self.made_up
        )

    @property
    def switch_cost_s(self) -> float:
        """How much longer a job takes after a switch, by medians; never negative."""
        costs = [
            float(np.median(after) - np.median(warm))
            for warm, after in zip(self.warm, self.switched, strict=True)
            if len(warm) and len(after)
        ]
        return max(0.0, float(np.mean(costs))) if costs else 0.0

    def mean_s(self, workload: Workload) -> float:
        """Mean service time on one server that serves them in the order in which they come."""
        share = np.asarray(workload.shares) / sum(workload.shares)
        total = 0.0
        for of, warm, after in zip(share, self.warm, self.switched, strict=True):
            same = workload.stickiness + (1 - workload.stickiness) * of
            total += of * (same * float(warm.mean()) + (1 - same) * float(after.mean()))
        return float(total)

    def resampled(self, rng: np.random.Generator) -> Pools:
        """Each cell drawn anew from itself, with replacement: one replicate of the bootstrap."""

        def again(pools: Sequence[Floats]) -> list[Floats]:
            return [rng.choice(pool, len(pool)) if len(pool) else pool for pool in pools]

        return Pools(
            workflows=self.workflows,
            warm=again(self.warm),
            switched=again(self.switched),
            made_up=self.made_up,
            cold=self.cold,
            overhead_s=self.overhead_s,
            gap_s=self.gap_s,
        )

    def services(self, workflows: NDArray[np.int64], luck: Floats) -> tuple[Floats, Floats]:
        """What each job would take warm, and after a switch; `luck` in [0, 1) chooses its value in either pool."""
        warm, switched = np.empty(workflows.shape), np.empty(workflows.shape)
        for code in range(len(self.workflows)):
            of_it = workflows == code
            for out, pool in ((warm, self.warm[code]), (switched, self.switched[code])):
                out[of_it] = np.sort(pool)[(luck[of_it] * len(pool)).astype(np.int64)]
        return warm, switched


def pools_of(runs: Sequence[Measured]) -> Pools:
    """Of all runs together: completed jobs that executed, warm-up left out, in the order in which the server ran them.

    Raises:
        ValueError: not one job of some workflow has a known execution time.
    """
    names = list(dict.fromkeys(facts.name for run in runs for facts in run.manifest.workflows))
    warm: list[list[Floats]] = [[] for _ in names]
    switched: list[list[Floats]] = [[] for _ in names]
    # One for all: with one in flight no job waits, and the server's pauses are not seen.
    pauses = np.concatenate([run.jobs.pauses() for run in runs])
    gap = float(pauses.mean()) if len(pauses) else 0.0
    overheads, cold = [], []
    for run in runs:
        overheads.append(_overhead(run))
        seconds, workflow, same, first = _in_order(run.jobs)
        codes = [names.index(facts.name) for facts in run.manifest.workflows]
        for here, code in enumerate(codes):
            of_it = workflow == here
            warm[code].append(seconds[of_it & same] + gap)
            switched[code].append(seconds[of_it & ~same & ~first] + gap)
        cold.append(seconds[first])
    kept = [np.concatenate(parts) for parts in warm]
    after = [np.concatenate(parts) for parts in switched]
    known = [overhead_s for overhead_s in overheads if overhead_s is not None]
    overhead_s = float(np.median(known)) if known else 0.0
    return _whole(names, kept, after, np.concatenate(cold), overhead_s, gap)


def _whole(
    names: list[str], warm: list[Floats], switched: list[Floats], cold: Floats, overhead_s: float, gap_s: float
) -> Pools:
    costs = [
        np.median(b) - np.median(a) for a, b in zip(warm, switched, strict=True) if len(a) >= _FEW and len(b) >= _FEW
    ]
    cost = max(0.0, float(np.mean(costs))) if costs else 0.0
    made_up = []
    for code, name in enumerate(names):
        if len(warm[code]) < _FEW and len(switched[code]) >= _FEW:
            warm[code] = np.maximum(switched[code] - cost, 0.0)
        if len(warm[code]) < 1:
            raise ValueError(f"{name}: no job with a known execution time")
        if len(switched[code]) < _FEW:
            if len(names) > 1:
                made_up.append(name)
            switched[code] = warm[code] + cost
    return Pools(
        workflows=names,
        warm=warm,
        switched=switched,
        made_up=made_up,
        cold=cold,
        overhead_s=max(0.0, overhead_s),
        gap_s=gap_s,
    )


def _in_order(jobs: Jobs) -> tuple[Floats, NDArray[np.uint16], NDArray[np.bool_], NDArray[np.bool_]]:
    """Executions of completed counted jobs in the server's order, their workflows, whether the job before was of the
    same, and whether there was none before.
    """
    every = jobs.every
    start = every.instants["start_ms"]
    order = np.argsort(start, kind="stable")
    ran = ~np.isnan(start) & (every.cache != CACHE_CLASSES.index("cached"))
    order = order[ran[order]]
    seconds = (every.instants["end_ms"][order] - start[order]) / 1000
    workflow = every.workflow[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = workflow[1:] == workflow[:-1]
    first = np.zeros(len(order), np.bool_)
    first[:1] = True
    kept = (order < jobs.n) & every.completed[order] & (every.cache[order] == CACHE_CLASSES.index("fresh"))
    kept &= ~np.isnan(seconds) & (seconds >= 0)
    return seconds[kept], workflow[kept], same[kept], first[kept]


def _overhead(run: Measured) -> float | None:
    """Median of latency less queue wait and execution, in seconds: durations, each of one clock. None: not known.

    Servers before 0.3.69 do not tell the wait; with one in flight there is none.
    """
    jobs, load = run.jobs, run.manifest.plan.load
    alone = isinstance(load, Closed) and load.concurrency == 1
    wait = 0.0 if alone else jobs.metric("queue_wait")
    rest = jobs.metric("latency") - jobs.metric("execution") - wait
    rest = rest[jobs.completed & ~np.isnan(rest)]
    return float(np.median(rest)) if len(rest) else None
