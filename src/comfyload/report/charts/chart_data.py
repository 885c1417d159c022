"""How to pass once over a run's lines and samples, and keep what charts need: all of few jobs, some of many."""

import heapq
import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from comfyload.judge.arrays import Floats
from comfyload.judge.metrics import METRICS, PHASES
from comfyload.judge.summary import Measured
from comfyload.record.model import Line, Record, Sample
from comfyload.report.charts.chart import MOST
from comfyload.report.document import jobs

_EXTREME = 20
_EVENLY = 160


class JobColumns:
    """All jobs of a run, warm-up included, as columns in seconds; NaN is not known. `phases`: of `latency`.

    `zero`: when the first job was due; `wall_s`: from then to the last end, or to the last due time if nothing ended.
    """

    def __init__(self, measured: Measured) -> None:
        columns = measured.jobs.every
        self.due, self.sent, self.done = (columns.instants[name].astype(np.float64) for name in ("due", "sent", "done"))
        self.completed, self.censored = columns.completed, columns.censored
        self.latency = columns.metric("latency")
        self.warmup = np.arange(len(self.latency)) >= measured.jobs.n
        known = [self.sent - self.due, columns.metric("queue_wait"), columns.metric("execution")]
        rest = np.maximum(self.latency - sum(map(np.nan_to_num, known)), 0)
        self.phases = dict(zip(PHASES, [*known, rest], strict=True))
        ended = self.done[~np.isnan(self.done)]
        self.zero = float(self.due.min()) if len(self.due) else 0.0
        self.wall_s = max([float(part.max()) for part in (ended, self.due) if len(part)], default=0.0) - self.zero


class ChartData:
    """What one pass over a run's lines leaves, in memory that does not grow with the run.

    `jobs`: every job as the document has it, warm-up included, by index; None of a run too long to draw singly.
    `chosen`: the records of the slowest, the fastest and evenly spaced other jobs, by index; `of` counts them all.
    """

    def __init__(self, measured: Measured, lines: Iterable[Line]) -> None:
        self.of = len(measured.jobs.every.completed)
        self.jobs: list[dict[str, Any]] | None = None
        self._evenly: dict[int, Record] = {}
        self._slow, self._fast = list[tuple[float, int, Record]](), list[tuple[float, int, Record]]()
        watched = self._watch(lines)
        if self.of > MOST:
            deque(watched, maxlen=0)
        else:
            self.jobs = sorted(jobs(measured.manifest, watched), key=lambda job: int(job["index"]))
        extremes = {index: record for _, index, record in (*self._slow, *self._fast)}
        self.chosen = [record for _, record in sorted({**self._evenly, **extremes}.items())]

    def _watch(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The lines for others, while those worth a picture of their own are kept."""
        step = max(1, math.ceil(self.of / _EVENLY))
        for line in lines:
            if isinstance(line, Record) and line.execution.sent is not None:
                if line.index % step == 0:
                    self._evenly.setdefault(line.index, line)
                seconds = METRICS["latency"].of(line)
                if seconds is not None and not line.warmup:
                    _keep(self._slow, (seconds, line.index, line))
                    _keep(self._fast, (-seconds, line.index, line))
            yield line


def _keep(heap: list[tuple[float, int, Record]], entry: tuple[float, int, Record]) -> None:
    full = len(heap) >= _EXTREME
    if full and entry[:2] <= heap[0][:2]:
        return
    if any(entry[:2] == other[:2] for other in heap):  # a second record of a job; records have no order
        return
    (heapq.heappushpop if full else heapq.heappush)(heap, entry)


# --- telemetry

_GAP = 5.0
"""Readings further apart than this many usual pauses have a gap between them: the source fell silent."""


class ReadingSeries:
    """Readings of one source under one name; NaN is a reading without a value."""

    def __init__(self) -> None:
        self._at, self._values = array("d"), array("d")

    def add(self, t: float, value: float | None) -> None:
        self._at.append(t)
        self._values.append(math.nan if value is None else value)

    @property
    def known(self) -> Floats:
        """The readings that have a value."""
        values = np.frombuffer(self._values, np.float64)
        return values[np.isfinite(values)]

    @property
    def high(self) -> float | None:
        return float(self.known.max()) if len(self.known) else None

    def thinned(self, *, polled: bool = False) -> list[tuple[float, float | None]]:
        """At most `MOST` points, in the order of time; of more readings, the mean of each stretch. None is a gap.

        `polled`: readings come at a steady pace, so a long silence is a gap too.
        """
        at, values = np.frombuffer(self._at, np.float64), np.frombuffer(self._values, np.float64)
        order = np.argsort(at, kind="stable")
        at, values = at[order], values[order]
        if len(at) > MOST:
            parts = np.array_split(np.arange(len(at)), MOST // 2)
            at = np.array([at[part[0]] for part in parts])
            # One unknown reading makes the stretch unknown: a bridge over it would be a claim.
            values = np.array([float(np.mean(values[part])) for part in parts])
        points: list[tuple[float, float | None]] = []
        usual = float(np.median(np.diff(at))) if len(at) > 2 else math.inf
        for t, value in zip(at, values, strict=True):
            if polled and points and t - points[-1][0] > _GAP * usual:
                points.append((points[-1][0] + usual, None))
            points.append((float(t), float(value) if math.isfinite(value) else None))
        return points


def series(samples: Iterable[Sample]) -> dict[tuple[str, str], ReadingSeries]:
    """All readings by source and name."""
    out: dict[tuple[str, str], ReadingSeries] = {}
    for sample in samples:
        out.setdefault((sample.source, sample.name), ReadingSeries()).add(sample.t, sample.value)
    return out
