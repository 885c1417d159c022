"""Made-up measurements for the tests of advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from comfyload.advise.forecast import Forecast, forecasts
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.judge.arrays import Floats
from comfyload.judge.summary import Measured, measure
from comfyload.record.plan import Load, Open, Stage
from tests.unit.judge_runs import FACTS, planned, served


def pools_of_one(seconds: Floats | Sequence[float], overhead_s: float = 0.0) -> ServiceTimes:
    """One workflow whose jobs took so long."""
    values = np.asarray(seconds, np.float64)
    return ServiceTimes(
        workflows=["book"], warm=[values], switched=[values], made_up=[], overhead_s=overhead_s, gap_s=0.0
    )


def pools_of_two(warm: Sequence[Floats], switched: Sequence[Floats]) -> ServiceTimes:
    """Two workflows, and what they take after the other one."""
    return ServiceTimes(
        workflows=["a", "b"], warm=list(warm), switched=list(switched), made_up=[], overhead_s=0.0, gap_s=0.0
    )


def forecast(pools: ServiceTimes, workload: Workload, *, rate_per_s: float, servers: int = 1, **more: Any) -> Forecast:
    """What to expect at one rate, with one number of servers."""
    (row,) = forecasts(pools, workload, rates_per_s=[rate_per_s], servers=[servers], **more)
    return row


def unimodal(n: int, rng: np.random.Generator, cv: float = 0.2) -> Floats:
    """About 9 s."""
    return rng.lognormal(np.log(9), cv, n)


def bimodal(n: int, rng: np.random.Generator) -> Floats:
    """8 s, and one in eight 20 s: 9.5 s on average."""
    out: Floats = np.where(rng.random(n) < 0.125, 20.0, 8.0) * rng.lognormal(0, 0.03, n)
    return out


def ran(
    due: NDArray[np.floating], seconds: Floats, *, load: Load | None = None, workflows: Sequence[str] = ()
) -> Measured:
    """A run on a serial server, of these arrivals and service times."""
    facts = [structs.replace(FACTS, name=name) for name in sorted(set(workflows))] or [FACTS]
    manifest = planned(load or Open(stages=[Stage(per_s=0.06)]), jobs=len(due), workflows=facts)
    lines = served([float(t) for t in due], [float(s) for s in seconds], workflows=workflows)
    return measure("", manifest, lines)
