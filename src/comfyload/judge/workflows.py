"""What each workflow of a run comes to, and what it cost that another one had run before it."""

from msgspec import Struct

from comfyload.judge.arrays import Flags
from comfyload.judge.columns.jobs import Executions, Jobs, executions_of
from comfyload.judge.estimates import Evidence, duration, images_per_minute, success_rate
from comfyload.judge.statistics.means import mean
from comfyload.judge.statistics.stats import Statistic


class AfterRow(Struct, frozen=True, kw_only=True):
    """Mean execution time after a job of the same workflow, and after a switch from another, in the server's seconds.

    Of completed counted jobs that were not served from the cache, by the order in which the server started them,
    warm-up included; the very first has nothing before it. A job wholly from the cache loads no model: it is passed
    over. The difference is what a swap of models costs, if nothing else runs on the server.
    """

    same_s: Statistic
    switched_s: Statistic


class WorkflowRow(Struct, frozen=True, kw_only=True):
    """Counted jobs of one workflow. Durations in seconds: latency by the client's clock, execution by the server's.

    `images` are new ones that were saved, `previews` those that were not. `images_per_minute` is over the whole run's
    wall clock, so that the workflows' add up to the total; it is of previews where the total is.
    """

    jobs: int
    completed: int
    success_rate: Statistic
    avg_latency_s: Statistic
    p50_latency_s: Statistic
    p95_latency_s: Statistic
    max_latency_s: float | None
    avg_execution_s: Statistic
    p50_execution_s: Statistic
    p95_execution_s: Statistic
    after: AfterRow
    images: int
    previews: int
    images_per_minute: Statistic
    cached: int


def workflow_rows(evidence: Evidence) -> dict[str, WorkflowRow]:
    """A row for each workflow of the manifest, and for each that only the journal knows."""
    codes = sorted(evidence.fold.workflows.items(), key=lambda pair: pair[1])
    ran, workflow = executions_of(evidence.jobs), evidence.jobs.counted.workflow
    return {name: _row(evidence, workflow == code, _after(ran, ran.workflow == code)) for name, code in codes}


def after_rows(jobs: Jobs) -> AfterRow:
    """The same and the switched of all workflows together; a mix in which one is switched to more often tilts it."""
    ran = executions_of(jobs)
    return _after(ran, ~ran.first)


def _row(evidence: Evidence, of_it: Flags, after: AfterRow) -> WorkflowRow:
    jobs = evidence.jobs
    columns = jobs.counted
    latency = duration(evidence, "latency", ("avg", "p50", "p95"), of_it)
    execution = duration(evidence, "execution", ("avg", "p50", "p95"), of_it)
    longest = jobs.known("latency", of_it)
    return WorkflowRow(
        jobs=int(of_it.sum()),
        completed=int((of_it & columns.completed).sum()),
        success_rate=success_rate(jobs, "jobs offered", of_it),
        avg_latency_s=latency["avg"],
        p50_latency_s=latency["p50"],
        p95_latency_s=latency["p95"],
        max_latency_s=float(longest.max()) if len(longest) else None,
        avg_execution_s=execution["avg"],
        p50_execution_s=execution["p50"],
        p95_execution_s=execution["p95"],
        after=after,
        images=int(columns.images[of_it].sum()),
        previews=int(columns.previews[of_it].sum()),
        images_per_minute=images_per_minute(evidence, of_it),
        cached=int((of_it & columns.completed & (columns.cache > 0)).sum()),
    )


def _after(ran: Executions, of_it: Flags) -> AfterRow:
    of_it = of_it & ~ran.first
    return AfterRow(same_s=mean(ran.seconds[of_it & ran.same]), switched_s=mean(ran.seconds[of_it & ~ran.same]))
