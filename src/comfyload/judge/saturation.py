"""Whether more in flight would help: how busy the server was, and how busy its GPUs."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.columns.jobs import Jobs

BUSY = 0.97
"""A serial server with one job always waiting is busy 0.99 of the time, one without 0.96 to 0.98."""
OF_CEILING = 0.95
CHECKLIST_PERCENT = 90.0
_KNOWN = 0.9
"""Of counted jobs the share whose execution time must be known."""


class GpuBusy(Struct, frozen=True, kw_only=True):
    """One GPU's part: `of_ceiling` is its utilisation over what it reaches while a job executes.

    `at_ceiling`: that is at least 0.95, so that more in flight cannot make it busier. `over_90_percent`: the limit of a
    checklist; a GPU whose jobs compute or save on the CPU for a tenth of their time never gets there. All are
    None where the GPU is one of several alike.
    """

    utilisation_percent: float | None
    ceiling_percent: float | None
    of_ceiling: float | None
    at_ceiling: bool | None
    over_90_percent: bool | None


class Saturation(Struct, frozen=True, kw_only=True):
    """`server_busy`: the sum of service times over the wall clock, above 1 where jobs run side by side; of several
    servers the mean; None: not known. `service_times`: of how many jobs. A service time is the execution and the
    server's mean pause between jobs. `saturated`: any of the three is so; None if none is known. `server_saturated` is
    None, too, where some of several servers are busy all the time and others are not: whether more in flight would help
    depends on where it goes.
    """

    server_busy: float | None
    service_times: int
    server_saturated: bool | None
    gpus: dict[str, GpuBusy]
    saturated: bool | None


def saturation(jobs: Jobs, wall_clock_s: float | None, gpus: Mapping[str, GpuRow], *, resumed: bool) -> Saturation:
    """Of the counted jobs. A resumed run has a gap in its wall clock, so nothing is known of it."""
    seconds = jobs.metric("execution")
    known = seconds[~np.isnan(seconds)]
    busy, server = None, None
    if wall_clock_s and not resumed and len(known) and len(known) >= _KNOWN * jobs.n:
        each = [busy_of(jobs, place, wall_clock_s) for place in range(jobs.servers)]
        busy = sum(each) / len(each)
        server = busy >= BUSY
        if not server and max(each) >= BUSY:
            server = None
    rows = {gpu: _gpu(row) for gpu, row in gpus.items()}
    signs = [server, *(one for row in rows.values() for one in (row.at_ceiling, row.over_90_percent))]
    known_signs = [sign for sign in signs if sign is not None]
    return Saturation(
        server_busy=busy,
        service_times=len(known),
        server_saturated=server,
        gpus=rows,
        saturated=any(known_signs) if known_signs else None,
    )


def busy_of(jobs: Jobs, place: int, wall_clock_s: float) -> float:
    """The service times of the server at that place over the wall clock."""
    seconds = jobs.metric("execution")
    known = seconds[~np.isnan(seconds) & ((jobs.counted.server == place) | (jobs.servers == 1))]
    busy = float(known.sum() + jobs.gap_s() * max(0, len(known) - 1)) / wall_clock_s
    return busy if jobs.overlaps(place) else min(busy, 1.0)


def _gpu(row: GpuRow) -> GpuBusy:
    busy, ceiling = (row.utilisation_percent, row.ceiling_percent) if row.alike == 1 else (None, None)
    share = busy / ceiling if busy is not None and ceiling else None
    return GpuBusy(
        utilisation_percent=busy,
        ceiling_percent=ceiling,
        of_ceiling=share,
        at_ceiling=None if share is None else share >= OF_CEILING,
        over_90_percent=None if busy is None else busy >= CHECKLIST_PERCENT,
    )
