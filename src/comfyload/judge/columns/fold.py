"""How to pass once over a run's lines and keep only columns of numbers, never the records."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import compress
from operator import add
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct, field, structs
from numpy.typing import NDArray

from comfyload.judge.columns.cache import CacheJudge, JobFiles
from comfyload.judge.columns.gpu import GpuReadings
from comfyload.judge.columns.jobs import CACHE_CLASSES, Columns, Jobs
from comfyload.judge.columns.ledger import Ledger, Tagged, clean, is_ours
from comfyload.judge.columns.made import Made
from comfyload.judge.columns.pace import Ends
from comfyload.judge.columns.retries import Retries
from comfyload.judge.columns.stamps import doubtful
from comfyload.judge.metrics import INSTANTS, Instant, instants
from comfyload.record.kinds import Kind, kind_of
from comfyload.record.model import Execution, Line, Record, Sample, WorkflowFacts
from comfyload.record.stamps import believed

Floats = NDArray[np.float64]
Column = TypeVar("Column", bound=np.generic)
_TYPES: dict[str, type[np.generic]] = dict.fromkeys(INSTANTS, np.float64)
_TYPES |= {"book": np.int64, "images": np.uint32, "previews": np.uint32, "workflow": np.uint16, "flags": np.uint8}
"""The columns, and how each is kept."""
_CACHE_CODES = {name: code for code, name in enumerate(CACHE_CLASSES)}
_COMPLETED, _DROPPED, _CENSORED, _WARMUP, _CACHE, _RETRIED, _OURS = 1, 2, 4, 8, 16, 64, 128
_OUTCOMES: dict[str, int] = {"completed": _COMPLETED, "dropped": _DROPPED}


class NodeTimes(Struct, kw_only=True):
    """Seconds of one node's runs, in single precision: finer than the 15 ms that their clock is good to.

    `of_known` is their sum over the jobs whose execution time is known: the numerator of a share.
    """

    seconds: array[float] = field(default_factory=lambda: array("f"))
    of_known: float = 0.0


class OutputCount(Struct, kw_only=True):
    """What jobs reported under one key: jobs, things, and of these the files by `output` or `temp`."""

    jobs: int = 0
    count: int = 0
    files: dict[str, int] = field(default_factory=dict)


class Fetched(Struct, kw_only=True):
    """Downloads of counted jobs' outputs; bytes and seconds are sums, `kinds` the bytes by kind of file."""

    files: int = 0
    bytes: int = 0
    image_bytes: int = 0
    kinds: dict[Kind, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)


class Held(Struct, kw_only=True):
    """Counted jobs that were held back because the server's queue was full; seconds, and how many were never sent."""

    jobs: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    dropped: int = 0


class Reading(Struct, kw_only=True):
    """Telemetry under one name: `unknown` readings have no value and are in no other number.

    `per_s`: how fast it grew, by least squares over all readings; None of fewer than two instants.
    """

    n: int = 0
    unknown: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    per_s: float | None = None


