"""Knows how to pass once over a run's lines and keep only columns of numbers, never the records."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from comfyload.judge.cache import JobImages, Truth, is_image
from comfyload.judge.ledger import Ledger, Named, clean
from comfyload.judge.metrics import METRICS, execution
from comfyload.record.model import Record, Sample, Sent, WorkflowFacts

__all__ = ["CACHE_CLASSES", "Fetched", "Fold", "Jobs", "NodeTimes", "OutputCount", "Reading", "to_float"]

Floats = NDArray[np.float64]
CACHE_CLASSES = ("fresh", "partial", "cached")
_COLUMNS = ("due", "done", "late", "images", *(metric.name for metric in METRICS))


class Jobs(Struct, frozen=True, kw_only=True):
    """The counted jobs as columns, in the order of completion; NaN is "not known". Jobs without an end come last."""

    columns: dict[str, Floats]
    completed: NDArray[np.bool_]
    cache: NDArray[np.uint8]
    workflow: NDArray[np.uint16]

    def known(self, name: str, only: NDArray[np.bool_] | None = None) -> Floats:
        """A metric of completed jobs, where it is known; of those chosen by `only`, if given."""
        column = self.columns[name]
        chosen = self.completed & ~np.isnan(column)
        return column[chosen if only is None else chosen & only]


class NodeTimes(Struct, kw_only=True):
    """Seconds of one node's runs, in single precision: finer than the 15 ms that their clock is good to.

    `of_known` is their sum over the jobs whose execution time is known: the numerator of a share.
    """

    seconds: array[float] = field(default_factory=lambda: array("f"))
    of_known: float = 0.0


class OutputCount(Struct, kw_only=True):
    """What jobs reported under one key: things, files by `output` or `temp`, and images (distinct in their job)."""

    jobs: int = 0
    count: int = 0
    files: dict[str, int] = field(default_factory=dict)


class Fetched(Struct, kw_only=True):
    """Downloads of counted jobs' outputs; bytes and seconds are sums."""

    files: int = 0
    bytes: int = 0
    image_bytes: int = 0
    seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)


class Reading(Struct, kw_only=True):
    """Telemetry under one name: `unknown` readings said nothing and are in no other number."""

    n: int = 0
    unknown: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None


