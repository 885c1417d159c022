"""The last hour in small: what the tab in ComfyUI shows, folded from the rows as they come."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Overview"]

WINDOW_S = 3600.0
JOBS = 20
NODES = 12
SAMPLES = 240
ENDED_LIMIT = 4096
OPEN_LIMIT = 256
RETRIES_LIMIT = 10_000
P95_NEEDS = 20

_GPU = ("index", "utilisation_percent", "vram_used_bytes", "vram_total_bytes", "power_w", "temperature_c")
_AGAIN = ("attempt", "retry_of")


@dataclass
class _Open:
    waited_ms: float | None = None
    nodes: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Ended:
    """A prompt that ended: seconds of the probe's clock, milliseconds."""

    mono_s: float
    ok: bool
    duration_ms: float | None
    latency_ms: float | None
    retry: bool


class Overview:
    """The newest rows in the shape of the tab; one thread adds, any may ask.

    Everything in it is bounded, so a busy server is seen over less than an hour: `window_s` says over how much.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
        self._again: dict[str, dict[str, Any]] = {}
        self._ended: deque[_Ended] = deque()
        self._forgotten_s: float | None = None
        self._jobs: deque[dict[str, Any]] = deque(maxlen=JOBS)
        self._failures: deque[tuple[float, dict[str, Any]]] = deque(maxlen=JOBS)
        self._samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)

    def add(self, row: dict[str, Any], unix_s: float) -> None:
        """Fold one row, which happened at `unix_s` of the wall clock."""
        with self._lock:
            event = row["event"]
            if event == "node":
                self._add_node(row)
            elif event == "prompt.queued":
                self._add_queued(row)
            elif event == "prompt.started":
                self._of(row["prompt_id"]).waited_ms = row["waited_ms"]
            elif event == "prompt.ended":
                self._add_ended(row, unix_s)
            elif event == "sample":
                gpus = [{key: gpu.get(key) for key in _GPU} for gpu in row["gpus"]]
                self._samples.append({"mono_s": row["mono_s"], "queue_depth": row["queue_depth"], "gpus": gpus})

    def now(self) -> dict[str, Any]:
        """The numbers of the window that ends now."""
        with self._lock:
            at = self._clock()
            self._forget(at)
            ended = list(self._ended)
            jobs, samples = list(self._jobs), list(self._samples)
            failures = [failure for mono_s, failure in self._failures if at - mono_s <= WINDOW_S]
            since = max(self._began, at - WINDOW_S, self._forgotten_s or self._began)
        return {
            "window_s": round(at - since, 3),
            "jobs": jobs[::-1],
            "duration_ms": _spread(one.duration_ms for one in ended if one.ok),
            "latency_ms": _spread(one.latency_ms for one in ended if one.ok),
            "failures": failures[::-1],
            "retries": sum(one.retry for one in ended),
            "samples": samples,
        }

    def _add_queued(self, row: dict[str, Any]) -> None:
        again = {key: row[key] for key in _AGAIN if key in row}
        if again:
            self._again[row["prompt_id"]] = again
            _keep_newest(self._again, RETRIES_LIMIT)

    def _add_node(self, row: dict[str, Any]) -> None:
        nodes = self._of(row["prompt_id"]).nodes
        nodes.append({key: row[key] for key in ("node", "class_type", "status", "duration_ms")})
        if len(nodes) >= 4 * NODES:
            _slowest_first(nodes)

    def _add_ended(self, row: dict[str, Any], unix_s: float) -> None:
        prompt_id = row["prompt_id"]
        was = self._open.pop(prompt_id, _Open())
        again = self._again.pop(prompt_id, {})
        _slowest_first(was.nodes)
        latency = None if was.waited_ms is None or row["duration_ms"] is None else was.waited_ms + row["duration_ms"]
        told = {"prompt_id": prompt_id, "ended_unix_s": unix_s, "error": row.get("error")}
        about = {key: again.get(key) for key in _AGAIN}
        job = {"status": row["status"], "waited_ms": was.waited_ms, "duration_ms": row["duration_ms"]}
        self._jobs.append({**told, **job, "nodes_cached": row["nodes_cached"], "nodes": was.nodes, **about})
        if row["status"] == "error":
            kind = {key: row.get(key) for key in ("exception_type", "class_type")}
            self._failures.append((row["mono_s"], {**told, **kind, **about}))
        retry = "retry_of" in again or again.get("attempt", 1) > 1
        self._ended.append(_Ended(row["mono_s"], row["status"] == "ok", row["duration_ms"], latency, retry))
        if len(self._ended) > ENDED_LIMIT:
            self._forgotten_s = self._ended.popleft().mono_s
        self._forget(row["mono_s"])

    def _of(self, prompt_id: str) -> _Open:
        if prompt_id not in self._open:
            self._open[prompt_id] = _Open()
            _keep_newest(self._open, OPEN_LIMIT)
        return self._open[prompt_id]

    def _forget(self, at: float) -> None:
        while self._ended and at - self._ended[0].mono_s > WINDOW_S:
            self._ended.popleft()


def _slowest_first(nodes: list[dict[str, Any]]) -> None:
    nodes.sort(key=lambda node: -(node["duration_ms"] or 0.0))
    del nodes[NODES:]


def _spread(values: Iterable[float | None]) -> dict[str, Any]:
    """Median and 95th percentile, linear between the values; None where there are too few for it."""
    known = [value for value in values if value is not None]
    return {
        "n": len(known),
        "p50": round(statistics.median(known), 3) if known else None,
        "p95": round(statistics.quantiles(known, n=20, method="inclusive")[-1], 3) if len(known) >= P95_NEEDS else None,
    }


def _keep_newest(held: dict[str, Any], limit: int) -> None:
    while len(held) > limit:
        del held[next(iter(held))]
