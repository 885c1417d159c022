"""Whether a run went as the model of one queue predicts: a forecast is worth no more than that.

Three questions, each with less taken from the run itself: are its waits those of its own arrivals and its own execution
times (structural); those of its arrivals with execution times measured elsewhere (replay); those of any arrivals at
its rate (blind). The last one judges the chance of one run as much as the model.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import special

from comfyload.advise.queueing import after, lindley
from comfyload.advise.service_times import ServiceTimes, Workload, overhead_s
from comfyload.advise.traffic import FULL, Traffic
from comfyload.judge.arrays import Floats
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.statistics.dependence import autocorrelation_time
from comfyload.judge.summary import Measured
from comfyload.record.plan import Closed

Of = Literal["mean", "p50", "p95"]
Checked = Literal["structural", "replay", "blind"]
_REPLICATES = 200
_SIDE = 0.025
"""Of each band: two of them have a mark, and both together hold nine of ten runs (Bonferroni)."""
_LIMITS: dict[tuple[str, str], float] = {("structural", "mean"): 0.03, ("replay", "p50"): 0.10, ("replay", "p95"): 0.15}
"""The largest relative error with which the model passes; a larger one is accepted if the run is within the band."""
_LAGS = 10
_NO_CHANCE = 0.01
_WORTH = 0.7
_STILL_S = 0.1
"""A pause, or a reply later than usual, longer than this does not come from the network."""


class Prediction(Struct, frozen=True, kw_only=True):
    """One number of the run and its prediction, in seconds. `error`: relative, above 0 where too much was predicted;
    of `structural` it is the mean absolute error over the mean. `low`, `high`: where 19 of 20 runs would have it.
    `passed` None: no mark is set for it.
    """

    name: Checked
    of: Of
    measured_s: float
    predicted_s: float
    error: float
    low: float | None = None
    high: float | None = None
    inside: bool | None = None
    passed: bool | None = None


class Validation(Struct, frozen=True, kw_only=True):
    """What was checked, with how many jobs; `left_out`: jobs of the run whose times are not known. `reasons`: why a
    check is missing, or not to be relied on. `unmodelled`: execution times come in slow and fast phases that no
    workflow and no switch explains, so that a simulation of independent jobs says too little.
    """

    jobs: int
    left_out: int
    checks: list[Prediction]
    unmodelled: bool
    reasons: list[str]

    @property
    def passed(self) -> bool:
        """Whether something was checked, and nothing that has a mark missed it."""
        marks = [check.passed for check in self.checks if check.passed is not None]
        return bool(marks) and all(marks)

    @property
    def disproved(self) -> bool:
        """Whether jobs took longer than the model allows for: that they took less disproves no rate."""
        return any(check.passed is False and check.inside is False and check.error < 0 for check in self.checks)

    @property
    def confirmed(self) -> bool:
        """Whether waits follow from the run's own times, and no job took longer than it should."""
        marks = [check for check in self.checks if check.passed is not None]
        return bool(marks) and not self.disproved and all(check.passed for check in marks if check.inside is None)


class _Ran(Struct, frozen=True, kw_only=True):
    """Jobs in the order in which the server ran them; `counted`: completed, and no warm-up.

    `taken`: when it was sent, and by how much longer than usual the server took to answer: one that stands still has no
    queue. `services`: with the mean pause; `pauses`: those after each job, which nobody waited for where they are 0.
    """

    arrivals: Floats
    taken: Floats
    services: Floats
    pauses: Floats
    latencies: Floats
    workflows: NDArray[np.int64]
    counted: NDArray[np.bool_]
    left_out: int