class Fold:
    """Everything the summary needs of a run, gathered line by line in constant memory per number."""

    def __init__(
        self, workflows: Iterable[WorkflowFacts], *, retried: bool = False, alike: Mapping[str, int] | None = None
    ) -> None:
        self._retried = retried
        facts = list(workflows)
        self.ledger = Ledger()
        self.truth = CacheJudge(facts)
        self.workflows: dict[str, int] = {known.name: code for code, known in enumerate(facts)}
        self.outputs: dict[str, OutputCount] = {}
        self.made = Made(facts)
        self.repeated, self.overwritten = Tagged(first=[]), 0
        self.impossible = Tagged(first=[])
        self.fetched = Fetched()
        self.held = Held()
        self.nodes: dict[tuple[str, str], NodeTimes] = {}
        self.node_execution_s: dict[str, float] = {}
        self.polled = array("d")
        self.readings: dict[tuple[str, str], Reading] = {}
        self.gpus = GpuReadings(alike)
        self.retries = Retries()
        self.ends = Ends()
        self._lines: dict[tuple[str, str], list[float]] = {}
        self._columns = {name: bytearray() for name in _TYPES}

    def add(self, lines: Sequence[Line]) -> None:
        """Fold successive lines of the journal: most jobs are alike, and counted together; the others one by one."""
        records = self.ledger.enter(lines)
        self.ends.add(records)
        columns = self._instants(records)
        plain = self.truth.plain(records)
        cache, images, previews = np.zeros(len(plain), np.uint8), [int(one) for one in plain], [0] * len(plain)
        for at, record in enumerate(records):
            if not plain[at]:
                files = self.truth.judge(record)
                cache[at] = _CACHE_CODES[files.cache]
                if record.execution.outcome == "completed":
                    images[at], previews[at] = files.images, files.previews
                    if not record.warmup:
                        self._files(record, files)
            elif not record.execution.outputs[0].files[0].startswith("output/"):
                images[at], previews[at] = 0, 1
        self._rows(records, columns, {"images": images, "previews": previews}, cache)
        for record in records:
            if record.execution.held_s and not record.warmup:
                self._held(record.execution)
        if self._retried:
            self.retries.add(record.execution for record in records if not record.warmup)
        self._plain([record for record in compress(records, plain) if not record.warmup])
        completed = [record for record in records if record.execution.outcome == "completed"]
        self._completed([record for record in completed if not record.warmup])

    def sample(self, sample: Sample) -> None:
        """Fold one telemetry reading."""
        self.gpus.add(sample)
        reading = self.readings.setdefault((sample.source, sample.name), Reading())
        value = sample.value
        if value is None or not math.isfinite(value):
            reading.unknown += 1
            return
        reading.n += 1
        before = value if reading.mean is None else reading.mean
        reading.mean = before + (value - before) / reading.n
        line = self._lines.setdefault((sample.source, sample.name), [sample.t, 0.0, 0.0])
        late = sample.t - line[0]
        line[0] += late / reading.n
        line[1] += late * (sample.t - line[0])  # sums of squares and of products about the means (Welford 1962)
        line[2] += late * (value - reading.mean)
        reading.per_s = line[2] / line[1] if line[1] > 0 else None
        reading.low = value if reading.low is None else min(reading.low, value)
        reading.high = value if reading.high is None else max(reading.high, value)

    def finish(self) -> Jobs:
        """The jobs, when all lines are folded; what only folding needs is given back, so this works once."""
        self.truth.forget()
        columns, self._columns = self._columns, {}
        warmup = _view(columns["flags"], np.uint8) & _WARMUP != 0
        # Counted first; NaN last; ties keep their order.
        order = np.argsort(_view(columns["done"], np.float64), kind="stable")
        order = np.concatenate((order[~warmup[order]], order[warmup[order]]))
        books = columns["book"]
        ordered: dict[str, NDArray[Any]] = {
            name: _view(columns.pop(name), kind)[order] for name, kind in _TYPES.items() if name != "book"
        }
        flags = ordered["flags"]
        return Jobs(
            Columns(
                instants={name: ordered[name] for name in INSTANTS},
                images=ordered["images"],
                previews=ordered["previews"],
                book=_view(books, np.int64)[order] if books else np.broadcast_to(np.int64(-1), len(order)),
                completed=flags & _COMPLETED != 0,
                censored=flags & _CENSORED != 0,
                dropped=flags & _DROPPED != 0,
                cache=flags % _RETRIED // _CACHE,
                retried=flags & _RETRIED != 0,
                ours=flags & _OURS != 0,
                workflow=ordered["workflow"],
            ),
            counted=int(np.count_nonzero(~warmup)),
        )

    def _instants(self, records: list[Record]) -> dict[Instant, Floats]:
        """All instants, NaN where one is not known. Stamps that cannot be true are left out from here on: `records` too
        are without them.
        """
        runs = [record.execution for record in records]
        times = [run.server for run in runs]
        known: dict[Instant, Sequence[float | None]] = {
            "due": [record.due for record in records],
            "sent": [run.sent for run in runs],
            "acknowledged": [run.acknowledged for run in runs],
            "done": [run.done for run in runs],
            "create_ms": [time.create_ms for time in times],
            "start_ms": [time.start_ms for time in times],
            "end_ms": [time.end_ms for time in times],
        }
        columns = {name: np.asarray(values, np.float64) for name, values in known.items()}
        for at in np.flatnonzero(doubtful(columns)).tolist():
            record, run = records[at], runs[at]
            kept = believed(run, record.due)
            if kept is not run.server:
                self.impossible.add(record.index)
                records[at] = structs.replace(record, execution=structs.replace(run, server=kept))
                for name, value in zip(INSTANTS, instants(record), strict=True):
                    columns[name][at] = np.nan if value is None else value
        return columns

    def _rows(
        self,
        records: Sequence[Record],
        known: dict[Instant, Floats],
        made: dict[str, list[int]],
        cache: NDArray[np.uint8],
    ) -> None:
        """The jobs' numbers, each to the end of its column."""
        runs, names = [record.execution for record in records], [record.workflow for record in records]
        for name in dict.fromkeys(names):
            self.workflows.setdefault(name, len(self.workflows))
        flags = _CACHE * cache + np.array([_OUTCOMES.get(run.outcome, 0) for run in runs], np.uint8)
        for flag, is_set in (
            (_WARMUP, [record.warmup for record in records]),
            (_CENSORED, [record.censored for record in records]),
            (_OURS, [is_ours(record) for record in records]),
            (_RETRIED, [len(run.attempts) > 1 for run in runs] if self._retried else bytes(len(runs))),
        ):
            flags += flag * np.frombuffer(bytes(is_set), np.uint8)
        columns: dict[str, Sequence[int] | NDArray[Any]] = {
            **{str(name): column for name, column in known.items()},
            **made,
            "workflow": [self.workflows[name] for name in names],
            "flags": flags,
        }
        if self._columns["book"] or any(record.book is not None for record in records):
            columns["book"] = [-1 if record.book is None else record.book for record in records]
            if not self._columns["book"]:  # the first that there is: those before are of none
                self._columns["book"] += np.full(len(self._columns["flags"]), -1).tobytes()
        for name, values in columns.items():
            self._columns[name] += np.asarray(values, _TYPES[name]).tobytes()

    def _plain(self, records: Sequence[Record]) -> None:
        """Outputs of counted jobs with one image each, a new one."""
        self.made.add_plain(records)
        outputs = [record.execution.outputs[0] for record in records]
        alike = Counter([(output.kind, output.count, output.files[0].partition("/")[0]) for output in outputs])
        for (kind, count, type_), jobs in alike.items():
            self._output(kind, jobs, count * jobs, {type_: jobs})

    def _files(self, record: Record, files: JobFiles) -> None:
        """Outputs of any other completed counted job."""
        self.made.add(record, files)
        if files.repeated:
            self.repeated.add(record.index)
            self.overwritten += files.overwritten == len(files.repeated)
        for output in record.execution.outputs:
            self._output(output.kind, 1, output.count, _by_type(output.files))

    def _completed(self, records: Sequence[Record]) -> None:
        """What is gathered of completed counted jobs of every sort."""
        of_workflow: dict[str, list[Execution]] = {}
        for record in records:
            run = record.execution
            if run.fetches:
                self._fetches(record)
            if run.end_source == "history":
                self.polled.append(run.done_uncertainty_s)
            if run.nodes:
                of_workflow.setdefault(record.workflow, []).append(run)
        for workflow, runs in of_workflow.items():
            self._node_times(workflow, runs)

    def _output(self, key: str, jobs: int, things: int, files: dict[str, int]) -> None:
        kind = self.outputs.get(key)
        if kind is None:
            kind = self.outputs[key] = OutputCount()
        kind.jobs += jobs
        kind.count += things
        for type_, count in files.items():
            kind.files[type_] = kind.files.get(type_, 0) + count

    def _fetches(self, record: Record) -> None:
        kinds = {
            file: kind_of(file, output.kind, animated=output.animated)
            for output in record.execution.outputs
            for file in output.files
        }
        for fetch in record.execution.fetches:
            self.fetched.files += 1
            self.fetched.bytes += fetch.bytes
            kind = kinds.get(fetch.file) or kind_of(fetch.file)
            self.fetched.kinds[kind] = self.fetched.kinds.get(kind, 0) + fetch.bytes
            self.fetched.image_bytes += fetch.bytes if kind == "image" else 0
            self.fetched.seconds += fetch.seconds
            if fetch.problem and (len(self.fetched.problems) < 50 or fetch.problem in self.fetched.problems):
                problem = clean(fetch.problem, 80)
                self.fetched.problems[problem] = self.fetched.problems.get(problem, 0) + 1

    def _held(self, run: Execution) -> None:
        self.held.jobs += 1
        self.held.total_s += run.held_s
        self.held.longest_s = max(self.held.longest_s, run.held_s)
        self.held.dropped += run.outcome == "dropped"

    def _node_times(self, workflow: str, runs: Sequence[Execution]) -> None:
        known, whole = list[Execution](), list[float]()
        for run in runs:
            start, end = run.server.start_ms, run.server.end_ms
            if start is not None and end is not None:
                known.append(run)
                whole.append((end - start) / 1000)
        seconds = _seconds(runs)
        of_known = seconds if len(known) == len(runs) else _seconds(known)
        for node, of_node in seconds.items():
            times = self.nodes.get((workflow, node))
            if times is None:
                times = self.nodes[workflow, node] = NodeTimes()
            times.seconds.extend(of_node)
            times.of_known = _added(times.of_known, of_known.get(node, ()))
        if known:
            self.node_execution_s[workflow] = _added(self.node_execution_s.get(workflow, 0.0), whole)


def _seconds(runs: Iterable[Execution]) -> dict[str, list[float]]:
    """How long each node ran, each time that it ended."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        for span in run.nodes:
            if (end := span.end) is not None:
                if (node := span.node) in seconds:
                    seconds[node].append(end - span.start)
                else:
                    seconds[node] = [end - span.start]
    return seconds


def _by_type(files: Iterable[str]) -> dict[str, int]:
    """How many files are `output`, `temp` and so on."""
    return Counter([file.partition("/")[0] for file in files])


def _added(before: float, numbers: Iterable[float]) -> float:
    """One after another, as `sum` no longer does from Python 3.12: the same however the numbers come in parts."""
    return reduce(add, numbers, before)


def to_float(column: array[float]) -> Floats:
    """Single precision as numpy doubles."""
    return _view(column, np.float32).astype(np.float64)


def _view(column: array[float] | array[int] | bytearray, kind: type[Column]) -> NDArray[Column]:
    """The column without a copy."""
    return np.frombuffer(column, kind) if len(column) else np.empty(0, kind)
