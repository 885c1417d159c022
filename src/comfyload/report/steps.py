"""Runs of the same workflows with more and more jobs in flight, and the numbers that several runs have in common."""

from collections.abc import Sequence

from comfyload.advise import saturation
from comfyload.judge.observations import workflow_key
from comfyload.judge.summary import Measured


def by_workflow(runs: Sequence[Measured]) -> list[list[Measured]]:
    """The runs of each workflow, by jobs in flight."""
    found: dict[tuple[str, ...], list[Measured]] = {}
    for run in runs:
        found.setdefault(workflow_key(run), []).append(run)
    return [sorted(steps, key=lambda run: run.manifest.plan.concurrency or 0) for steps in found.values()]


def knee(steps: Sequence[Measured]) -> Measured | None:
    """The run with the fewest jobs in flight that kept the server as busy as it gets; None: none did, or unknown.

    A server that runs jobs side by side is busy all the time long before that: there it takes a run with more in flight
    that completes hardly more.
    """
    full = [run for run in steps if run.summary.saturation.server_saturated]
    if any(run.jobs.overlaps() for run in steps):
        at = saturation.knee([saturation.step(run) for run in steps])
        full = [run for run in full if run.manifest.plan.concurrency == at and run is not steps[-1]]
    return full[0] if full else None


def rate_key(runs: Sequence[Measured]) -> str:
    """The rate that all these runs have: of images, or else of jobs."""
    units = {run.summary.statistics["images_per_minute"].unit for run in runs}
    known = all(run.summary.statistics["images_per_minute"].value for run in runs)
    return "images_per_minute" if known and len(units) == 1 else "jobs_per_minute"


def latency_key(runs: Sequence[Measured]) -> str:
    """The p95 where every run has one, else the median."""
    known = all(run.summary.statistics["p95_latency_s"].value is not None for run in runs)
    return "p95_latency_s" if known else "p50_latency_s"