def validate(measured: Measured, pools: ServiceTimes, *, rng: np.random.Generator) -> Validation:
    """Check the model against the run; `pools` come from other runs.

    Raises:
        ValueError: it ran a workflow of which the pools have no service time.
    """
    ran, reasons = _ran(measured, pools), list[str]()
    n = int(ran.counted.sum())
    if ran.left_out:
        reasons.append(f"{ran.left_out} jobs have no known times, and are left out")
    if n < 2:
        return Validation(jobs=n, left_out=ran.left_out, checks=[], unmodelled=False, reasons=[*reasons, "no jobs"])
    checks = [_structural(ran, measured.jobs)]
    plan = measured.manifest.plan
    if isinstance(plan.load, Closed) or plan.waits:
        reasons.append("arrivals wait for completions in this load, so that they cannot be replayed")
    else:
        checks += _replay(ran, pools, rng)
        blind = _blind(ran, pools, rng)
        checks += blind
        if not blind:
            reasons.append("the load is at or beyond the capacity: no latency can be predicted")
    still = np.concatenate([ran.pauses, ran.taken - ran.arrivals])
    if still.max() > _STILL_S:
        reasons.append(
            f"the server stood still for {still.max():.2g} s at most: ComfyUI collects garbage after every 10 s of "
            "work, and answers nobody meanwhile"
        )
    unmodelled = _phases(ran)
    if unmodelled:
        reasons.append("execution times come in slow and fast phases that neither workflow nor switch explains")
    return Validation(jobs=n, left_out=ran.left_out, checks=checks, unmodelled=unmodelled, reasons=reasons)


def _ran(measured: Measured, pools: ServiceTimes) -> _Ran:
    every = measured.jobs.every
    start, sent, execution = every.instants["start_ms"], every.instants["sent"], every.metric("execution")
    known = ~(np.isnan(execution) | np.isnan(sent))
    order = np.flatnonzero(known)[np.argsort(start[known], kind="stable")]
    unknown = sorted({facts.name for facts in measured.manifest.workflows} - set(pools.workflows))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no service time was measured")
    codes = np.array([pools.workflows.index(facts.name) for facts in measured.manifest.workflows], np.int64)
    latencies = every.metric("latency_sent")[order]
    delay = np.nan_to_num(every.metric("acknowledge")[order])
    return _Ran(
        arrivals=sent[order],
        taken=sent[order] + np.maximum(delay - np.median(delay), 0.0) if len(order) else sent[order],
        pauses=np.nan_to_num(measured.jobs.pause_after()[order]),
        services=execution[order] + measured.jobs.gap_s(),
        latencies=latencies,
        workflows=codes[every.workflow[order]],
        counted=(order < measured.jobs.n) & every.completed[order] & ~np.isnan(latencies),
        left_out=int(np.count_nonzero(~known & ~every.dropped)),
    )


def _structural(ran: _Ran, jobs: Jobs) -> Prediction:
    overhead = overhead_s(jobs, "latency_sent", jobs.metric("queue_wait")) or 0.0
    alone = ran.services - jobs.gap_s()
    predicted = (lindley(ran.taken, alone + ran.pauses) - ran.pauses - ran.arrivals + overhead)[ran.counted]
    was = ran.latencies[ran.counted]
    error = float(np.mean(np.abs(predicted - was)) / np.mean(was))
    return Prediction(
        name="structural",
        of="mean",
        measured_s=float(was.mean()),
        predicted_s=float(predicted.mean()),
        error=error,
        passed=error <= _LIMITS["structural", "mean"],
    )


def _replay(ran: _Ran, pools: ServiceTimes, rng: np.random.Generator) -> list[Prediction]:
    """The run's own arrivals, with execution times drawn from the pools."""

    def latencies(rows: list[ServiceTimes]) -> Floats:
        workflows = np.broadcast_to(ran.workflows, (len(rows), len(ran.workflows)))
        arrivals = np.broadcast_to(ran.arrivals, workflows.shape)
        u = rng.random(workflows.shape)
        warm, switched, own = np.empty((3, *workflows.shape))
        for row, pool in enumerate(rows):
            warm[row], switched[row] = pool.services(ran.workflows, u[row])
            own[row] = pool.gap_s + pool.swings(u[row])
        done = lindley(arrivals, after(workflows, warm, switched))
        took: Floats = done - arrivals + pools.overhead_s - own
        return took[:, ran.counted]

    return _predictions("replay", ran, *(latencies(rows) for rows in _rows(pools, rng)))


