"""How long jobs take, by cause: which workflow, and whether the server had just run another one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from comfyload.judge.arrays import Floats
from comfyload.judge.arrivals import as_it_came
from comfyload.judge.columns.jobs import Jobs, executions_of
from comfyload.judge.summary import Measured

_FEW = 3
"""A cell of fewer values is made up of the warm median and the usual cost of a switch."""
_LEFT_OVER = 99_991.0
_TAIL, _LONGEST = 0.04, math.log(10)
"""The share of the longest jobs that tell how much longer one may be; and no job is ten times the longest."""


class Workload(Struct, frozen=True, kw_only=True):
    """The load: each workflow's share of the jobs, and the chance that one follows itself beyond
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


class ServiceTimes(Struct, frozen=True, kw_only=True):
    """Service times that were measured, in seconds: a job's execution, and the server's usual pause after it.

    `warm[w]`: after a job of the same workflow; `switched[w]`: after another one. `made_up`: of which workflows the
    latter was too seldom seen. `overhead_s`: what the client adds, between due and done, to wait and execution.
    `pauses`: those of which `gap_s` is the mean. `doubt`: the relative standard error that all these times have in
    common.
    """

    workflows: list[str]
    warm: list[Floats]
    switched: list[Floats]
    made_up: list[str]
    overhead_s: float
    gap_s: float
    pauses: Floats = np.empty(0)
    doubt: float = 0.0

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
    def executions(self) -> list[Floats]:
        """Of each workflow, what the server executed after a job of the same: without the pause, in seconds."""
        return [pool - self.gap_s for pool in self.warm]

    @property
    def switch_cost_s(self) -> float:
        """How much longer a job takes after a switch, by medians; never negative."""
        return _switch_cost_s(self.warm, self.switched)

    def weighted(self, workload: Workload) -> list[tuple[float, Floats]]:
        """Each pool with its share of the jobs, on one server that serves them in the order in which they come."""
        out = []
        for weight, warm, switched in zip(workload.shares, self.warm, self.switched, strict=True):
            share = weight / sum(workload.shares)
            same = workload.stickiness + (1 - workload.stickiness) * share
            out += [(share * same, warm), (share * (1 - same), switched)]
        return out

    def mean_s(self, workload: Workload) -> float:
        """Mean service time on one server that serves them in the order in which they come."""
        return sum(share * float(pool.mean()) for share, pool in self.weighted(workload) if share > 0)

    def resampled(self, rng: np.random.Generator) -> ServiceTimes:
        """One replicate of the bootstrap: what the same measurement might have found another day."""
        pauses = rng.choice(self.pauses, len(self.pauses)) if len(self.pauses) else self.pauses
        gap_s = float(pauses.mean()) if len(pauses) else self.gap_s
        factor = math.exp(self.doubt * rng.standard_normal()) if self.doubt else 1.0

        def again(pools: Sequence[Floats]) -> list[Floats]:
            return [np.maximum(factor * _redrawn(pool, rng) + gap_s - self.gap_s, 0.0) for pool in pools]

        return structs.replace(self, warm=again(self.warm), switched=again(self.switched), gap_s=gap_s, pauses=pauses)

    def services(self, workflows: NDArray[np.int64], u: Floats) -> tuple[Floats, Floats]:
        """What each job would take warm, and after a switch; `u` in [0, 1) chooses its value in either pool.

        With the pause after it, as long as `swings` says.
        """
        warm, switched = np.empty(workflows.shape), np.empty(workflows.shape)
        swings = self.swings(u)
        for code in range(len(self.workflows)):
            of_it = workflows == code
            for out, pool in ((warm, self.warm[code]), (switched, self.switched[code])):
                out[of_it] = np.sort(pool)[(u[of_it] * len(pool)).astype(np.int64)]
        return np.maximum(warm + swings, 0.0), np.maximum(switched + swings, 0.0)

    def swings(self, u: Floats) -> Floats:
        """By how much the pause after each job differs from the mean one, in seconds: no job waits for its own.

        Jobs that are shorter than a pause have their p95 from those that were caught in one. The digits of `u`
        that the choice of a service time leaves unused choose it.
        """
        if len(self.pauses) < 2:
            return np.zeros(u.shape)
        places = (u * _LEFT_OVER % 1.0 * len(self.pauses)).astype(np.int64)
        out: Floats = np.sort(self.pauses)[places] - float(self.pauses.mean())
        return out


