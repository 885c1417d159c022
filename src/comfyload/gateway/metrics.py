"""The gateway's metrics for Prometheus, under the names that a run's have."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, core, generate_latest
from prometheus_client.registry import Collector

from comfyload.gateway.job import ClientJob, State
from comfyload.gateway.service import Gateway
from comfyload.record.codec import printable
from comfyload.record.model import Execution
from comfyload.telemetry.buckets import BUCKETS_S

MOST_WORKFLOWS = 200
"""Workflows that have series of their own; the others are counted together."""

OTHERS = "others"


class Metrics:
    """What is counted as it happens; what can be read at any time is read at each request."""

    def __init__(self, gateway: Gateway) -> None:
        registry = self._registry = CollectorRegistry()
        self._workflows: set[str] = set()
        self._jobs = Counter(
            "comfyload_jobs", "Jobs by how they ended.", ("workflow", "server", "outcome"), registry=registry
        )
        self._latency = Histogram(
            "comfyload_job_latency_seconds",
            "Seconds from a job's arrival until its end was seen, of completed jobs.",
            ("workflow",),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._waits = Histogram(
            "comfyload_gateway_wait_seconds",
            "Seconds from a job's arrival until it was sent to a server, of jobs that were.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._attempts = Counter(
            "comfyload_gateway_attempts",
            "Attempts by how they ended; a kind of failure, or nothing for one that completed.",
            ("server", "failure"),
            registry=registry,
        )
        registry.register(_Now(gateway))
        gateway.on_end = self._ended

    def _ended(self, job: ClientJob, execution: Execution, state: State) -> None:
        """Count a job that has ended."""
        workflow = self._named(job.workflow)
        self._jobs.labels(workflow, job.server, state).inc()
        if state == "completed" and execution.done is not None:
            self._latency.labels(workflow).observe(execution.done - job.due)
        if execution.sent is not None:
            self._waits.observe(max(0.0, execution.sent - job.due))
        failures = [attempt.failure for attempt in execution.attempts] or [execution.failure]
        for failure in failures:
            self._attempts.labels(job.server, failure.kind if failure else "").inc()

    def text(self) -> bytes:
        """In the text exposition format."""
        return generate_latest(self._registry)

    def _named(self, workflow: str) -> str:
        if workflow not in self._workflows and len(self._workflows) >= MOST_WORKFLOWS:
            return OTHERS
        self._workflows.add(workflow)
        return printable(workflow)


class _Now(Collector):
    """The gateway as it is."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[core.Metric]:
        gateway = self._gateway
        jobs = core.GaugeMetricFamily("comfyload_gateway_jobs", "Jobs that have not ended.", labels=("state",))
        running = sum(job.began for job in gateway.jobs.values())
        jobs.add_metric(["in_progress"], running)
        jobs.add_metric(["pending"], len(gateway.jobs) - running)
        yield jobs
        yield _gauge(
            "comfyload_gateway_oldest_seconds",
            "How long ago the oldest job arrived that has not ended; 0 without any.",
            max((gateway.clock() - job.due for job in gateway.jobs.values()), default=0.0),
        )
        yield _gauge(
            "comfyload_gateway_backlog_seconds",
            "Seconds of work that are here and on the servers, for each server.",
            gateway.backlog_s(),
        )
        yield _gauge(
            "comfyload_gateway_attention_jobs",
            "Jobs that failed for good and that nobody has sent again yet.",
            gateway.store.needing_attention(),
        )
        yield _gauge("comfyload_gateway_sockets", "Open sockets of clients.", len(gateway.sockets))
        for name, text in (
            ("accepted", "Prompts that were taken."),
            ("refused", "Prompts that were refused."),
            ("retries", "Jobs that were sent again."),
        ):
            yield core.CounterMetricFamily(f"comfyload_gateway_{name}", text, value=gateway.counts[name])
        up = core.GaugeMetricFamily("comfyload_gateway_server_up", "1: the server takes jobs.", labels=("server",))
        held = core.GaugeMetricFamily("comfyload_gateway_server_jobs", "Our jobs on a server.", labels=("server",))
        for member in gateway.fleet.members:
            takes = member.facts is not None and not member.drained and gateway.client.works(member.address)
            up.add_metric([member.name], takes)
            held.add_metric([member.name], gateway.client.held(member.address))
        yield up
        yield held


def _gauge(name: str, text: str, value: float) -> core.Metric:
    return core.GaugeMetricFamily(name, text, value=value)
