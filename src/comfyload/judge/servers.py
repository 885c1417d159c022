"""What each server of a run over several comes to."""

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Flags
from comfyload.judge.columns.jobs import NOWHERE
from comfyload.judge.columns.pace import Pace
from comfyload.judge.estimates import Evidence, duration, jobs_per_minute, success_rate
from comfyload.judge.saturation import busy_of
from comfyload.judge.statistics.stats import Statistic
from comfyload.record.model import Server


class ServerRow(Struct, frozen=True, kw_only=True):
    """Counted jobs of one of several servers: those that ended there. `share`: of all that were sent to any.

    Latency is by the client's clock, execution (the service time without the pause between jobs) by the server's.
    `jobs_per_minute` is over the whole run's wall clock, so that the servers' add up to the total. `busy`: service
    times over the wall clock; None: not known. `queue_at_start`: prompts of others. `clock`: the server's against ours.
    """

    url: str
    comfyui_version: str | None
    jobs: int
    share: float | None
    completed: int
    failed: int
    success_rate: Statistic
    p50_latency_s: Statistic
    p95_latency_s: Statistic
    p50_execution_s: Statistic
    avg_execution_s: Statistic
    jobs_per_minute: Statistic
    busy: float | None
    queue_at_start: int | None
    clock: Pace | None


def server_rows(evidence: Evidence) -> dict[str, ServerRow]:
    """A row for each server by its name; none where there is but one."""
    fleet = evidence.manifest.fleet
    if len(fleet) < 2:
        return {}
    return {server.name: _row(evidence, place, server) for place, server in enumerate(fleet)}


def _row(evidence: Evidence, place: int, server: Server) -> ServerRow:
    jobs = evidence.jobs
    columns = jobs.counted
    of_it: Flags = columns.server == place
    sent, here = int(np.count_nonzero(columns.server != NOWHERE)), int(of_it.sum())
    latency = duration(evidence, "latency", ("p50", "p95"), of_it)
    execution = duration(evidence, "execution", ("avg", "p50"), of_it)
    known = ~np.isnan(jobs.metric("execution")[of_it & columns.completed])
    enough = len(known) == 0 or known.mean() >= 0.9
    wall = evidence.wall_clock_s
    return ServerRow(
        url=server.url,
        comfyui_version=server.comfyui_version,
        jobs=here,
        share=here / sent if sent else None,
        completed=int((of_it & columns.completed).sum()),
        failed=int((of_it & ~columns.completed & ~columns.censored).sum()),
        success_rate=success_rate(jobs, "jobs that ended there", of_it),
        p50_latency_s=latency["p50"],
        p95_latency_s=latency["p95"],
        p50_execution_s=execution["p50"],
        avg_execution_s=execution["avg"],
        jobs_per_minute=jobs_per_minute(evidence, of_it),
        busy=busy_of(jobs, place, wall) if wall and enough and not evidence.manifest.resumed else None,
        queue_at_start=server.queue_at_start,
        clock=evidence.paces.get(server.name),
    )
