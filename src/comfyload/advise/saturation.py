"""Where a server saturates: what to measure next, and what the measurements come to.

One ComfyUI runs one prompt at a time, so that its capacity is known from how long jobs take, and its knee lies between
one and two in flight unless a client takes long between jobs. More in flight only measures the queue.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct

from comfyload.advise.forecast import Forecast
from comfyload.advise.interference import Interference
from comfyload.advise.rate import Rate
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.advise.validation import Validation
from comfyload.judge.statistics.dependence import autocorrelation_time
from comfyload.judge.statistics.means import INDEPENDENT
from comfyload.judge.statistics.skewed import skewed_interval, third_moment
from comfyload.judge.summary import Measured
from comfyload.record.environment.which_gpu import is_simulated

BUSY = 0.97
GAIN = 0.02
"""A server that becomes busier by less than this with one more in flight is saturated."""
MOST = 4
LADDER = (1, 2, 4, 8)
"""Of a server that runs jobs side by side."""
VAGUE, SURE = 0.05, 0.03
"""Half of a capacity's interval, as a share of it: what is too much, and what is good."""


class Step(Struct, frozen=True, kw_only=True):
    """What was measured with so many in flight. Times in seconds, `jobs_per_minute` over the wall clock."""

    concurrency: int
    jobs: int
    server_busy: float | None
    gpu_busy_percent: float | None
    service_s: float | None
    jobs_per_minute: float | None
    p95_latency_s: float | None
    side_by_side: bool


class Saturated(Struct, frozen=True, kw_only=True):
    """The result; rates per minute. None: not known, or not wanted.

    `deploy_per_minute`: the rate to deploy, the lower end of `sla_rate_per_minute`; None where that is not known, or
    the confirming run did not confirm it. `confirmed` None: there was no such run. `tried_per_minute`: its rate.
    `curve`: what to expect at several rates, from the lowest.
    `lower_bound_per_minute`: what its own jobs allow where it confirmed nothing. A rate that it disproved has no
    estimate, and that bound as `high`. `more_jobs`: how many more would bring the rate to deploy near the highest one;
    0: it is near. `paths`: the run directories in the order in which they were made. `cut`: which limit of the command
    ended its runs early; "": none did.
    """

    knee: int | None
    serial: bool
    capacity_per_minute: Rate | None
    sla_rate_per_minute: Rate | None
    limit_s: float
    share: float
    steps: list[Step]
    interference: Interference | None
    service_s: Rate | None
    confirmation: Validation | None
    findings: list[str]
    paths: list[str]
    more_jobs: int = 0
    tried_per_minute: float | None = None
    lower_bound_per_minute: float | None = None
    curve: list[Forecast] = []
    cut: str = ""

    @property
    def confirmed(self) -> bool | None:
        """Whether the confirming run went as predicted; None: there was none."""
        return None if self.sla_rate_per_minute is None else self.sla_rate_per_minute.confirmed

    @property
    def deploy_per_minute(self) -> float | None:
        """The rate to deploy; None: not known, or not confirmed."""
        rate = self.sla_rate_per_minute
        return None if rate is None or rate.confirmed is False or rate.estimate is None else rate.low or None


def step(run: Measured) -> Step:
    """The row of one run of a closed load."""
    flat, execution = run.summary.summary, run.jobs.known("execution")
    busy = [gpu.utilisation_percent for gpu in run.summary.saturation.gpus.values()]
    known = [percent for percent in busy if percent is not None]
    rate, p95 = flat["jobs_per_minute"], flat["p95_latency_s"]
    return Step(
        concurrency=run.manifest.plan.concurrency or 0,
        jobs=run.jobs.n,
        server_busy=run.summary.saturation.server_busy,
        gpu_busy_percent=max(known, default=None),
        service_s=float(execution.mean()) + run.jobs.gap_s() if len(execution) and run.jobs.servers == 1 else None,
        jobs_per_minute=rate if isinstance(rate, float) else None,
        p95_latency_s=p95 if isinstance(p95, float) else None,
        side_by_side=run.jobs.overlaps() > 0,
    )