class Fold:
    """Everything the summary needs of a run, gathered line by line in constant memory per number."""

    def __init__(self, workflows: Iterable[WorkflowFacts]) -> None:
        facts = list(workflows)
        self.ledger = Ledger()
        self.truth = Truth(facts)
        self.workflows: dict[str, int] = {known.name: code for code, known in enumerate(facts)}
        self.outputs: dict[str, OutputCount] = {}
        self.images_by_type: Counter[str] = Counter()
        self.repeated, self.overwritten = Named(first=[]), 0
        self.fetched = Fetched()
        self.nodes: dict[tuple[str, str], NodeTimes] = {}
        self.node_execution_s: dict[str, float] = {}
        self.negative: Counter[str] = Counter()
        self.polled = array("d")
        self.readings: dict[tuple[str, str], Reading] = {}
        self._columns = {name: array("d") for name in _COLUMNS}
        self._completed, self._cache, self._workflow = bytearray(), bytearray(), array("H")
        self._all_spans = (array("d"), array("d"))

    def add(self, line: Record | Sent) -> None:
        """Fold one line of the journal."""
        if isinstance(line, Sent):
            self.ledger.sent(line)
        elif self.ledger.ended(line):
            images = self.truth.judge(line)
            self._server_span(line)
            if not line.warmup:
                self._row(line, images)
                if line.execution.outcome == "completed":
                    self._completed_job(line, images)

    def sample(self, sample: Sample) -> None:
        """Fold one telemetry reading."""
        reading = self.readings.setdefault((sample.source, sample.name), Reading())
        value = sample.value
        if value is None or not math.isfinite(value):
            reading.unknown += 1
            return
        reading.n += 1
        before = value if reading.mean is None else reading.mean
        reading.mean = before + (value - before) / reading.n
        reading.low = value if reading.low is None else min(reading.low, value)
        reading.high = value if reading.high is None else max(reading.high, value)

    def jobs(self) -> Jobs:
        """The counted jobs, in the order of completion."""
        done = to_float(self._columns["done"])
        order = np.argsort(done, kind="stable")  # NaN sorts last
        return Jobs(
            columns={name: to_float(column)[order] for name, column in self._columns.items()},
            completed=np.frombuffer(bytes(self._completed), np.bool_)[order],
            cache=np.frombuffer(bytes(self._cache), np.uint8)[order],
            workflow=np.frombuffer(self._workflow.tobytes(), np.uint16)[order],
        )

    def overlaps(self) -> int:
        """How many executions, warm-up included, began before an earlier one had ended, by the server's clock."""
        start, end = map(to_float, self._all_spans)
        if len(start) < 2:
            return 0
        order = np.lexsort((end, start))
        ended = np.maximum.accumulate(end[order])
        return int(np.sum(start[order][1:] < ended[:-1]))

    def _row(self, record: Record, images: JobImages) -> None:
        run, columns = record.execution, self._columns
        completed = run.outcome == "completed"
        columns["due"].append(record.due)
        columns["done"].append(_or_nan(run.done))
        columns["late"].append(math.nan if run.sent is None else run.sent - record.due)
        columns["images"].append(len(images.new) if completed else 0)
        for metric in METRICS:
            value = metric.getter(record)
            if value is not None and value < 0:
                self.negative[metric.clock] += 1
                value = None
            columns[metric.name].append(_or_nan(value))
        self._completed.append(completed)
        self._cache.append(CACHE_CLASSES.index(images.cache))
        self._workflow.append(self.workflows.setdefault(record.workflow, len(self.workflows)))

    def _completed_job(self, record: Record, images: JobImages) -> None:
        run = record.execution
        self.images_by_type.update(file.partition("/")[0] for file in images.new)
        if images.repeated:
            self.repeated.add(record.index)
            self.overwritten += images.overwritten == len(images.repeated)
        for output in run.outputs:
            kind = self.outputs.setdefault(output.kind, OutputCount())
            kind.jobs += 1
            kind.count += output.count
            for file in output.files:
                type_ = file.partition("/")[0]
                kind.files[type_] = kind.files.get(type_, 0) + 1
        for fetch in run.fetches:
            self.fetched.files += 1
            self.fetched.bytes += fetch.bytes
            self.fetched.image_bytes += fetch.bytes if is_image(fetch.file) else 0
            self.fetched.seconds += fetch.seconds
            if fetch.problem and (len(self.fetched.problems) < 50 or fetch.problem in self.fetched.problems):
                problem = clean(fetch.problem, 80)
                self.fetched.problems[problem] = self.fetched.problems.get(problem, 0) + 1
        if run.seen_by == "history":
            self.polled.append(run.done_within_s)
        self._node_times(record)

    def _node_times(self, record: Record) -> None:
        whole = execution(record)
        for span in record.execution.nodes:
            if span.end is not None:
                times = self.nodes.setdefault((record.workflow, span.node), NodeTimes())
                times.seconds.append(span.end - span.start)
                times.of_known += 0.0 if whole is None else span.end - span.start
        if record.execution.nodes and whole is not None:
            before = self.node_execution_s.get(record.workflow, 0.0)
            self.node_execution_s[record.workflow] = before + whole

    def _server_span(self, record: Record) -> None:
        times = record.execution.server
        if times.start_ms is not None and times.end_ms is not None:
            self._all_spans[0].append(times.start_ms)
            self._all_spans[1].append(times.end_ms)


def to_float(column: array[float]) -> Floats:
    """The column as numpy doubles."""
    return np.frombuffer(column.tobytes(), np.dtype(column.typecode)).astype(np.float64)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
