"""What a run's charts draw: of each column of pixels the least, the most and the last, so that no extreme is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.columns.gpu import SOURCES, gpu_reading
from comfyload.judge.metrics import PHASES
from comfyload.record.bounds import MOST_S
from comfyload.web.badges import BADGES, Badge, places_of
from comfyload.web.follow import RunFollower

MOST_WIDTH = 4_096
_GIB = float(1 << 30)
_QUEUE = ("comfy", "queue_remaining")


class ChartHead(Struct, frozen=True, kw_only=True):
    """Which chart it is. `y`: the axis in words. `draw`: single points, lines that hold until the next, or layers on
    top of each other.
    """

    name: str
    title: str
    unit: str
    y: str
    draw: Literal["points", "steps", "layers"]


class ChartColumns(Struct, frozen=True, kw_only=True):
    """`columns` of `n` numbers each, NaN where there is none. The first is `t`: seconds after `from_s`, ascending. Of
    each series there are `X.min`, `X.max` and `X.last`, of layers the mean `X`. `to_s`: where the picture ends.
    """

    head: ChartHead
    from_s: float
    to_s: float
    names: list[str]
    columns: list[NDArray[np.float32]]

    @property
    def n(self) -> int:
        return len(self.columns[0])


class Window(Struct, frozen=True):
    """The part of the run that is drawn: `width` columns of pixels between two instants."""

    begin: float
    end: float
    width: int

    def column(self, t: Floats) -> NDArray[np.int64]:
        """The column of each instant, from 0; -1 of one outside."""
        place = np.floor((t - self.begin) / (self.end - self.begin) * self.width)
        inside = (t >= self.begin) & (t <= self.end)
        return np.where(inside, place.clip(0, self.width - 1), -1).astype(np.int64)

    def starts(self) -> Floats:
        """Seconds from the beginning to each column."""
        return (self.end - self.begin) * np.arange(self.width) / self.width


Series = dict[str, Floats]


def thinned(t: Floats, values: Floats, window: Window) -> tuple[Series, NDArray[np.int64]]:
    """Of each column the least, the most and the last by time; NaN where it has none. And how many each has."""
    column = window.column(t)
    inside = (column >= 0) & np.isfinite(values)
    order = np.lexsort((t[inside], column[inside]))
    column, values = column[inside][order], values[inside][order]
    counts = np.bincount(column, minlength=window.width)
    found = {name: np.full(window.width, np.nan) for name in ("min", "max", "last")}
    if len(values):
        first = np.flatnonzero(np.diff(column, prepend=-1))
        at = column[first]
        found["min"][at] = np.minimum.reduceat(values, first)
        found["max"][at] = np.maximum.reduceat(values, first)
        found["last"][at] = values[np.append(first[1:], len(values)) - 1]
    return found, counts


def held(t: Floats, values: Floats, window: Window, until: float) -> Series:
    """The same of a value that holds until the next one; NaN before the first and after `until`. NaN is a value: not
    known from there on.
    """
    order = np.argsort(t, kind="stable")
    t, values = t[order], values[order]
    found, _ = thinned(t, values, window)
    edges = window.begin + window.starts()
    before = np.searchsorted(t, edges, "left") - 1
    carried = np.where(before >= 0, values[before] if len(values) else np.nan, np.nan)
    ends = np.append(edges[1:], np.nextafter(window.end, np.inf))
    after = np.searchsorted(t, ends, "left") - 1
    at_end = np.where(after >= 0, values[after] if len(values) else np.nan, np.nan)
    found = {"min": np.fmin(found["min"], carried), "max": np.fmax(found["max"], carried), "last": at_end}
    for name in found:
        found[name][edges > until] = np.nan
    return found


# --- charts

HEADS = {
    head.name: head
    for head in (
        ChartHead(name="latency", title="Latency of jobs, as they ended", unit="s", y="latency, s", draw="points"),
        ChartHead(name="phases", title="Latency by phase, mean", unit="s", y="latency, s", draw="layers"),
        ChartHead(name="flow", title="Arrivals and completions", unit="", y="jobs in total", draw="steps"),
        ChartHead(name="queue", title="Jobs in flight and the queue", unit="", y="jobs at a time", draw="steps"),
        ChartHead(name="gpu", title="GPU utilisation", unit="%", y="busy, %", draw="steps"),
        ChartHead(name="vram", title="GPU memory in use", unit="GiB", y="in use, GiB", draw="steps"),
        ChartHead(name="power", title="GPU power", unit="W", y="power, W", draw="steps"),
    )
}
"""Every chart of a run, in the order in which they are shown."""

_READINGS = {"gpu": ("utilisation", 1.0), "vram": ("vram_used", 1 / _GIB), "power": ("power", 1.0)}


def charts_of(follower: RunFollower) -> list[ChartHead]:
    """Which charts the run has something to show in."""
    jobs = follower.jobs
    ended = bool(np.isfinite(jobs.latency).any())
    timed = bool((np.isfinite(jobs.queue_wait + jobs.execution) & _completed(follower)).any())
    there = {"latency": ended, "phases": timed, "flow": jobs.n > 0, "queue": jobs.n > 0}
    there |= {name: bool(_readings(follower, kind)) for name, (kind, _) in _READINGS.items()}
    return [head for head in HEADS.values() if there[head.name]]


def chart(
    follower: RunFollower, name: str, from_s: float | None = None, to_s: float | None = None, width: int = 800
) -> ChartColumns | None:
    """A chart between two instants (None: the run's first and latest); None: there is no chart of that name."""
    head = HEADS.get(name)
    if head is None:
        return None
    window = _window(follower, from_s, to_s, width)
    series = dict(_DRAWN.get(name, _gpu)(follower, window, name))
    kept = np.zeros(window.width, np.bool_)
    for values in series.values():
        kept |= np.isfinite(values)
    columns = [(window.starts() + (window.end - window.begin) / window.width / 2), *series.values()]
    return ChartColumns(
        head=head,
        from_s=window.begin,
        to_s=window.end,
        names=["t", *series],
        columns=[np.ascontiguousarray(values[kept], np.float32) for values in columns],
    )


def _window(follower: RunFollower, from_s: float | None, to_s: float | None, width: int) -> Window:
    """Whatever is wanted, a part of the run that is not empty."""
    due = follower.jobs.due
    first = min(float(np.nanmin(due)) if np.isfinite(due).any() else 0.0, follower.latest_s)
    begin, end = (
        min(max(given, -MOST_S), MOST_S) if given is not None and np.isfinite(given) else otherwise
        for given, otherwise in ((from_s, first), (to_s, follower.latest_s))
    )
    return Window(begin, end if end - begin > _SHORTEST_S else begin + _SHORTEST_S, min(max(1, width), MOST_WIDTH))


_SHORTEST_S = 1e-3


def _latency(follower: RunFollower, window: Window, _: str) -> Iterator[tuple[str, Floats]]:
    jobs = follower.jobs
    latency = jobs.latency
    ends: tuple[Badge, ...] = ("done", "attention", "ended")
    for badge in ends:
        of = np.isin(jobs.fine, places_of(badge))
        if np.isfinite(latency[of]).any():
            series, _counts = thinned(jobs.done[of], latency[of], window)
            yield from _named(BADGES[badge], series)


def _phases(follower: RunFollower, window: Window, _: str) -> Iterator[tuple[str, Floats]]:
    """Means of what the latencies of completed jobs were made of; a job whose phases are not known is left out."""
    jobs = follower.jobs
    known = [jobs.sent - jobs.due, jobs.queue_wait.astype(np.float64), jobs.execution.astype(np.float64)]
    parts = [*known, np.maximum(jobs.latency - known[0] - known[1] - known[2], 0.0)]
    column = window.column(jobs.done)
    drawn = _completed(follower) & np.isfinite(parts[-1]) & (column >= 0)
    counts = np.bincount(column[drawn], minlength=window.width)
    for phase, part in zip(PHASES, parts, strict=True):
        total = np.bincount(column[drawn], weights=part[drawn], minlength=window.width)
        yield phase, np.divide(total, counts, out=np.full(window.width, np.nan), where=counts > 0)


def _completed(follower: RunFollower) -> Flags:
    return np.isin(follower.jobs.fine, places_of("done"))


def _flow(follower: RunFollower, window: Window, _: str) -> Iterator[tuple[str, Floats]]:
    jobs = follower.jobs
    for name, t in (("came due", jobs.due), ("completed", jobs.done[_completed(follower)])):
        t = np.sort(t[np.isfinite(t)])
        yield from _counted(name, t, np.arange(1.0, len(t) + 1), window, follower.latest_s)


def _queue(follower: RunFollower, window: Window, _: str) -> Iterator[tuple[str, Floats]]:
    """Jobs between sent and done. One without a record is in flight from when it was due, until the run ended."""
    jobs = follower.jobs
    begins = np.where(np.isfinite(jobs.sent), jobs.sent, np.where(jobs.fine == 0, jobs.due, np.nan))
    ends = jobs.done[np.isfinite(begins) & np.isfinite(jobs.done)]
    begins = begins[np.isfinite(begins)]
    t = np.concatenate([ends, begins])  # who leaves makes room before who comes
    change = np.concatenate([-np.ones(len(ends)), np.ones(len(begins))])
    order = np.argsort(t, kind="stable")
    yield from _counted("in flight", t[order], np.cumsum(change[order]), window, follower.latest_s)
    readings = follower.samples.get(_QUEUE)
    if readings is not None:
        yield from _named("queued or running", held(readings.t, readings.value, window, follower.latest_s))


def _gpu(follower: RunFollower, window: Window, name: str) -> Iterator[tuple[str, Floats]]:
    kind, factor = _READINGS[name]
    for gpu, (t, values) in _readings(follower, kind).items():
        series, _ = thinned(t, values * factor, window)
        yield from _named(f"GPU {gpu}", series)


_DRAWN: Mapping[str, Callable[[RunFollower, Window, str], Iterator[tuple[str, Floats]]]] = {
    "latency": _latency,
    "phases": _phases,
    "flow": _flow,
    "queue": _queue,
}


def _readings(follower: RunFollower, kind: str) -> dict[str, tuple[Floats, Floats]]:
    """By GPU, the readings of the source that is believed first."""
    found: dict[str, tuple[int, tuple[Floats, Floats]]] = {}
    for (source, name), readings in follower.samples.items():
        reading = gpu_reading(name)
        if reading is None or reading.kind != kind or not np.isfinite(readings.value).any():
            continue
        rank = SOURCES.index(source) if source in SOURCES else len(SOURCES)
        if reading.gpu not in found or rank < found[reading.gpu][0]:
            found[reading.gpu] = rank, (readings.t, readings.value * reading.factor)
    return {gpu: found[gpu][1] for gpu in sorted(found)}


def _counted(name: str, t: Floats, counts: Floats, window: Window, until: float) -> Iterator[tuple[str, Floats]]:
    """Counts that began at 0."""
    yield from _named(name, held(np.append(-np.inf, t), np.append(0.0, counts), window, until))


def _named(name: str, series: Series) -> Iterator[tuple[str, Floats]]:
    for part, values in series.items():
        yield f"{name}.{part}", values
