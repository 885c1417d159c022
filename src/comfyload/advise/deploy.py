"""The rate at which a server keeps a limit, as far as few jobs tell, and what a run at that rate makes of it."""

import math

import numpy as np
from msgspec import Struct, structs

from comfyload.advise.forecast import CAUTION, REPLICATES, highest_rate
from comfyload.advise.rate import Rate
from comfyload.advise.service_times import ServiceTimes, Workload

CONFIDENCE = 1 - 2 * CAUTION
"""Of the interval of the highest rate."""
WIDE = 0.25
"""By so much the rate to deploy may lie below the highest rate before more jobs are worth their time."""
_LEAST_MORE, _MOST = 20, 2000


class Sla(Struct, frozen=True, kw_only=True):
    """That a share of the jobs has its result within `limit_s`, of these kinds of jobs; `replicates` of a bootstrap."""

    workload: Workload
    limit_s: float
    share: float
    replicates: int = REPLICATES


def allowed(pools: ServiceTimes, sla: Sla, rng: np.random.Generator) -> Rate:
    """The highest rate, per minute, at which the server keeps the limit; `low` is the one to deploy."""
    found = highest_rate(pools, sla.workload, sla.limit_s, share=sla.share, rng=rng, replicates=sla.replicates)
    return Rate(estimate=found.estimate, low=found.low, high=found.high, confidence=CONFIDENCE).times(60)


def after_run(before: Rate, together: Rate) -> Rate:
    """The rate that a run confirmed, from all jobs; to be deployed is what both say, as that is what was tried."""
    low = min(end for end in (before.low, together.low) if end is not None)
    return structs.replace(together, low=low, confirmed=True)


def disproved(tried_per_minute: float, own: Rate | None) -> Rate:
    """What is left of a rate that a run disproved: no more than was tried, nor than the run's own jobs allow."""
    ends = [tried_per_minute] if own is None or own.low is None else [tried_per_minute, own.low]
    return Rate(estimate=None, low=None, high=min(ends), confidence=CONFIDENCE, confirmed=False)


def jobs_worth_it(rate: Rate, jobs: int) -> int:
    """How many jobs more than these would bring the rate to deploy near the highest one; 0: it is near.

    What is not known shrinks with the root of the number of jobs.
    """
    if not rate.estimate or rate.low is None:
        return 0
    away = 1 - rate.low / rate.estimate
    return max(_LEAST_MORE, min(_MOST, math.ceil(jobs * (away / WIDE) ** 2)) - jobs) if away > WIDE else 0
