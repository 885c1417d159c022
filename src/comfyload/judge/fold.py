"""Knows how to pass once over a run's lines and keep only columns of numbers, never the records."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from comfyload.judge.cache import JobImages, Truth, is_image
from comfyload.judge.jobs import CACHE_CLASSES, Columns, Jobs
from comfyload.judge.ledger import Ledger, Named, clean
from comfyload.judge.metrics import INSTANTS, instants
from comfyload.record.model import Output, Record, Sample, Sent, WorkflowFacts

__all__ = ["Fetched", "Fold", "NodeTimes", "OutputCount", "Reading", "to_float"]

Floats = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)
_ROW = np.dtype(
    [*((name, "f8") for name in INSTANTS), ("book", "i8"), ("images", "u4"), ("workflow", "u2"), ("flags", "u1")]
)
"""A job as it is packed: a row at a time is a third of the work of appending to as many columns."""
_PACK = struct.Struct(f"={len(INSTANTS)}dqIHB").pack
_ROWS = 1 << 15
"""Rows gathered before they become parts of columns."""
_CACHE_CODES = {name: code for code, name in enumerate(CACHE_CLASSES)}
_COMPLETED, _DROPPED, _CENSORED, _WARMUP, _CACHE = 1, 2, 4, 8, 16
_OUTCOMES: dict[str, int] = {"completed": _COMPLETED, "dropped": _DROPPED}


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
        self.images_by_type: dict[str, int] = {}
        self.repeated, self.overwritten = Named(first=[]), 0
        self.fetched = Fetched()
        self.nodes: dict[tuple[str, str], NodeTimes] = {}
        self.node_execution_s: dict[str, float] = {}
        self._nodes_of: dict[str, dict[str, NodeTimes]] = {}
        self.polled = array("d")
        self.readings: dict[tuple[str, str], Reading] = {}
        self._rows = bytearray()
        self._columns = {name: bytearray() for name in _ROW.names or ()}

    def add(self, line: Record | Sent) -> None:
        """Fold one line of the journal."""
        if isinstance(line, Sent):
            self.ledger.sent(line)
        elif self.ledger.ended(line):
            images = self.truth.judge(line)
            self._row(line, images)
            if line.execution.outcome == "completed" and not line.warmup:
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

    def finish(self) -> Jobs:
        """The jobs, when all lines are folded; what only folding needs is given back, so this is asked once."""
        self.truth.forget()
        self._to_columns()
        columns, self._columns = self._columns, {}
        warmup = _view(columns["flags"], np.uint8) & _WARMUP != 0
        # Counted first; NaN last; ties keep their order.
        order = np.lexsort((_view(columns["done"], np.float64), warmup))
        ordered = {name: _view(columns.pop(name), _ROW[name].type)[order] for name in _ROW.names or ()}
        flags = ordered["flags"]
        return Jobs(
            Columns(
                instants={name: ordered[name] for name in INSTANTS},
                images=ordered["images"],
                book=ordered["book"],
                completed=flags & _COMPLETED != 0,
                censored=flags & _CENSORED != 0,
                dropped=flags & _DROPPED != 0,
                cache=flags // _CACHE,
                workflow=ordered["workflow"],
            ),
            counted=int(np.count_nonzero(~warmup)),
        )

    def _row(self, record: Record, images: JobImages) -> None:
        run = record.execution
        flags = _CACHE * _CACHE_CODES[images.cache] + _OUTCOMES.get(run.outcome, 0)
        if record.warmup:
            flags += _WARMUP
        if record.censored:
            flags += _CENSORED
        code = self.workflows.get(record.workflow)
        if code is None:
            code = self.workflows[record.workflow] = len(self.workflows)
        made = len(images.new) if run.outcome == "completed" else 0
        rest = -1 if record.book is None else record.book, made, code, flags
        known = instants(record)
        if None in known:
            known = tuple([math.nan if instant is None else instant for instant in known])
        self._rows += _PACK(*known, *rest)
        if len(self._rows) >= _ROWS * _ROW.itemsize:
            self._to_columns()

    def _to_columns(self) -> None:
        rows = np.frombuffer(self._rows, _ROW)
        for name, column in self._columns.items():
            column += rows[name].tobytes()
        self._rows = bytearray()

    def _completed_job(self, record: Record, images: JobImages) -> None:
        run = record.execution
        for file in images.new:
            type_ = file.partition("/")[0]
            self.images_by_type[type_] = self.images_by_type.get(type_, 0) + 1
        if images.repeated:
            self.repeated.add(record.index)
            self.overwritten += images.overwritten == len(images.repeated)
        for output in run.outputs:
            self._output(output)
        if run.fetches:
            self._fetches(record)
        if run.seen_by == "history":
            self.polled.append(run.done_within_s)
        if run.nodes:
            self._node_times(record)

    def _output(self, output: Output) -> None:
        kind = self.outputs.get(output.kind)
        if kind is None:
            kind = self.outputs[output.kind] = OutputCount()
        kind.jobs += 1
        kind.count += output.count
        for file in output.files:
            type_ = file.partition("/")[0]
            kind.files[type_] = kind.files.get(type_, 0) + 1

    def _fetches(self, record: Record) -> None:
        for fetch in record.execution.fetches:
            self.fetched.files += 1
            self.fetched.bytes += fetch.bytes
            self.fetched.image_bytes += fetch.bytes if is_image(fetch.file) else 0
            self.fetched.seconds += fetch.seconds
            if fetch.problem and (len(self.fetched.problems) < 50 or fetch.problem in self.fetched.problems):
                problem = clean(fetch.problem, 80)
                self.fetched.problems[problem] = self.fetched.problems.get(problem, 0) + 1

    def _node_times(self, record: Record) -> None:
        times, workflow = record.execution.server, record.workflow
        start, end = times.start_ms, times.end_ms
        known = start is not None and end is not None
        nodes = self._nodes_of.get(workflow)
        if nodes is None:
            nodes = self._nodes_of[workflow] = {}
        for span in record.execution.nodes:
            ended = span.end
            if ended is not None:
                seconds, node = ended - span.start, nodes.get(span.node)
                if node is None:
                    node = nodes[span.node] = self.nodes[workflow, span.node] = NodeTimes()
                node.seconds.append(seconds)
                if known:
                    node.of_known += seconds
        if start is not None and end is not None:
            before = self.node_execution_s.get(workflow, 0.0)
            self.node_execution_s[workflow] = before + (end - start) / 1000


def to_float(column: array[float]) -> Floats:
    """Single precision as numpy doubles."""
    return _view(column, np.float32).astype(np.float64)


def _view(column: array[float] | array[int] | bytearray, kind: type[Kind]) -> NDArray[Kind]:
    """The column without a copy."""
    return np.frombuffer(column, kind) if len(column) else np.empty(0, kind)
