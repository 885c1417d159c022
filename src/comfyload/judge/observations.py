"""What is worth knowing about runs, in sentences: found by rules, each with its numbers, none beyond its intervals."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.columns.gpu import GpuRow, gpu_reading
from comfyload.judge.columns.jobs import CACHE_CLASSES
from comfyload.judge.columns.ledger import clean
from comfyload.judge.findings.stability import drifted
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.record.model import Manifest
from comfyload.words import digits, duration, gib, percent, span_words

_Group = list[tuple[str, Measured]]
Runs = Sequence[tuple[str, Measured]]
"""Runs with their labels."""

_TIGHT = 0.1
_UNSTEADY = 0.03
_GROWN, _READINGS = 0.05, 20


class RunObservation(Struct, frozen=True):
    """A sentence. `notable`: something was found; otherwise it says that nothing was, or that it is not known."""

    text: str
    notable: bool = True


def observations(runs: Sequence[Measured]) -> list[RunObservation]:
    """Sentences about all runs together, what was found before what was not; the order is that of the rules."""
    labelled = list(zip(run_labels(runs), runs, strict=True))
    rules = (_invalid, _by_concurrency, _busy, _gpu_busy, _failures, _nodes, _memory, _growth, _steady, _cold, _cache,
             _energy)  # fmt: skip
    found = [one for rule in rules for one in rule(labelled)]
    return sorted(found, key=lambda one: not one.notable)


def run_labels(runs: Sequence[Measured]) -> list[str]:
    """What each run is called in a sentence: its name and concurrency, and its id where these are not enough."""
    words = []
    for run in runs:
        users = run.manifest.plan.concurrency
        words.append(clean(run.manifest.name, 60) + ("" if users is None else f" at {users} in flight"))
    same = Counter(words)
    return [
        word if same[word] == 1 else f"{word} ({clean(run.manifest.run_id, 60)})"
        for run, word in zip(runs, words, strict=True)
    ]


def workflow_key(run: Measured) -> tuple[str, ...]:
    """Equal for runs of the same workflows."""
    return tuple(sorted(facts.sha256 for facts in run.manifest.workflows))


def _in(some: Runs, runs: Runs) -> str:
    """` in 2 of 9 runs (a; b)`; "" where it is true of all."""
    labels = "; ".join(label for label, _ in some)
    return f" in {len(some)} of {len(runs)} runs ({labels})" if len(some) < len(runs) else ""


def _first_of_each_workflow(runs: Runs) -> Runs:
    first: dict[tuple[str, ...], tuple[str, Measured]] = {}
    for label, run in runs:
        first.setdefault(workflow_key(run), (label, run))
    return list(first.values())


def _where(label: str, runs: Runs) -> str:
    """The label before a sentence about one of several runs."""
    return f"{label}: " if len(runs) > 1 else ""


def _invalid(runs: Runs) -> Iterator[RunObservation]:
    labels = [label for label, run in runs if not run.summary.valid]
    if labels:
        codes = Counter(one.code for _, run in runs for one in run.summary.findings if one.level == "invalid")
        what = "This run is" if len(runs) == 1 else f"{'; '.join(labels)}:"
        yield RunObservation(f"{what} invalid ({', '.join(codes)}): do not use its numbers.")


def _by_concurrency(runs: Runs) -> Iterator[RunObservation]:
    """Each closed load against the next one with more in flight, of the same workflows."""
    groups: dict[tuple[str, ...], dict[int, Measured]] = {}
    for _, run in runs:
        users = run.manifest.plan.concurrency
        if users is not None and run.summary.valid:
            groups.setdefault(workflow_key(run), {}).setdefault(users, run)
    ladders = [sorted(by_users.items()) for by_users in groups.values() if len(by_users) > 1]
    pairs = [pair for steps in ladders for pair in pairwise(steps)]
    if len(pairs) > 1:
        parts = [f"{_workflows(one)}: {_change(one, other, brief=True)}" for (_, one), *_, (_, other) in ladders]
        fewest, most = min(steps[0][0] for steps in ladders), max(steps[-1][0] for steps in ladders)
        yield RunObservation(f"From {fewest} to {most} in flight, {'; '.join(parts)}.")
    for (fewer, one), (more, other) in pairs:
        text = f"{_workflows(one)}, from {fewer} to {more} in flight: {_change(one, other)}."
        yield RunObservation(text, notable=len(pairs) == 1)


def _workflows(run: Measured) -> str:
    return clean(", ".join(facts.name for facts in run.manifest.workflows), 60)


def _change(one: Measured, other: Measured, *, brief: bool = False) -> str:
    """What of throughput was gained, and how often the median latency it was paid with."""
    rate, (a, b) = _rate(one, other), (run.summary.statistics["p50_latency_s"] for run in (one, other))
    if not a.value or not b.value or math.isinf(a.value) or math.isinf(b.value):
        return rate if brief else f"{rate}, median latency unknown"
    ratio = b.value / a.value
    if brief:
        return f"{rate}, median latency \N{MULTIPLICATION SIGN}{ratio:.3g}"
    times = f"\N{MULTIPLICATION SIGN}{ratio:.2f}, {_apart(a, b)}"
    return f"{rate}, median latency {duration(a.value)} to {duration(b.value)} ({times})"


def _rate(one: Measured, other: Measured) -> str:
    for key, words in (("images_per_minute", "images a minute"), ("jobs_per_minute", "jobs a minute")):
        a, b = one.summary.statistics[key], other.summary.statistics[key]
        if a.value and b.value and a.unit == b.unit:
            words = words.replace("images", "previews") if a.unit == "previews/min" else words
            change = f"{100 * (b.value / a.value - 1):+.1f} %, {_apart(a, b)}"
            return f"{words} {digits(a.value)} to {digits(b.value)} ({change})"
    return "throughput unknown"


def _apart(a: Statistic, b: Statistic) -> str:
    """Intervals that meet show no difference; those that do not, show one within these runs, not between days."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return "too few jobs to be sure"
    return "within noise" if a.low <= b.high and b.low <= a.high else "intervals apart"


