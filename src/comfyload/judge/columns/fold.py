"""How to pass once over a run's lines and keep only columns of numbers, never the records."""

from __future__ import annotations

import math
import struct
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct, field

from comfyload.judge.columns.cache import CacheJudge, JobFiles
from comfyload.judge.columns.gpu import GpuReadings
from comfyload.judge.columns.jobs import CACHE_CLASSES, Columns, Jobs
from comfyload.judge.columns.ledger import Ledger, Tagged, clean, is_ours
from comfyload.judge.columns.made import Made
from comfyload.judge.columns.pace import Ends
from comfyload.judge.columns.retries import Retries
from comfyload.judge.metrics import INSTANTS, instants
from comfyload.record.kinds import Kind, kind_of
from comfyload.record.model import Execution, Line, Output, Record, Sample, ServerTimes, WorkflowFacts
from comfyload.record.stamps import believed, node_spans

_FLAGS = ("completed", "censored", "dropped", "retried", "ours", "warmup")
_PACK = struct.Struct(f"={len(INSTANTS)}dqIIHB{len(_FLAGS)}?")
"""A job as bytes: its instants, book, images, previews, workflow, cache class and flags."""
_ROW = np.dtype(
    [(name, np.float64) for name in INSTANTS]
    + [("book", np.int64), ("images", np.uint32), ("previews", np.uint32), ("workflow", np.uint16), ("cache", np.uint8)]
    + [(name, np.bool_) for name in _FLAGS]
)
"""The same as numpy reads it."""


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
        self.outputs = defaultdict[str, OutputCount](OutputCount)
        self.made = Made(facts)
        self.repeated, self.overwritten = Tagged(), 0
        self.impossible = Tagged()
        self.fetched = Fetched()
        self.held = Held()
        self.nodes = defaultdict[tuple[str, str], NodeTimes](NodeTimes)
        self.node_execution_s = defaultdict[str, float](float)
        self.polled = array("d")
        self.readings: dict[tuple[str, str], Reading] = {}
        self.gpus = GpuReadings(alike)
        self.retries = Retries()
        self.ends = Ends()
        self._lines: dict[tuple[str, str], list[float]] = {}
        self._rows = bytearray()

    def add(self, line: Line) -> None:
        """Fold the next line of the journal."""
        record = self.ledger.enter(line)
        if record is None:
            return
        run = record.execution
        self.ends.add(run)
        times = believed(run, record.due)
        if times is not run.server:
            self.impossible.add(record.index)
        files = self.truth.judge(record)
        self._rows += self._pack(record, times, files)
        if record.warmup:
            return
        if run.held_s:
            self._held(run)
        if self._retried:
            self.retries.add(run)
        if run.outcome == "completed":
            self._completed(record, times, files)

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
        rows, self._rows = np.frombuffer(self._rows, _ROW) if self._rows else np.empty(0, _ROW), bytearray()
        # Counted first, in the order of completion; NaN last; ties keep their order.
        order = np.lexsort((rows["done"], rows["warmup"]))
        columns = {name: rows[name][order] for name in _ROW.names or ()}
        warmup = columns.pop("warmup")
        at = {name: columns.pop(name) for name in INSTANTS}
        return Jobs(Columns(instants=at, **columns), counted=int(np.count_nonzero(~warmup)))

    def _pack(self, record: Record, times: ServerTimes, files: JobFiles) -> bytes:
        run = record.execution
        completed = run.outcome == "completed"
        return _PACK.pack(
            *[math.nan if instant is None else instant for instant in instants(record, times)],
            -1 if record.book is None else record.book,
            files.images if completed else 0,
            files.previews if completed else 0,
            self.workflows.setdefault(record.workflow, len(self.workflows)),
            CACHE_CLASSES.index(files.cache),
            completed,
            record.censored,
            run.outcome == "dropped",
            self._retried and len(run.attempts) > 1,
            is_ours(record),
            record.warmup,
        )

    def _completed(self, record: Record, times: ServerTimes, files: JobFiles) -> None:
        """What is gathered of completed counted jobs."""
        run = record.execution
        self.made.add(record, files)
        if files.repeated:
            self.repeated.add(record.index)
            self.overwritten += files.overwritten == len(files.repeated)
        for output in run.outputs:
            self._output(output)
        if run.fetches:
            self._fetches(run, files)
        if run.end_source == "history":
            self.polled.append(run.done_uncertainty_s)
        if run.nodes:
            self._node_times(record, times)

    def _output(self, output: Output) -> None:
        counted = self.outputs[output.kind]
        counted.jobs += 1
        counted.count += output.count
        for file in output.files:
            folder = file.partition("/")[0]
            counted.files[folder] = counted.files.get(folder, 0) + 1

    def _fetches(self, run: Execution, files: JobFiles) -> None:
        for fetch in run.fetches:
            self.fetched.files += 1
            self.fetched.bytes += fetch.bytes
            kind = files.kinds.get(fetch.file) or kind_of(fetch.file)
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

    def _node_times(self, record: Record, times: ServerTimes) -> None:
        known = times.start_ms is not None and times.end_ms is not None
        for span in node_spans(record.execution):
            if span.end is not None:
                of_node = self.nodes[record.workflow, span.node]
                of_node.seconds.append(span.end - span.start)
                of_node.of_known += known * (span.end - span.start)
        if times.start_ms is not None and times.end_ms is not None:
            self.node_execution_s[record.workflow] += (times.end_ms - times.start_ms) / 1000
