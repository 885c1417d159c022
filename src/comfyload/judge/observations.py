"""Sentences on runs: found by rules, each with its numbers, none beyond its intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from comfyload.judge.columns.gpu import GpuRow, gpu_reading
from comfyload.judge.columns.jobs import CACHE_CLASSES
from comfyload.judge.columns.ledger import clean
from comfyload.judge.findings.stability import drift
from comfyload.judge.saturation import GpuBusy
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.judge.words import digits, percent
from comfyload.judge.words import seconds as in_seconds
from comfyload.record.model import Manifest

__all__ = ["observations"]

Floats = NDArray[np.float64]
_GIB = 2.0**30
_TIGHT = 0.1
_UNSTEADY = 0.03
_GROWN, _READINGS = 0.05, 20


def observations(runs: Sequence[Measured]) -> list[str]:
    """Sentences: first about what changes between runs, then about each; what is true of several stands once."""
    if len(runs) < 2:
        return [sentence for run in runs for sentence in _of_one(run)]
    of: dict[str, list[str]] = {}
    works: set[str] = set()
    for label, run in zip(_labels(runs), runs, strict=True):
        for sentence in _of_one(run, first=_work(run) not in works):
            of.setdefault(sentence, []).append(label)
        works.add(_work(run))
    out = list(_across(runs))
    for sentence, labels in of.items():
        out.append(f"{f'All {len(runs)} runs' if len(labels) == len(runs) else '; '.join(labels)}: {sentence}")
    return out


def _work(run: Measured) -> str:
    return "+".join(sorted(facts.sha256 for facts in run.manifest.workflows))


def _of_one(run: Measured, *, first: bool = True) -> Iterator[str]:
    """`first`: of its workflow. Which nodes cost most, and what a cold start costs, stands once."""
    if not run.summary.valid:
        codes = ", ".join(finding.code for finding in run.summary.findings if finding.level == "invalid")
        yield f"This run is not valid ({codes}): what follows describes it and does not measure the server."
    once = (_cold, _nodes) if first else ()
    for rule in (_busy, _memory, _energy, _steady, *once, _cache, _failures):
        yield from rule(run)


def _busy(run: Measured) -> Iterator[str]:
    """Service times over the wall clock, and each GPU against its own ceiling and the 90 % of a checklist."""
    found, users = run.summary.saturation, run.manifest.plan.concurrency
    if found.server_busy is None:
        if not run.manifest.resumed and run.summary.summary["wall_clock_s"] is not None:
            yield "How busy the server was is not known: too few jobs have an execution time."
    elif found.server_busy > 1.02:
        load = "" if users is None else f" at {users} in flight"
        times = f"{found.server_busy:.1f} jobs at a time on average{load} (sum of execution over wall clock)"
        yield f"The server ran {times}."
    else:
        more = ": more jobs in flight only wait" if found.server_saturated else ""
        when = "Already at" if found.server_saturated else "At"
        load = "On average" if users is None else f"{when} {users} in flight"
        of = f"sum of service times over wall clock, n = {found.service_times}"
        yield f"{load} the server is busy {percent(found.server_busy)} of the time ({of}){more}."
    for gpu, busy in found.gpus.items():
        if busy.utilisation_percent is not None:
            yield _gpu_busy(gpu, busy, run.summary.gpus[gpu], full=bool(found.server_saturated))


def _gpu_busy(gpu: str, busy: GpuBusy, row: GpuRow, *, full: bool) -> str:
    words = f"GPU {gpu} had a kernel running {busy.utilisation_percent:.0f} % of the time on average"
    unknown = f", {row.unknown} unknown" if row.unknown else ""
    of = f"({row.readings} readings by {row.source}{unknown})"
    if busy.ceiling_percent is None:
        return f"{words} {of}."
    words += f", {busy.ceiling_percent:.0f} % while a job executed {of}"
    if full and not busy.over_90_percent:
        rest = 100 - busy.ceiling_percent
        return (
            f"{words}. It cannot reach 90 %: no kernel runs in {rest:.0f} % of a job's time. A faster disk, CPU or "
            f"encoder helps; more in flight does not."
        )
    if full:
        return f"{words}: a faster GPU helps; more in flight does not."
    return f"{words}: {'at' if busy.at_ceiling else 'below'} what these jobs can make of it."


def _energy(run: Measured) -> Iterator[str]:
    for gpu, row in run.summary.gpus.items():
        joules = row.energy_per_job_j
        if joules.value is not None:
            sure = "" if joules.low is None or joules.high is None else f" ({joules.low:.0f} to {joules.high:.0f})"
            yield f"A job took {joules.value:.0f} J{sure} of GPU {gpu} on average (n = {joules.n}, {joules.method})."
        if row.throttled_share and row.alike == 1:
            yield f"GPU {gpu} was throttled in {percent(row.throttled_share)} of its readings."


def _memory(run: Measured) -> Iterator[str]:
    used = {
        gpu: row.vram_peak_bytes
        for gpu, row in run.summary.gpus.items()
        if row.vram_peak_bytes is not None and _has_own_memory(run, gpu)
    }
    yield from _growth(run)
    if not used:
        yield "VRAM headroom is unknown: this run recorded no readings of GPU memory."
    for gpu, most in used.items():
        total = run.summary.gpus[gpu].vram_total_bytes or _vram(run.manifest, gpu)
        if total is None:
            yield f"GPU {gpu} held {most / _GIB:.1f} GiB at most; its size and so the headroom are unknown."
            continue
        free = total - most
        tight = ": little is left" if free < _TIGHT * total else ""
        yield (
            f"GPU {gpu} held {most / _GIB:.1f} of {total / _GIB:.1f} GiB at most: a headroom of {free / _GIB:.1f} GiB "
            f"({percent(max(free, 0.0) / total)}){tight}."
        )


def _has_own_memory(run: Measured, gpu: str) -> bool:
    """Whether the reading is of the server's own GPU, also where several are identical: ComfyUI reports its own."""
    row, own = run.summary.gpus.get(gpu), run.summary.telemetry.get(f"comfy.gpu.{gpu}.vram_used_bytes")
    return row is None or row.alike == 1 or (own is not None and own.n > 0)