def _busy(runs: Runs) -> Iterator[RunObservation]:
    """Service times over the wall clock."""
    full, rest, parallel, unknown = _Group(), _Group(), _Group(), _Group()
    for label, run in runs:
        busy, wall = run.summary.saturation.server_busy, run.summary.summary["wall_clock_s"]
        if busy is not None:
            group = parallel if busy > 1.02 else full if run.summary.saturation.server_saturated else rest
            group.append((label, run))
        elif not run.manifest.resumed and wall is not None:
            unknown.append((label, run))
    for group, words in ((full, "more jobs in flight would only wait"), (rest, "")):
        if group:
            shares = sorted(run.summary.saturation.server_busy or 0.0 for _, run in group)
            share = span_words(percent(shares[0]), percent(shares[-1]))
            text = f"The server was busy {share} of the time{_fewest(group)}{_in(group, runs)}"
            yield RunObservation(f"{text}{': ' if words else ''}{words}.", notable=group is full)
    for label, run in parallel:
        times = f"{run.summary.saturation.server_busy:.1f} jobs at a time on average"
        yield RunObservation(f"{_where(label, runs)}The server ran {times} (execution times over wall clock).")
    if unknown:
        text = f"How busy the server was is unknown{_in(unknown, runs)}: too few jobs have execution times."
        yield RunObservation(text, notable=False)


def _fewest(group: Runs) -> str:
    users = [run.manifest.plan.concurrency for _, run in group]
    known = [number for number in users if number is not None]
    if not known or len(known) < len(group):
        return ""
    return f" at {known[0]} in flight" if len(set(known)) == 1 else f", already at {min(known)} in flight"