def _redrawn(pool: Floats, rng: np.random.Generator) -> Floats:
    """Drawn with replacement from the values, and from one more that was not measured: longer than all of them.

    Of n jobs one more is the longest with a chance of 1 / (n + 1). How much longer, a Pareto tail through the longest
    jobs tells (Hill 1975), its index as uncertain as so few leave it. Without that job, a measurement that happened to
    hold few slow jobs would promise what the server cannot keep.
    """
    n = len(pool)
    if n < 2:
        return pool
    few = min(max(2, math.ceil(_TAIL * n)), n - 1)
    longest = np.partition(pool, n - few - 1)[n - few - 1 :]
    beyond = float(longest.max())
    if longest[0] > 0:
        index = float(np.log(longest[1:] / longest[0]).mean()) * few / rng.gamma(few)
        beyond *= math.exp(min(index * rng.standard_exponential(), _LONGEST))
    return rng.choice(np.append(pool, beyond), n + 1)


def pools_of(runs: Sequence[Measured], factors: Sequence[float] = (), doubt: float = 0.0) -> ServiceTimes:
    """Of all runs together: completed jobs that executed, warm-up left out, in the order in which the server ran them.

    `factors`: by which the executions of each run are multiplied, 1 if not given; `doubt`: their relative standard
    error, as far as it concerns all of these jobs.

    Raises:
        ValueError: not one job of some workflow has a known execution time.
    """
    names = _names(runs)
    warm_parts: list[list[Floats]] = [[] for _ in names]
    switched_parts: list[list[Floats]] = [[] for _ in names]
    # One for all: with one in flight no job waits, and the server's pauses do not show.
    pauses = np.concatenate([run.jobs.pauses() for run in runs])
    gap = float(pauses.mean()) if len(pauses) else 0.0
    for run, factor in zip(runs, factors or [1.0] * len(runs), strict=True):
        ran = executions_of(run.jobs)
        seconds = factor * ran.seconds
        for here, facts in enumerate(run.manifest.workflows):
            if facts.name not in names:
                continue
            of_it, code = ran.workflow == here, names.index(facts.name)
            warm_parts[code].append(seconds[of_it & ran.same] + gap)
            switched_parts[code].append(seconds[of_it & ~ran.same & ~ran.first] + gap)
    warm, switched = ([np.concatenate(part) for part in parts] for parts in (warm_parts, switched_parts))
    made_up = _fill_up(names, warm, switched)
    # Servers before 0.3.69 do not report the wait; with one in flight it is 0.
    waits = [0.0 if run.manifest.plan.concurrency == 1 else run.jobs.metric("queue_wait") for run in runs]
    overheads = [overhead_s(run.jobs, "latency", wait) for run, wait in zip(runs, waits, strict=True)]
    known = [seconds for seconds in overheads if seconds is not None]
    return ServiceTimes(
        workflows=names,
        warm=warm,
        switched=switched,
        made_up=made_up,
        overhead_s=max(0.0, float(np.median(known))) if known else 0.0,
        gap_s=gap,
        pauses=pauses,
        doubt=doubt,
    )


def _names(runs: Sequence[Measured]) -> list[str]:
    """The workflows. Of an application's own jobs those that completed: it may send what no server can do."""
    names = list(dict.fromkeys(facts.name for run in runs for facts in run.manifest.workflows))
    if not all(as_it_came(run.manifest.plan) for run in runs):
        return names
    done = {
        facts.name
        for run in runs
        for here, facts in enumerate(run.manifest.workflows)
        if (executions_of(run.jobs).workflow == here).any()
    }
    return [name for name in names if name in done] or names


def _fill_up(names: Sequence[str], warm: list[Floats], switched: list[Floats]) -> list[str]:
    """Put substitutes for the pools that have too few jobs; the workflows whose switches are made up."""
    cost, made_up = _switch_cost_s(warm, switched, _FEW), []
    for code, name in enumerate(names):
        if len(warm[code]) < _FEW and len(switched[code]) >= _FEW:
            warm[code] = np.maximum(switched[code] - cost, 0.0)
        if len(warm[code]) < 1:
            raise ValueError(f"{name}: no job with a known execution time")
        if len(switched[code]) < _FEW:
            if len(warm) > 1:
                made_up.append(name)
            switched[code] = warm[code] + cost
    return made_up


def _switch_cost_s(warm: Sequence[Floats], switched: Sequence[Floats], fewest: int = 1) -> float:
    """The mean of the differences of medians, over workflows with so many jobs in both pools; never negative."""
    costs = [
        np.median(after) - np.median(before)
        for before, after in zip(warm, switched, strict=True)
        if min(len(before), len(after)) >= fewest
    ]
    return max(0.0, float(np.mean(costs))) if costs else 0.0


def overhead_s(jobs: Jobs, latency: str, wait: Floats | float) -> float | None:
    """Median of a latency less queue wait and execution, in seconds: durations, each of one clock. None: not known."""
    rest = jobs.metric(latency) - jobs.metric("execution") - wait
    rest = rest[jobs.completed & ~np.isnan(rest)]
    return float(np.median(rest)) if len(rest) else None
