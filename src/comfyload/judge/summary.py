"""What a run comes to: one pass over its lines makes every number that is printed, stored or compared."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, UnsetType

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.arrivals import arrivals_of, rates
from comfyload.judge.columns.fold import Fetched, Fold, OutputCount, Reading
from comfyload.judge.columns.gpu import GpuRow, gpu_rows
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.columns.ledger import FailureRow
from comfyload.judge.columns.nodes import NodeRow, node_rows
from comfyload.judge.columns.pace import Pace
from comfyload.judge.columns.retries import RetryRow
from comfyload.judge.estimates import PERCENTILES, Evidence, estimates
from comfyload.judge.findings.clock_rates import clock_findings
from comfyload.judge.findings.consistency import (
    cache_findings,
    damage_findings,
    gpu_findings,
    ledger_findings,
    output_findings,
    server_findings,
)
from comfyload.judge.findings.fleet import fleet_findings
from comfyload.judge.findings.growth import growth_findings
from comfyload.judge.findings.load_checks import load_findings
from comfyload.judge.findings.others import foreign_findings
from comfyload.judge.findings.stability import steadiness_findings
from comfyload.judge.findings.table import Finding
from comfyload.judge.metrics import METRICS
from comfyload.judge.number import Counts, Plain
from comfyload.judge.numbers import NUMBERS
from comfyload.judge.overload import find_overload
from comfyload.judge.queue import queue_of
from comfyload.judge.saturation import Saturation, saturation
from comfyload.judge.servers import ServerRow, server_rows
from comfyload.judge.statistics.means import mean
from comfyload.judge.statistics.queue import Queue
from comfyload.judge.statistics.ranks import order_statistics
from comfyload.judge.statistics.stats import QUANTILE_METHOD, Statistic, percentile, value_needs
from comfyload.judge.workflows import AfterRow, WorkflowRow, after_rows, workflow_rows
from comfyload.record.environment.which_gpu import gpus_alike, is_simulated
from comfyload.record.journal import Damage
from comfyload.record.kinds import Kind
from comfyload.record.model import Manifest, Record, Sample, Sent
from comfyload.record.ranks import nearest_rank

__all__ = ["BookRow", "CacheRow", "Measured", "Summary", "jsonable", "measure", "summarise"]


class CacheRow(Struct, frozen=True, kw_only=True):
    """Completed counted jobs of one cache class, and the latency of these alone."""

    jobs: int
    avg_latency_s: Statistic
    p50_latency_s: Statistic


class BookRow(Struct, frozen=True, kw_only=True):
    """Counted books of `pages` jobs. `completed`: all pages were. `censored`: the end of the run cut a page off, and
    none is known to have failed. `dropped`: none was sent. The rest `failed`: a page ended otherwise.
    """

    pages: int
    books: int
    completed: int
    failed: int
    dropped: int
    censored: int


class Summary(Struct, frozen=True, kw_only=True):
    """A run as numbers. `summary` is flat, for tools: None is unknown or withheld, "inf" is infinite.

    `statistics` says of each number in `summary` that has an interval how sure it is, or why it is withheld.
    `observed` are percentiles and maxima of the completed jobs by nearest rank: what happened, and no estimate of what
    would happen; a percentile is None of fewer jobs than it takes to be no maximum. `other_methods` are the p95 as
    tools with other definitions would print it.
    `made` is new files by kind and by folder of the server, and texts `shown`; `images_by_type` is its part of images.
    `cache` has the keys `fresh`, `partial`, `cached`; `telemetry` is by `source.name`, `gpus` by the server's index;
    `left_on_server` counts jobs we gave up by their fate; `workflows` is by name; `after` splits executions by what
    ran before them; `books` None: an arrival is one job; `retries` None: there was no retry policy;
    `servers` is by name, of several. `server_clock`: how fast it ran against ours, None where too few jobs tell, or
    there are several servers.
    """

    summary: dict[str, Plain]
    statistics: dict[str, Statistic]
    findings: list[Finding]
    nodes: list[NodeRow]
    failures: list[FailureRow]
    cache: dict[str, CacheRow]
    outputs: dict[str, OutputCount]
    images_by_type: dict[str, int]
    made: dict[Kind, dict[str, int]]
    fetched: Fetched | None
    telemetry: dict[str, Reading]
    gpus: dict[str, GpuRow]
    saturation: Saturation
    left_on_server: dict[str, int]
    other_methods: dict[str, float | None]
    warmup: dict[str, int]
    observed: dict[str, float | None]
    workflows: dict[str, WorkflowRow]
    after: AfterRow
    books: BookRow | None
    retries: RetryRow | None
    servers: dict[str, ServerRow] = {}
    server_clock: Pace | None = None
    quantile_method: str = QUANTILE_METHOD

    @property
    def valid(self) -> bool:
        """Whether the numbers measure what they are named after."""
        return not any(finding.level == "invalid" for finding in self.findings)

    def statistic(self, key: str, workflow: str = "") -> Statistic:
        """The estimate of that key, of the whole run or of one workflow."""
        if not workflow:
            return self.statistics[key]
        found: Statistic = getattr(self.workflows[workflow], key)
        return found


class Measured(Struct, frozen=True, kw_only=True):
    """A run as it is judged: who it was, its numbers, its jobs as columns, and the queue that they waited in. `path`:
    where it lies, for people.
    """

    path: str
    manifest: Manifest
    summary: Summary
    jobs: Jobs
    queue: Queue

    def jobs_of(self, workflow: str) -> Flags:
        """Which counted jobs are of the workflow; all of them for ""."""
        if not workflow:
            return np.ones(self.jobs.n, np.bool_)
        return np.asarray(self.jobs.counted.workflow == list(self.summary.workflows).index(workflow))


def summarise(
    manifest: Manifest,
    lines: Iterable[Record | Sent],
    samples: Iterable[Sample] = (),
    damage: Mapping[str, Damage] | None = None,
) -> Summary:
    """Fold a run. Lines come in the order of the journal; their order matters only for which of two jobs with the
    same file name came first. Warm-up jobs are in no number but their own count. `damage`: what of which file could not
    be read, known once all lines and samples are.
    """
    return measure("", manifest, lines, samples, damage).summary


def measure(
    path: str,
    manifest: Manifest,
    lines: Iterable[Record | Sent],
    samples: Iterable[Sample] = (),
    damage: Mapping[str, Damage] | None = None,
) -> Measured:
    """`summarise`, with the columns it was made from."""
    fleet = manifest.fleet
    fold = Fold(
        manifest.workflows,
        retried=manifest.retry is not None,
        alike=_alike(manifest),
        servers=[server.url for server in fleet],
    )
    fold.add(lines)
    for sample in samples:
        fold.sample(sample)
    evidence = _evidence(manifest, fold)
    jobs, statistics, observed = evidence.jobs, estimates(evidence), _observed(evidence.jobs)
    latency = jobs.known("latency")
    made = fold.made.by_kind()
    simulated = {server.name: is_simulated(server) for server in fleet}
    gpus = gpu_rows(fold.gpus, jobs, (manifest.counted_from, manifest.counted_to), simulated)
    findings = _findings(evidence, gpus, damage or {})
    valid = not any(finding.level == "invalid" for finding in findings)
    summary = Summary(
        summary=_flat(statistics, _counts(evidence, observed, valid)),
        statistics=statistics,
        findings=findings,
        nodes=node_rows(fold, manifest.workflows),
        failures=fold.ledger.failures(),
        cache=_cache_rows(jobs),
        outputs=dict(sorted(fold.outputs.items())),
        images_by_type=made.get("image", {}),
        made=made,
        fetched=fold.fetched if fold.fetched.files else None,
        telemetry={f"{source}.{name}": reading for (source, name), reading in sorted(fold.readings.items())},
        gpus=gpus,
        saturation=saturation(jobs, evidence.wall_clock_s, gpus, resumed=bool(manifest.resumed)),
        left_on_server={state: named.count for state, named in sorted(fold.ledger.left.items())},
        other_methods={
            "p95_latency_linear_s": float(np.quantile(latency, 0.95)) if len(latency) else None,
            "p95_latency_nearest_rank_s": _nearest(latency, 0.95) if len(latency) else None,
        },
        warmup=dict[str, int](fold.ledger.warmup.items()),
        observed=observed,
        workflows=workflow_rows(evidence),
        after=after_rows(jobs),
        books=_book_row(evidence),
        retries=None if manifest.retry is None else fold.retries.row(jobs),
        servers=server_rows(evidence),
        server_clock=evidence.pace if len(fleet) == 1 else None,
    )
    return Measured(path=path, manifest=manifest, summary=summary, jobs=jobs, queue=evidence.queue)


def _evidence(manifest: Manifest, fold: Fold) -> Evidence:
    jobs = fold.finish()
    wall_clock_s = _wall_clock(jobs)
    arrivals = arrivals_of(jobs, manifest.plan.pages)
    made = rates(manifest, arrivals, wall_clock_s)
    return Evidence(
        manifest=manifest,
        fold=fold,
        jobs=jobs,
        arrivals=arrivals,
        rates=made,
        overload=None if manifest.resumed else find_overload(manifest.plan.load, arrivals, jobs, made),
        queue=queue_of(manifest.plan, jobs, arrivals, made),
        wall_clock_s=wall_clock_s,
        paces=_paces(manifest, fold, jobs),
    )


def _paces(manifest: Manifest, fold: Fold, jobs: Jobs) -> dict[str, Pace | None]:
    """How fast each server's clock ran against ours, by the server's name."""
    acknowledged, several = jobs.metric("acknowledge"), len(manifest.fleet) > 1
    known = jobs.completed & ~np.isnan(acknowledged)
    return {
        server.name: ends.pace(acknowledged[known & (jobs.counted.server == place)] if several else acknowledged[known])
        for place, (server, ends) in enumerate(zip(manifest.fleet, fold.ends, strict=True))
    }


def _alike(manifest: Manifest) -> dict[str, int]:
    """Of how many GPUs like it each is one; of several servers by the server's name and the GPU's."""
    first, *others = manifest.fleet
    if not others:
        return gpus_alike(manifest.environment)
    known = {} if isinstance(manifest.environments, UnsetType) else manifest.environments
    environments = {first.name: manifest.environment, **known}
    return {f"{name} {gpu}": n for name, facts in environments.items() for gpu, n in gpus_alike(facts).items()}


def _findings(evidence: Evidence, gpus: Mapping[str, GpuRow], damage: Mapping[str, Damage]) -> list[Finding]:
    rules = (
        ledger_findings,
        load_findings,
        fleet_findings,
        server_findings,
        foreign_findings,
        clock_findings,
        cache_findings,
        output_findings,
        steadiness_findings,
        growth_findings,
    )
    found = [finding for rule in rules for finding in rule(evidence)]
    found += [*gpu_findings(gpus), *damage_findings(damage)]
    return sorted(found, key=lambda finding: ("invalid", "warning", "info").index(finding.level))


def jsonable(value: object) -> Any:
    """The value as JSON types, without a token that JSON lacks: infinity is the string "inf", NaN is null."""
    plain = msgspec.to_builtins(value, str_keys=True)
    return _finite(plain)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else or_inf(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def or_inf(value: float | None) -> float | str | None:
    """A number as JSON has it: infinity is the string "inf", NaN is null."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _wall_clock(jobs: Jobs) -> float | None:
    """Seconds from the first counted job's due time to the last one's end; None for no such window."""
    due, done = jobs.instant("due"), jobs.instant("done")
    done = done[~np.isnan(done)]
    if not len(due) or not len(done):
        return None
    window = float(done.max() - due.min())
    return window if window > 0 else None