def _growth(run: Measured) -> Iterator[str]:
    """Memory that grows with the jobs is a leak, or a cache that is still filling."""
    wall = run.summary.summary["wall_clock_s"]
    for name, reading in run.summary.telemetry.items():
        known = gpu_reading(name.partition(".")[2])
        if known is None or known.kind != "vram_used" or reading.per_s is None or not isinstance(wall, float):
            continue
        if not name.startswith("comfy.") and not _has_own_memory(run, known.gpu):
            continue
        grown, mean = known.factor * reading.per_s * wall, known.factor * (reading.mean or 0.0)
        if reading.n >= _READINGS and grown > _GROWN * mean:
            yield (
                f"Memory of GPU {known.gpu} grew by about {grown / _GIB:.2f} GiB over the run "
                f"({percent(grown / mean)} of its mean; least squares over {reading.n} readings)."
            )


def _vram(manifest: Manifest, gpu: str) -> float | None:
    fact = manifest.environment.get(f"gpu.{gpu}.vram_bytes")
    if fact is not None and isinstance(fact.value, int | float):
        return float(fact.value)
    devices = [device.get("vram_total") for device in manifest.server.devices]
    total = devices[int(gpu)] if int(gpu) < len(devices) else None
    return float(total) if isinstance(total, int | float) and total > 0 else None


def _steady(run: Measured) -> Iterator[str]:
    found = {finding.code: finding for finding in run.summary.findings}
    if "drift" in found:
        change = float(found["drift"].evidence["change"])
        pace = "slower" if change > 0 else "faster"
        yield f"Execution drifted: jobs became {percent(abs(change))} {pace} from first to last (Theil-Sen, 99 %)."
    if "overload" in found:
        yield "The queue grew through the run: latencies depend on how long it lasted."
    execution = _fresh(run, "execution")
    if "drift" in found or len(execution) < 20:
        return
    change_or_none = drift(execution)
    if change_or_none is None or abs(change_or_none) <= _UNSTEADY:
        yield f"No drift of execution times beyond {percent(_UNSTEADY)} was found over {len(execution)} fresh jobs."


def _cold(run: Measured) -> Iterator[str]:
    """One job is compared with many: its own value, and no interval of what cold starts cost."""
    columns, n = run.jobs.every, run.jobs.n
    due = columns.instants["due"][n:]
    head = next((finding for finding in run.summary.findings if finding.code == "cold_head"), None)
    if head is not None:
        yield clean(head.text, 300)
    if not len(due):
        yield "The cost of a cold start is unknown: the run had no warm-up job."
        return
    first = n + int(np.argmin(due))
    seconds = float(columns.instants["end_ms"][first] - columns.instants["start_ms"][first]) / 1000
    fresh = _fresh(run, "execution", run.jobs.counted.workflow == columns.workflow[first])
    if math.isnan(seconds) or not len(fresh) or not columns.completed[first]:
        yield "The cost of a cold start is unknown: the first warm-up job has no execution time to compare."
        return
    middle = float(np.median(fresh))
    took, usual, n = in_seconds(seconds), in_seconds(middle), len(fresh)
    if seconds > 1.1 * middle and seconds > float(fresh.max()):
        yield (
            f"The first warm-up job executed in {took}, {seconds / middle:.1f} times the median of fresh jobs "
            f"({usual}, n = {n}). The cold start cost about {in_seconds(seconds - middle)}: one job, no interval."
        )
    else:
        yield (
            f"No cold start: the first warm-up job executed in {took}, fresh jobs in {usual} (median, n = {n}). The "
            "server may have been warm already."
        )