def _gpu_busy(runs: Runs) -> Iterator[RunObservation]:
    """Each GPU against its own ceiling and the 90 % of a checklist, in the run that made the most of it."""
    for gpu, label, run in _peaks(runs, lambda row: row.utilisation_percent):
        row, found = run.summary.gpus[gpu], run.summary.saturation
        busy = found.gpus.get(gpu)
        if busy is None or busy.utilisation_percent is None:
            continue
        unknown = f", {row.unknown} unknown" if row.unknown else ""
        text = f"{_where(label, runs)}{_name(row, gpu)} was busy {busy.utilisation_percent:.0f} % of the time"
        if busy.ceiling_percent is not None:
            text += f", {busy.ceiling_percent:.0f} % while a job executed"
        text += f" ({row.readings} readings by {row.source}{unknown})"
        ceiling = busy.ceiling_percent
        if found.server_saturated and ceiling is not None and not busy.over_90_percent:
            idle = f"In {100 - ceiling:.0f} % of a job's time it does nothing"
            text += f". {idle}: only a faster disk, CPU or encoder helps"
        elif found.server_saturated and ceiling is not None:
            text += ": only a faster GPU helps"
        yield RunObservation(f"{text}.")


def _peaks(runs: Runs, value: Callable[[GpuRow], float | None]) -> Iterator[tuple[str, str, Measured]]:
    """Each GPU with the run in which its value was highest."""
    best: dict[str, tuple[float, str, Measured]] = {}
    for label, run in runs:
        for gpu, row in run.summary.gpus.items():
            number = value(row)
            if number is not None and (gpu not in best or number > best[gpu][0]):
                best[gpu] = (number, label, run)
    for gpu, (_, label, run) in best.items():
        yield gpu, label, run


def _name(row: GpuRow, gpu: str) -> str:
    return f"{'Simulated GPU' if row.simulated else 'GPU'} {gpu}"


def _failures(runs: Runs) -> Iterator[RunObservation]:
    counts: Counter[str] = Counter()
    for _, run in runs:
        for row in run.summary.failures:
            counts[row.kind] += row.count
    if not counts:
        jobs = sum(run.summary.statistics["success_rate"].n for _, run in runs)
        yield RunObservation(f"No job of {jobs} failed.", notable=False)
        return
    failed = [(label, run) for label, run in runs if run.summary.failures]
    kinds = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.most_common())
    jobs = sum(run.jobs.n for _, run in runs)
    yield RunObservation(f"{counts.total()} of {jobs} jobs did not succeed{_in(failed, runs)}: {kinds}.")


def _nodes(runs: Runs) -> Iterator[RunObservation]:
    """The slowest of each workflow in one sentence, then the first three of each."""
    first, details = [], []
    for label, run in _first_of_each_workflow(runs):
        rows = [row for row in run.summary.nodes if row.avg_s.value is not None][:3]
        parts = []
        for row in rows:
            where = f"{row.workflow}: " if len(run.summary.workflows) > 1 else ""
            share = "" if row.share is None else f", {percent(row.share)} of execution"
            node = clean(f"{where}{row.node} {row.class_type or 'not in the graph'}", 60)
            parts.append(f"{node} ({duration(row.avg_s.value or 0.0)} a run, n = {row.n}{share})")
        if parts:
            first.append(f"{parts[0]} in {_workflows(run)}")
            details.append(f"{_where(label, runs)}The slowest nodes are {'; '.join(parts)}.")
    if len(details) > 1:
        yield RunObservation(f"The slowest node is {'; '.join(first)}.")
    for text in details:
        yield RunObservation(text, notable=len(details) == 1)