def _flat(statistics: dict[str, Statistic], counts: Counts) -> dict[str, Plain]:
    return {
        key: or_inf(statistics[key].value) if number.count is None else number.count(counts)
        for key, number in NUMBERS.items()
        if number.kind != "errors"
    }


def _counts(evidence: Evidence, observed: dict[str, float | None], valid: bool) -> Counts:
    fold, jobs, arrivals, books = evidence.fold, evidence.jobs, evidence.arrivals, _book_row(evidence)
    classes = jobs.cache_classes()
    whole = (arrivals.done - arrivals.due)[arrivals.completed]
    longest = {name: _longest(jobs.known(name)) for name in METRICS}
    longest["book_latency"] = None if books is None else _longest(whole[~np.isnan(whole)])
    return Counts(
        valid=valid,
        outcomes=fold.ledger.counted,
        censored=fold.ledger.censored,
        unfinished=len(fold.ledger.unfinished),
        warmup_jobs=fold.ledger.warmup.total(),
        cached_fully=classes["cached"],
        cached_partly=classes["partial"],
        made=fold.made.by_kind(),
        image_bytes=fold.fetched.image_bytes if fold.fetched.files else None,
        wall_clock_s=evidence.wall_clock_s,
        offered_per_minute=evidence.rates.offered,
        sent_per_minute=evidence.rates.sent,
        completed_per_minute=evidence.rates.completed,
        books=None if books is None else books.books,
        books_completed=None if books is None else books.completed,
        longest=longest,
        observed_p99_latency_s=observed["p99_latency_s"],
    )