def _blind(ran: _Ran, pools: ServiceTimes, rng: np.random.Generator) -> list[Prediction]:
    """Any Poisson arrivals at the run's rate, as many as it had, from an idle server on as it was."""
    n, span_s = len(ran.arrivals), float(ran.arrivals.max() - ran.arrivals.min())
    rate = (n - 1) / span_s if span_s else math.inf
    shares = np.bincount(ran.workflows, minlength=len(pools.workflows))
    workload = Workload(shares=shares.astype(float).tolist())
    if rate * pools.mean_s(workload) >= FULL:
        return []

    def latencies(rows: list[ServiceTimes]) -> Floats:
        traffic = Traffic(rows, workload, n, rng, warmup_jobs=0)
        took, _ = traffic.latencies(np.full(len(rows), rate))
        return took[:, ran.counted]

    return _predictions("blind", ran, *(latencies(rows) for rows in _rows(pools, rng)))


def _rows(pools: ServiceTimes, rng: np.random.Generator) -> Iterator[list[ServiceTimes]]:
    """Many pools that know how little was measured, and many that take what was measured for the truth."""
    yield [pools.resampled(rng) for _ in range(_REPLICATES)]
    yield [pools] * _REPLICATES


def _statistics(rows: Floats) -> dict[Of, Floats]:
    """Of each row; one that asks for more than the server has is infinite in all of them."""
    stable = np.isfinite(rows).all(axis=1)
    out: dict[Of, Floats] = {of: np.full(len(rows), np.inf) for of in ("mean", "p50", "p95")}
    out["mean"][stable] = rows[stable].mean(axis=1)
    out["p50"][stable] = np.quantile(rows[stable], 0.5, axis=1, method="median_unbiased")
    out["p95"][stable] = np.quantile(rows[stable], 0.95, axis=1, method="median_unbiased")
    return out


def _predictions(name: Checked, ran: _Ran, doubts: Floats, point: Floats) -> list[Prediction]:
    """`doubts`, `point`: latencies of the counted jobs, by replicate, as `_rows` has them."""
    measured, in_doubt, expected = (_statistics(rows) for rows in (ran.latencies[None, ran.counted], doubts, point))
    out = []
    for of, found in measured.items():
        value, predicted = float(found[0]), float(np.median(expected[of]))
        ordered, side = np.sort(in_doubt[of]), int(_SIDE * _REPLICATES)
        low, high = float(ordered[side]), float(ordered[-1 - side])
        error, inside, limit = predicted / value - 1, low <= value <= high, _LIMITS.get((name, of))
        out.append(
            Prediction(
                name=name,
                of=of,
                measured_s=value,
                predicted_s=predicted,
                error=error,
                low=low,
                high=high,
                inside=inside,
                passed=None if limit is None else abs(error) <= limit or inside,
            )
        )
    return out


def _phases(ran: _Ran) -> bool:
    """Of executions, less the mean of their kind."""
    same = np.zeros(len(ran.workflows), np.bool_)
    same[1:] = ran.workflows[1:] == ran.workflows[:-1]
    return in_phases(less_their_kind(ran.services, 2 * ran.workflows + same, np.mean))


def less_their_kind(values: Floats, kinds: NDArray[np.int64], centre: Callable[[Floats], np.floating]) -> Floats:
    """The values, each less the centre of those of its kind."""
    rest = values.copy()
    for kind in np.unique(kinds):
        rest[kinds == kind] -= centre(rest[kinds == kind])
    return rest


def in_phases(rest: Floats) -> bool:
    """Whether values with a mean of 0 come in high and low phases: by Ljung and Box (1978), and worth less than 70 % of
    their number.
    """
    n, lags = len(rest), min(_LAGS, len(rest) // 5)
    total = float(rest @ rest)
    if lags < 1 or total <= 0:
        return False
    q = n * (n + 2) * sum((float(rest[lag:] @ rest[:-lag]) / total) ** 2 / (n - lag) for lag in range(1, lags + 1))
    return float(special.chdtrc(lags, q)) < _NO_CHANCE and autocorrelation_time(rest) > 1 / _WORTH and math.isfinite(q)