def next_step(steps: Sequence[Step]) -> int | None:
    """How many in flight to measure next; None: it is known."""
    done = {one.concurrency: one for one in steps}
    if any(one.side_by_side for one in steps):
        return next((places for places in LADDER if places not in done), None)
    for places in (1, 2):
        if places not in done:
            return places
    last = max(done)
    busy, before = done[last].server_busy, done[last - 1].server_busy if last - 1 in done else None
    if last >= MOST or busy is None:  # a server that tells no times tells nothing by more of the same either
        return None
    saturated = busy >= BUSY or (before is not None and busy - before < GAIN)
    return None if saturated else last + 1


def knee(steps: Sequence[Step]) -> int | None:
    """The fewest in flight with which the server is as busy as it gets; None: not known.

    Of a server that runs jobs side by side: the fewest that reach 95 % of the best throughput, made monotone.
    """
    ordered = sorted(steps, key=lambda one: one.concurrency)
    if any(one.side_by_side for one in ordered):
        rates = [one.jobs_per_minute for one in ordered]
        if None in rates:
            return None
        best = np.maximum.accumulate(np.array(rates, np.float64))
        return ordered[int(np.argmax(best >= 0.95 * best[-1]))].concurrency
    for one, more in pairwise(ordered):
        if one.server_busy is None or more.server_busy is None:
            return None
        if more.server_busy - one.server_busy < GAIN and one.server_busy >= BUSY:
            return one.concurrency
        if more.server_busy >= BUSY:
            return more.concurrency
    return ordered[-1].concurrency if len(ordered) > 1 else None


def capacity(pools: ServiceTimes, workload: Workload) -> Rate:
    """Jobs per minute that a server never done with its queue completes: one over the mean service time.

    The interval is that of a skewed mean: of each cell by its share and its own autocorrelation, of the server's
    pauses, and of what all times have in common. Its lower end, which a slow job outside the sample would move, is
    given from 59 jobs on.
    """
    total = pools.mean_s(workload)
    if total <= 0:
        raise ValueError("the jobs took no time: the capacity is unknown")
    variance, third, freedom = (total * pools.doubt) ** 2, 0.0, 0.0
    for weight, pool in [*pools.weighted(workload), (1.0, pools.pauses)]:
        if weight > 0 and len(pool) > 1:
            worth = len(pool) / autocorrelation_time(pool)
            part = weight**2 * float(pool.var(ddof=1)) / worth
            variance += part
            third += weight**3 * third_moment(pool) / worth**2
            freedom += part**2 / (len(pool) - 1)
    least, most = 0.0, math.inf
    if freedom:
        least, most = skewed_interval(total, math.sqrt(variance), third / variance**1.5, variance**2 / freedom)
    low = 60 / most if freedom and pools.n >= INDEPENDENT else None
    return Rate(estimate=60 / total, low=low, high=60 / least if least > 0 else None)


def vague(rate: Rate, jobs: int) -> tuple[float, int] | None:
    """Half of the interval of a rate from so many jobs, as a share, where that is too much; how many jobs would do."""
    if rate.estimate is None or rate.low is None or rate.high is None:
        return None
    doubt = (rate.high - rate.low) / 2 / rate.estimate
    return (doubt, math.ceil(jobs * (doubt / SURE) ** 2)) if doubt > VAGUE else None


def gpu_words(run: Measured) -> list[str]:
    """Whether the 90 % of a checklist can be reached, from the run with the most in flight."""
    found, out = run.summary.saturation, []
    fact = run.manifest.environment.get("gpu")
    if fact is not None and fact.value == "none":
        return ["The server computes on its CPU: it has no GPU to saturate."]
    if not found.gpus:
        return ["GPU utilisation is not known: nothing measures it. Install the probe: comfyload probe install."]
    for gpu, busy in found.gpus.items():
        if busy.utilisation_percent is None:
            continue
        name = f"{'Simulated ' if is_simulated(run.manifest.server) else ''}GPU {gpu}"
        if busy.over_90_percent:
            out.append(f"{name} is {busy.utilisation_percent:.0f} % busy: the checklist's 90 % are reached.")
        elif found.server_saturated:
            share = busy.ceiling_percent if busy.ceiling_percent is not None else busy.utilisation_percent
            out.append(
                f"{name} never reaches 90 %: the server is {100 * (found.server_busy or 0):.1f} % busy, and in "
                f"{100 - share:.0f} % of a job's time no kernel runs. A faster disk, CPU or encoder shortens that; "
                f"more in flight does not."
            )
    return out