def _longest(seconds: Floats) -> float | None:
    return float(seconds.max()) if len(seconds) else None


def _book_row(evidence: Evidence) -> BookRow | None:
    arrivals = evidence.arrivals
    if arrivals.pages == 1:
        return None
    ends = {name: int(getattr(arrivals, name).sum()) for name in ("completed", "dropped", "censored")}
    books = len(arrivals.due)
    return BookRow(pages=arrivals.pages, books=books, failed=books - sum(ends.values()), **ends)


def _observed(jobs: Jobs) -> dict[str, float | None]:
    """None where jobs are too few for the percentile: by nearest rank it would be the maximum under another name."""
    out: dict[str, float | None] = {}
    for metric in ("latency", "latency_sent"):
        seconds = jobs.known(metric)
        for name, p in PERCENTILES.items():
            out[f"{name}_{metric}_s"] = _nearest(seconds, p) if len(seconds) >= value_needs(p) else None
        out[f"max_{metric}_s"] = _longest(seconds)
    return out


def _nearest(seconds: Floats, p: float) -> float:
    rank = nearest_rank(len(seconds), p)
    return order_statistics(seconds, [rank])[rank]


def _cache_rows(jobs: Jobs) -> dict[str, CacheRow]:
    rows = {}
    for code, (name, count) in enumerate(jobs.cache_classes().items()):
        latency = jobs.known("latency", only=jobs.cache == code)
        rows[name] = CacheRow(jobs=count, avg_latency_s=mean(latency), p50_latency_s=percentile(latency, 0.5))
    return rows