def _memory(runs: Runs) -> Iterator[RunObservation]:
    found = False
    own = [(label, run) for label, run in runs if any(_has_own_memory(run, gpu) for gpu in run.summary.gpus)]
    for gpu, label, run in _peaks(own, lambda row: row.vram_peak_bytes):
        if not _has_own_memory(run, gpu):
            continue
        found, row = True, run.summary.gpus[gpu]
        most, total = row.vram_peak_bytes or 0.0, row.vram_total_bytes or _vram(run.manifest, gpu)
        text = f"{_where(label, runs)}{_name(row, gpu)} held "
        if total is None:
            yield RunObservation(f"{text}{gib(most)} at most; how much it has is unknown.")
            continue
        free = max(total - most, 0.0)
        tight = ": little is left" if free < _TIGHT * total else ""
        left = f"{gib(free)} ({percent(free / total)}) stayed free{tight}"
        yield RunObservation(f"{text}{gib(most)} of {gib(total)} at most: {left}.", notable=bool(tight))
    if not found:
        text = "How much GPU memory was used is unknown: no readings of it were recorded."
        yield RunObservation(text, notable=False)


def _has_own_memory(run: Measured, gpu: str) -> bool:
    """Whether its memory was read of the server's own GPU, be it one of several alike: ComfyUI reports it itself."""
    row, reported = run.summary.gpus.get(gpu), run.summary.telemetry.get(f"comfy.gpu.{gpu}.vram_used_bytes")
    return row is None or row.alike == 1 or (reported is not None and reported.n > 0)


def _growth(runs: Runs) -> Iterator[RunObservation]:
    """Memory that grows with the jobs is a leak, or a cache that is still filling."""
    for label, run in runs:
        wall = run.summary.summary["wall_clock_s"]
        for name, reading in run.summary.telemetry.items():
            known = gpu_reading(name.partition(".")[2])
            if known is None or known.kind != "vram_used" or reading.per_s is None or not isinstance(wall, float):
                continue
            if not name.startswith("comfy.") and not _has_own_memory(run, known.gpu):
                continue
            grown, mean = known.factor * reading.per_s * wall, known.factor * (reading.mean or 0.0)
            if reading.n >= _READINGS and grown > _GROWN * mean:
                row = run.summary.gpus.get(known.gpu)
                name = f"GPU {known.gpu}" if row is None else _name(row, known.gpu)
                text = f"Memory of {name} grew by about {digits(grown / 2**30)} GiB over the run"
                share = f"({percent(grown / mean)} of its mean; least squares over {reading.n} readings)"
                yield RunObservation(f"{_where(label, runs)}{text} {share}.")


def _vram(manifest: Manifest, gpu: str) -> float | None:
    fact = manifest.environment.get(f"gpu.{gpu}.vram_bytes")
    if fact is not None and isinstance(fact.value, int | float):
        return float(fact.value)
    devices = [device.get("vram_total") for device in manifest.server.devices]
    total = devices[int(gpu)] if int(gpu) < len(devices) else None
    return float(total) if isinstance(total, int | float) and total > 0 else None


def _steady(runs: Runs) -> Iterator[RunObservation]:
    steady, fewest = _Group(), math.inf
    for label, run in runs:
        found = {finding.code: finding for finding in run.summary.findings}
        if "overload" in found:
            yield RunObservation(f"{_where(label, runs)}The queue grew all through the run: so did latency.")
        if "drift" in found:
            share = float(found["drift"].evidence["change"])
            pace = f"{percent(abs(share))} {'slower' if share > 0 else 'faster'}"
            yield RunObservation(f"{_where(label, runs)}Execution times drifted: jobs became {pace} within the run.")
            continue
        execution = _fresh(run)
        change = drifted(execution)
        if len(execution) >= 20 and (change is None or abs(change.change) <= _UNSTEADY):
            steady.append((label, run))
            fewest = min(fewest, len(execution))
    if steady:
        least = f"{fewest} fresh jobs" if len(runs) == 1 else f"at least {fewest} fresh jobs a run"
        text = f"Execution times did not drift by more than {percent(_UNSTEADY)}{_in(steady, runs)} ({least})."
        yield RunObservation(text, notable=False)


