"""Knows what a run comes to: one pass over its lines makes every number that is printed, stored or compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.findings import Evidence, Finding, cache_findings, ledger_findings, server_findings
from comfyload.judge.fold import CACHE_CLASSES, Fetched, Fold, Jobs, OutputCount, Reading
from comfyload.judge.ledger import FailureRow
from comfyload.judge.metrics import METRICS
from comfyload.judge.nodes import NodeRow, node_rows
from comfyload.judge.stats import QUANTILE_METHOD, Statistic, mean, percentile, proportion, ratio_interval
from comfyload.judge.steadiness import steadiness_findings
from comfyload.record.model import Manifest, Record, Sample, Sent

__all__ = ["CacheRow", "Summary", "jsonable", "summarise"]

Floats = NDArray[np.float64]
Plain = int | float | str | bool | None

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_WITH_FAILURES = ("p50", "p90", "p95", "p99")


class CacheRow(Struct, frozen=True, kw_only=True):
    """Completed counted jobs of one cache class, and the latency of these alone."""

    jobs: int
    avg_latency_s: Statistic
    p50_latency_s: Statistic


class Summary(Struct, frozen=True, kw_only=True):
    """A run as numbers. `summary` is flat, for tools: None is unknown or withheld, "inf" is infinite.

    `statistics` says of each number in `summary` that has an interval how sure it is, or why it is withheld.
    `other_methods` are the p95 as tools with other definitions would print it; `cache` has the keys `fresh`,
    `partial`, `cached`; `telemetry` is by `source.name`; `left_on_server` counts jobs we gave up by their fate.
    """

    summary: dict[str, Plain]
    statistics: dict[str, Statistic]
    findings: list[Finding]
    nodes: list[NodeRow]
    failures: list[FailureRow]
    cache: dict[str, CacheRow]
    outputs: dict[str, OutputCount]
    images_by_type: dict[str, int]
    fetched: Fetched | None
    telemetry: dict[str, Reading]
    left_on_server: dict[str, int]
    other_methods: dict[str, float | None]
    warmup: dict[str, int]
    quantile_method: str = QUANTILE_METHOD

    @property
    def valid(self) -> bool:
        """Whether the numbers measure what they are named after."""
        return not any(finding.level == "invalid" for finding in self.findings)


def summarise(manifest: Manifest, lines: Iterable[Record | Sent], samples: Iterable[Sample] = ()) -> Summary:
    """Fold a run. Lines come in the order of the journal; their order matters only for which of two jobs with the
    same file name came first. Warm-up jobs are in no number but their own count.
    """
    fold = Fold(manifest.workflows)
    for line in lines:
        fold.add(line)
    for sample in samples:
        fold.sample(sample)
    jobs = fold.jobs()
    evidence = Evidence(manifest=manifest, fold=fold, jobs=jobs)
    findings = sorted(
        [
            *ledger_findings(evidence),
            *server_findings(evidence),
            *cache_findings(evidence),
            *steadiness_findings(evidence),
        ],
        key=lambda finding: ("invalid", "warning", "info").index(finding.level),
    )
    wall_clock_s = _wall_clock(jobs)
    statistics = _statistics(fold, jobs, wall_clock_s)
    valid = not any(finding.level == "invalid" for finding in findings)
    latency = np.sort(jobs.known("latency"))
    return Summary(
        summary=_flat(fold, jobs, statistics, wall_clock_s, valid),
        statistics=statistics,
        findings=findings,
        nodes=node_rows(fold, manifest.workflows),
        failures=fold.ledger.failures(),
        cache=_cache_rows(jobs),
        outputs=dict(sorted(fold.outputs.items())),
        images_by_type=dict(sorted(fold.images_by_type.items())),
        fetched=fold.fetched if fold.fetched.files else None,
        telemetry={f"{source}.{name}": reading for (source, name), reading in sorted(fold.readings.items())},
        left_on_server={state: named.count for state, named in sorted(fold.ledger.left.items())},
        other_methods={
            "p95_latency_linear_s": float(np.quantile(latency, 0.95)) if len(latency) else None,
            "p95_latency_nearest_rank_s": _nearest_rank(latency, 0.95),
        },
        warmup=dict(fold.ledger.warmup),
    )


def jsonable(value: object) -> Any:
    """The value as JSON types, without a token that JSON lacks: infinity is the string "inf", NaN is null."""
    plain = msgspec.to_builtins(value, str_keys=True)
    return _finite(plain)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else _or_inf(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _or_inf(value: float | None) -> float | str | None:
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _wall_clock(jobs: Jobs) -> float | None:
    """Seconds from the first counted job's due time to the last one's end; None for no such window."""
    due, done = jobs.columns["due"], jobs.columns["done"]
    done = done[~np.isnan(done)]
    if not len(due) or not len(done):
        return None
    window = float(done.max() - due.min())
    return window if window > 0 else None


def _statistics(fold: Fold, jobs: Jobs, wall_clock_s: float | None) -> dict[str, Statistic]:
    offered, completed = fold.ledger.offered, fold.ledger.counted["completed"]
    out = {"success_rate": proportion(completed, offered, "jobs offered")}
    for metric in METRICS:
        known = jobs.known(metric.name)
        what = "completed jobs" if len(known) == completed else f"of {completed} completed jobs with this time"
        for shown in metric.shown:
            if shown == "avg":
                out[f"avg_{metric.name}_s"] = mean(known, what=what)
            elif shown != "max":  # a maximum of n estimates nothing, so it has no interval
                out[f"{shown}_{metric.name}_s"] = percentile(known, _PERCENTILES[shown], what=what)
    # A job without an end took longer than any limit; one that was never known to end is no shorter.
    endless = np.where(jobs.completed, jobs.columns["latency"], math.inf)
    endless = endless[~np.isnan(endless)]
    for shown in _WITH_FAILURES:
        name = f"{shown}_latency_with_failures_s"
        out[name] = percentile(endless, _PERCENTILES[shown], what="jobs offered")
    ended = ~np.isnan(jobs.columns["done"])
    out["images_per_minute"] = _per_minute(jobs, jobs.columns["images"], ended, wall_clock_s, "images")
    out["jobs_per_minute"] = _per_minute(jobs, jobs.completed.astype(float), ended, wall_clock_s, "jobs")
    return out


def _per_minute(jobs: Jobs, made: Floats, ended: NDArray[np.bool_], wall_clock_s: float | None, what: str) -> Statistic:
    """What was made, over the counted window, with the interval of a renewal-reward rate.

    A gap is the time from one job that made something to the next; the first counts from the window's start, the last
    to its end. So the gaps sum to the window, the rate is the plain quotient, and its n is the jobs that made it.
    """
    method, unit = "renewal reward, Student t", f"{what}/min"
    ends, made = jobs.columns["done"][ended], made[ended]
    n = int((made > 0).sum())
    if wall_clock_s is None or n == 0:
        reason = "no job completed" if not jobs.completed.any() else "no new image was made"
        return Statistic(value=None, n=0, unit=unit, method=method, reason=reason)
    gaps = np.diff(ends[made > 0], prepend=float(jobs.columns["due"].min()))
    gaps[-1] += float(ends[-1]) - float(ends[made > 0][-1])
    rate, (low, high), tau = ratio_interval(made[made > 0], gaps)
    return Statistic(
        value=60 * rate,
        low=None if low is None else 60 * low,
        high=None if high is None else 60 * high,
        n=n,
        n_eff=n / tau,
        unit=unit,
        method=method,
        reason="" if low is not None else f"{n / tau:.0f} independent jobs made {what}; an interval needs 2",
    )


def _flat(
    fold: Fold, jobs: Jobs, statistics: dict[str, Statistic], wall_clock_s: float | None, valid: bool
) -> dict[str, Plain]:
    counted, classes = fold.ledger.counted, jobs.cache[jobs.completed]
    by_class = {name: int((classes == code).sum()) for code, name in enumerate(CACHE_CLASSES)}
    out: dict[str, Plain] = {
        "valid": valid,
        "total_jobs": fold.ledger.offered,
        "completed": counted["completed"],
        "failed": counted["failed"],
        "timeouts": counted["timed_out"],
        "cancelled": counted["cancelled"],
        "lost": counted["lost"],
        "dropped": counted["dropped"],
        "unfinished": len(fold.ledger.unfinished),
        "warmup_jobs": fold.ledger.warmup.total(),
        "cached": by_class["cached"] + by_class["partial"],
        "cached_fully": by_class["cached"],
        "cached_partly": by_class["partial"],
        "images": int(jobs.columns["images"].sum()),
        "image_bytes": fold.fetched.image_bytes if fold.fetched.files else None,
        "wall_clock_s": wall_clock_s,
    }
    out.update({name: _or_inf(statistic.value) for name, statistic in statistics.items()})
    for metric in METRICS:
        known = jobs.known(metric.name)
        out[f"max_{metric.name}_s"] = float(known.max()) if len(known) else None
    return out


def _cache_rows(jobs: Jobs) -> dict[str, CacheRow]:
    rows = {}
    for code, name in enumerate(CACHE_CLASSES):
        latency = jobs.known("latency", only=jobs.cache == code)
        rows[name] = CacheRow(
            jobs=int((jobs.cache[jobs.completed] == code).sum()),
            avg_latency_s=mean(latency),
            p50_latency_s=percentile(latency, 0.5),
        )
    return rows


def _nearest_rank(ordered: Floats, p: float) -> float | None:
    return float(ordered[math.ceil(p * len(ordered)) - 1]) if len(ordered) else None
