"""A run as Prometheus metrics: text for node-exporter's textfile collector, or to push to a gateway."""

import math
from collections.abc import Iterator

import numpy as np
from prometheus_client import core, generate_latest
from prometheus_client.registry import Collector

from comfyload.judge.number import Measure, Plain
from comfyload.judge.numbers import NUMBERS, workflow_numbers
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.record.codec import printable
from comfyload.record.outcomes import OUTCOMES
from comfyload.telemetry.buckets import BUCKETS_S
from comfyload.words import sentence_case

_BASE_UNITS: dict[Measure, tuple[str, str, float]] = {
    "s": ("_s", "_seconds", 1),
    "/min": ("_per_minute", "_per_second", 60),
    "/h": ("_per_hour", "_per_second", 3600),
    "share": ("_rate", "_ratio", 1),
}
"""By what a number measures: how its key ends, how the metric's name ends instead, by what to divide."""


def metrics_text(measured: Measured) -> bytes:
    """Every number of the summary in the text exposition format, in seconds, bytes and ratios.

    Gauges have a `bound`: the value, or the low or high end of its interval; and a `workflow`, empty for the whole run.
    What is withheld or unknown is absent, never 0.
    """
    return generate_latest(_Families(measured))


class _Families(Collector):
    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def collect(self) -> Iterator[core.Metric]:
        manifest = self._measured.manifest
        who = core.InfoMetricFamily("comfyload_run", "Which run these metrics are of.")
        who.add_metric([], {"run": manifest.run_id, "name": printable(manifest.name), "tool": manifest.tool})
        yield who
        yield from _gauges(self._measured)
        yield from _of_servers(self._measured)
        yield _outcomes(self._measured)
        yield _histogram(self._measured)


def _gauges(measured: Measured) -> Iterator[core.Metric]:
    families: dict[str, core.GaugeMetricFamily] = {}
    for key, workflow, bound, value in _numbers(measured):
        suffix, base, per = _BASE_UNITS.get(NUMBERS[key].measure, ("", "", 1))
        name = f"comfyload_{key.removesuffix(suffix)}{base}"
        family = families.get(name)
        if family is None:
            number = NUMBERS[key]
            unit = ", in base units" if per != 1 else ""
            text = f"{sentence_case(number.words)}{unit}: {number.meaning}."
            family = families[name] = core.GaugeMetricFamily(name, text, labels=("run", "workflow", "bound"))
        family.add_metric((measured.manifest.run_id, printable(workflow), bound), value / per)
    yield from families.values()


_OF_SERVERS: dict[str, tuple[str, str, float]] = {
    "jobs": ("jobs", "Counted jobs that ended on one of several servers", 1),
    "failed": ("failed_jobs", "Counted jobs that failed on one of several servers", 1),
    "success_rate": ("success_ratio", "Share of one of several servers' jobs that completed", 1),
    "p50_latency_s": ("p50_latency_seconds", "Median latency of one of several servers' jobs", 1),
    "p95_latency_s": ("p95_latency_seconds", "p95 of latency of one of several servers' jobs", 1),
    "p50_execution_s": ("p50_execution_seconds", "Median execution of one of several servers' jobs", 1),
    "jobs_per_minute": ("jobs_per_second", "Completed jobs of one of several servers", 60),
    "busy": ("busy_ratio", "Service times of one of several servers over the wall clock", 1),
}
"""Fields of a server's row: name, meaning, and by what to divide."""


def _of_servers(measured: Measured) -> Iterator[core.Metric]:
    """Gauges of each of several servers, by its name; none of one."""
    rows = measured.summary.servers
    for field, (name, text, per) in _OF_SERVERS.items() if rows else ():
        labels = ("run", "server", "bound")
        family = core.GaugeMetricFamily(f"comfyload_server_{name}", f"{text}.", labels=labels)
        for server, row in rows.items():
            for bound, value in _bounds(getattr(row, field)):
                family.add_metric((measured.manifest.run_id, printable(server), bound), value / per)
        yield family


def _numbers(measured: Measured) -> Iterator[tuple[str, str, str, float]]:
    """Key, workflow, bound and value of each number that is known."""
    summary = measured.summary
    for key, plain in summary.summary.items():
        for bound, value in _bounds(summary.statistics.get(key, plain)):
            yield key, "", bound, value
    for workflow, row in summary.workflows.items():
        for field, number in workflow_numbers().items():
            for bound, value in _bounds(getattr(row, field)):
                yield number.key, workflow, bound, value


def _bounds(held: Statistic | Plain) -> Iterator[tuple[str, float]]:
    """The value, and the ends of its interval if it has one, as far as they are known."""
    ends = (
        {end: getattr(held, end) for end in ("value", "low", "high")}
        if isinstance(held, Statistic)
        else {"value": held}
    )
    for bound, value in ends.items():
        if value is not None and not math.isnan(float(value)):  # "inf" is how the summary writes infinity
            yield bound, float(value)


def _outcomes(measured: Measured) -> core.Metric:
    family = core.CounterMetricFamily("comfyload_jobs", "Counted jobs by how they ended.", labels=("run", "outcome"))
    for outcome, row in OUTCOMES.items():
        for _, count in _bounds(measured.summary.summary[row.key]):
            family.add_metric((measured.manifest.run_id, outcome), count)
    return family


def _histogram(measured: Measured) -> core.Metric:
    """Latency of completed counted jobs, from due to done, of each workflow."""
    text = "Seconds from when a job was due until its end was seen, of completed jobs."
    family = core.HistogramMetricFamily("comfyload_job_latency_seconds", text, labels=("run", "workflow"))
    jobs = measured.jobs
    for code, workflow in enumerate(measured.summary.workflows):
        latency = np.sort(jobs.known("latency", jobs.counted.workflow == code))
        below = np.searchsorted(latency, BUCKETS_S, side="right")
        buckets = [(str(float(edge)), float(count)) for edge, count in zip(BUCKETS_S, below, strict=True)]
        buckets.append(("+Inf", float(len(latency))))
        family.add_metric((measured.manifest.run_id, printable(workflow)), buckets, sum_value=float(np.sum(latency)))
    return family
