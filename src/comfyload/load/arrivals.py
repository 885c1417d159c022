"""When arrivals are due: one absolute schedule, a pure function of the plan and a seeded generator.

An open load is a renewal process of mean one, stretched so that its rate is that of the stages: the n-th arrival comes
when the rate, summed over time, has reached the process's n-th point.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Protocol

from comfyload.record.plan import Closed, Open, Plan, Replay, Stage


class Generator(Protocol):
    """The part of `random.Random` that schedules draw from."""

    def random(self) -> float: ...
    def gammavariate(self, alpha: float, beta: float) -> float: ...


def offsets(load: Open | Replay, rng: Generator) -> Iterator[float]:
    """Seconds from the start at which arrivals are due, ascending; endless if the last stage is."""
    if isinstance(load, Replay):
        return iter(load.offsets_s)
    # Of two arrivals at almost the same instant, rounding may put the later one first.
    return itertools.accumulate(_stretched(load, rng), max)


def expected_jobs(plan: Plan) -> int | None:
    """About how many counted jobs the plan has; None: not known in advance."""
    arrivals = plan.jobs
    if isinstance(plan.load, Replay):
        within = (t for t in plan.load.offsets_s if plan.duration_s is None or t < plan.duration_s)
        arrivals = sum(1 for _ in itertools.islice(within, plan.jobs))
    elif isinstance(plan.load, Open) and (arrivals is None or plan.duration_s is not None):
        seconds = min(
            plan.duration_s if plan.duration_s is not None else math.inf,
            sum(math.inf if stage.seconds is None else stage.seconds for stage in plan.load.stages),
        )
        if not math.isinf(seconds):
            within_time = round((offered_per_s(plan.load) or 0.0) * seconds)
            arrivals = within_time if arrivals is None else min(arrivals, within_time)
    return None if arrivals is None else arrivals * plan.pages


def scheduled_arrivals(plan: Plan, rng: Generator) -> int | None:
    """How many counted arrivals the plan has, exactly, chance included; None: not known in advance.

    `rng` must be the one that the engine draws from. A schedule of more than a million is not counted.
    """
    if isinstance(plan.load, Closed):
        return plan.jobs if plan.duration_s is None else None
    if (expected_jobs(plan) or 0) > 1_000_000:
        return None
    due = itertools.islice(offsets(plan.load, rng), plan.jobs)
    return sum(1 for _ in itertools.takewhile(lambda t: plan.duration_s is None or t < plan.duration_s, due))


def offered_per_s(load: Open | Replay) -> float | None:
    """The mean rate over the load's length; None for a replay of fewer than two arrivals."""
    if isinstance(load, Replay):
        span = load.offsets_s[-1] - load.offsets_s[0] if len(load.offsets_s) > 1 else 0.0
        return (len(load.offsets_s) - 1) / span if span > 0 else None
    if load.stages[-1].seconds is None:
        return load.stages[-1].per_s
    seconds = sum(stage.seconds or 0.0 for stage in load.stages)
    return sum(area(stage, stage.seconds or 0.0) for stage in load.stages) / seconds


def _stretched(load: Open, rng: Generator) -> Iterator[float]:
    points = _points(load, rng)
    point, before, began = next(points), 0.0, 0.0
    for stage in load.stages:
        total = math.inf if stage.seconds is None else area(stage, stage.seconds)
        while point - before < total:
            yield began + _when(stage, point - before)
            point = next(points)
        before += total
        began += stage.seconds or 0.0


def _points(load: Open, rng: Generator) -> Iterator[float]:
    """A renewal process with gaps of mean one. Constant arrivals begin at once, random ones after a first gap."""
    if load.arrivals == "constant":
        # Counted, not summed: a million additions of a rounded gap would drift.
        yield from map(float, itertools.count())
    point = 0.0
    shape = 1.0 / (load.cv * load.cv)
    while True:
        if load.arrivals == "gamma":
            point += rng.gammavariate(shape, 1.0 / shape)
        else:
            point += -math.log1p(-rng.random())
        yield point


def area(stage: Stage, seconds: float) -> float:
    """Arrivals expected in the first `seconds` of a stage."""
    return stage.per_s * seconds + 0.5 * _slope(stage) * seconds * seconds


def _when(stage: Stage, area: float) -> float:
    """Seconds into the stage at which `area` arrivals were expected: the inverse of `area`."""
    slope = _slope(stage)
    if slope == 0.0:
        return area / stage.per_s
    # The root of slope/2 t^2 + rate t - area that does not cancel for small slopes.
    return 2.0 * area / (stage.per_s + math.sqrt(max(0.0, stage.per_s * stage.per_s + 2.0 * slope * area)))


def _slope(stage: Stage) -> float:
    if stage.to_per_s is None or not stage.seconds:
        return 0.0
    return (stage.to_per_s - stage.per_s) / stage.seconds