def _nodes(run: Measured) -> Iterator[str]:
    rows = [row for row in run.summary.nodes if row.avg_s.value is not None][:3]
    if not rows:
        return
    several = len(run.summary.workflows) > 1
    parts = []
    for row in rows:
        where = f"{row.workflow}: " if several else ""
        share = "" if row.share is None else f", {percent(row.share)} of execution"
        parts.append(
            clean(f"{where}{row.node} {row.class_type or 'not in the graph'}", 60)
            + f" ({in_seconds(row.avg_s.value or 0.0)} a run, n = {row.n}{share})"
        )
    yield f"The costliest nodes are {'; '.join(parts)}."


def _cache(run: Measured) -> Iterator[str]:
    completed = int(run.jobs.completed.sum())
    if not completed:
        return
    partial, whole = (run.summary.cache[name].jobs for name in ("partial", "cached"))
    if not partial + whole:
        yield f"No completed counted job came from the server's cache (n = {completed})."
        return
    fresh = run.summary.cache["fresh"].p50_latency_s.value
    alone = "" if fresh is None else f"; the fresh alone had a median latency of {in_seconds(fresh)}"
    yield f"Of {completed} completed jobs {whole} came wholly and {partial} partly from the server's cache{alone}."


def _failures(run: Measured) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for row in run.summary.failures:
        counts[row.kind] += row.count
    if not counts:
        yield f"No job failed, of {run.summary.statistics['success_rate'].n}."
        return
    kinds = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.most_common())
    yield f"{counts.total()} of {run.jobs.n} jobs did not complete: {kinds}."


def _across(runs: Sequence[Measured]) -> Iterator[str]:
    """Each closed load against the next one with more in flight, of the same workflows."""
    groups: dict[tuple[str, ...], dict[int, Measured]] = {}
    for run in runs:
        users = run.manifest.plan.concurrency
        if users is not None and run.summary.valid:
            key = tuple(sorted(facts.sha256 for facts in run.manifest.workflows))
            groups.setdefault(key, {}).setdefault(users, run)
    for by_users in groups.values():
        steps = sorted(by_users.items())
        for (fewer, one), (more, other) in pairwise(steps):
            name = clean(", ".join(facts.name for facts in one.manifest.workflows), 60)
            yield f"{name}, from {fewer} to {more} in flight: {_rate(one, other)}, {_wait(one, other)}."


def _rate(one: Measured, other: Measured) -> str:
    for key, words in (("images_per_minute", "images per minute"), ("jobs_per_minute", "jobs per minute")):
        a, b = one.summary.statistics[key], other.summary.statistics[key]
        if a.value and b.value and a.unit == b.unit:
            words = words.replace("images", "previews") if a.unit == "previews/min" else words
            change = f"{100 * (b.value / a.value - 1):+.1f} %, {_apart(a, b)}"
            return f"{words} {digits(a.value)} to {digits(b.value)} ({change})"
    return "throughput unknown"


def _wait(one: Measured, other: Measured) -> str:
    a, b = one.summary.statistics["p50_latency_s"], other.summary.statistics["p50_latency_s"]
    if not a.value or not b.value or math.isinf(a.value) or math.isinf(b.value):
        return "p50 latency unknown"
    times = f"\N{MULTIPLICATION SIGN}{b.value / a.value:.2f}"
    return f"p50 latency {in_seconds(a.value)} to {in_seconds(b.value)} ({times}, {_apart(a, b)})"


def _apart(a: Statistic, b: Statistic) -> str:
    """Intervals that overlap show no difference; others show one between these runs, not between days."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return "too few jobs to be sure"
    return "within noise" if a.low <= b.high and b.low <= a.high else "intervals apart"


def _labels(runs: Sequence[Measured]) -> list[str]:
    words = []
    for run in runs:
        users = run.manifest.plan.concurrency
        words.append(clean(run.manifest.name, 60) + ("" if users is None else f", {users} in flight"))
    same = Counter(words)
    return [
        word if same[word] == 1 else f"{word} ({clean(run.manifest.run_id, 60)})"
        for run, word in zip(runs, words, strict=True)
    ]


def _fresh(run: Measured, metric: str, of: NDArray[np.bool_] | None = None) -> Floats:
    fresh = run.jobs.cache == CACHE_CLASSES.index("fresh")
    return run.jobs.known(metric, fresh if of is None else fresh & of)