def _cold(runs: Runs) -> Iterator[RunObservation]:
    """One job is compared with many: its own value, and no interval of what cold starts cost."""
    for label, run in _first_of_each_workflow(runs):
        where, first, fresh = _where(label, runs), *_first_warmup(run)
        if first is None or not len(fresh):
            why = "the run had no warm-up job" if first is None else "the first warm-up job has no execution time"
            yield RunObservation(f"{where}What a cold start costs is unknown: {why}.", notable=False)
            continue
        middle = float(np.median(fresh))
        usual = f"median of fresh jobs ({duration(middle)}, n = {len(fresh)})"
        if first > 1.1 * middle and first > float(fresh.max()):
            text = f"The first warm-up job executed in {duration(first)}, {first / middle:.1f} times the {usual}. "
            text += f"The cold start cost about {duration(first - middle)}: one job, no interval."
            yield RunObservation(f"{where}{text}")
        else:
            text = f"No cold start: the first warm-up job executed in {duration(first)}, near the {usual}. "
            yield RunObservation(f"{where}{text}The server may have been warm already.", notable=False)


def _first_warmup(run: Measured) -> tuple[float | None, Floats]:
    """Its seconds of execution and those of fresh jobs of its workflow; no jobs if the two cannot be compared."""
    columns, n = run.jobs.every, run.jobs.n
    due = columns.instants["due"][n:]
    if not len(due):
        return None, np.empty(0)
    first = n + int(np.argmin(due))
    seconds = float(columns.instants["end_ms"][first] - columns.instants["start_ms"][first]) / 1000
    fresh = _fresh(run, run.jobs.counted.workflow == columns.workflow[first])
    comparable = not math.isnan(seconds) and bool(columns.completed[first])
    return seconds, fresh if comparable else np.empty(0)


def _cache(runs: Runs) -> Iterator[RunObservation]:
    completed = sum(int(run.jobs.completed.sum()) for _, run in runs)
    if not completed:
        return
    cached = [one for one in runs if any(one[1].summary.cache[name].jobs for name in ("partial", "cached"))]
    if not cached:
        yield RunObservation(f"None of {completed} completed jobs came from the server's cache.", notable=False)
    for label, run in cached:
        partial, whole = (run.summary.cache[name].jobs for name in ("partial", "cached"))
        fresh = run.summary.cache["fresh"].p50_latency_s.value
        alone = "" if fresh is None else f"; the median latency of the others was {duration(fresh)}"
        jobs = f"Of {int(run.jobs.completed.sum())} completed jobs"
        text = f"{jobs} {whole} came wholly and {partial} partly from the cache{alone}."
        yield RunObservation(f"{_where(label, runs)}{text}")


def _energy(runs: Runs) -> Iterator[RunObservation]:
    for label, run in _first_of_each_workflow(runs):
        for gpu, row in run.summary.gpus.items():
            joules = row.energy_per_job_j
            if joules.value is not None:
                sure = "" if joules.low is None or joules.high is None else f" ({joules.low:.0f} to {joules.high:.0f})"
                text = f"A job took {joules.value:.0f} J{sure} of {_name(row, gpu)} on average (n = {joules.n})."
                yield RunObservation(f"{_where(label, runs)}{text}", notable=False)
    for gpu, label, run in _peaks(runs, lambda row: row.throttled_share if row.alike == 1 else None):
        row = run.summary.gpus[gpu]
        if row.throttled_share:
            text = f"{_name(row, gpu)} was throttled in {percent(row.throttled_share)} of its readings."
            yield RunObservation(f"{_where(label, runs)}{text}")


def _fresh(run: Measured, of: Flags | bool = True) -> Floats:
    """Execution times of jobs with nothing from the cache."""
    return run.jobs.known("execution", (run.jobs.cache == CACHE_CLASSES.index("fresh")) & of)
