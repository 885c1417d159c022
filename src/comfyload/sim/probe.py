"""The instrumentation pack of a simulated server: the rows it would write, and readings of a GPU that is not there."""

import math
import random
from collections import deque
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from comfyload.comfy.wire.calls import Reply
from comfyload.sim.queue import Entry, Item, Queue
from comfyload.sim.reply import NOT_FOUND, json_reply
from comfyload.sim.settings import Clock, Settings, Truth
from comfyload.sim.timing import LOADERS, SAMPLERS, Timing

SCHEMA = 1
RING = 20_000
AHEAD_S = 12_345.678
"""The probe's clock is the loop's plus this, so that a mix-up shows."""
OLDEST_S = 60.0
"""Samples are made when they are read, for no longer ago than this."""

_GIB = 2.0**30
_IDLE_W, _BUSY_W, _IDLE_C, _HOT_C = 24.0, 250.0, 38.0, 36.0
_KERNELS = dict.fromkeys(SAMPLERS, 0.97) | dict.fromkeys(LOADERS, 0.06) | {"SaveImage": 0.03, "PreviewImage": 0.03}
_OTHERS = 0.55
"""Share of a node's time in which a kernel runs, by its class."""


class Probe:
    """Rows of one server process."""

    def __init__(self, settings: Settings, clock: Clock, rng: random.Random, timing: Timing, queue: Queue) -> None:
        self._settings, self._clock, self._timing, self._queue = settings, clock, timing, queue
        self._boot = f"{rng.getrandbits(32):08x}"
        self._rows: deque[Entry] = deque(maxlen=RING)
        self._seq = 0
        self._pause = max(0.05, 0.5 / settings.speed)
        self._work: deque[tuple[float, float, float]] = deque()  # from, until, share of it with a kernel running
        self._running: tuple[float, str] | None = None
        self._sampled: float | None = None
        self._heat = self._joules = 0.0

    def queued(self, item: Item, depth: int) -> None:
        """A prompt was accepted, with so many before it."""
        known = {"number": item.number, "queue_depth": depth, "node_count": len(item.graph)}
        ours = item.extra_data.get("comfyload")
        again = {key: ours[key] for key in ("attempt", "retry_of") if key in ours} if isinstance(ours, dict) else {}
        self._sample()
        self._row("prompt.queued", self._clock.now(), prompt_id=item.prompt_id, **known, **again)

    def started(self, item: Item, truth: Truth) -> None:
        waited = 1000 * (truth.started - truth.created)
        depth = self._queue.remaining
        self._row("prompt.started", truth.started, prompt_id=item.prompt_id, waited_ms=waited, queue_depth=depth)

    def node(self, kind: str | None) -> None:
        """A node of this class begins; None: whichever ran has ended."""
        now = self._clock.now()
        if self._running is not None:
            self._work.append((self._running[0], now, _KERNELS.get(self._running[1], _OTHERS)))
        self._running = None if kind is None else (now, kind)

    def ended(self, item: Item, truth: Truth, messages: list[list[Any]]) -> None:
        """The rows of a prompt that has ended: one for each node, then its own."""
        self.node(None)
        end = truth.ended if truth.ended is not None else self._clock.now()
        status = {"failed": "error", "interrupted": "interrupted"}.get(truth.outcome, "ok")
        peak = int(self._vram(busy=True))
        for node in truth.cached:
            self._node(item, node, "cached", None, end, None)
        for node in truth.executed:
            self._node(item, node, "run", *truth.spans[node], peak)
        error = next((data for kind, data in messages if kind == "execution_error"), None)
        failure: Entry = {}
        if error is not None:
            status = "error"
            self._node(item, error["node_id"], "error", None, end, peak)
            failure = {
                "level": "error",
                "error": error["exception_message"].strip()[:500],
                "exception_type": error["exception_type"],
                "node": error["node_id"],
                "class_type": error["node_type"],
            }
        self._row(
            "prompt.ended",
            end,
            prompt_id=item.prompt_id,
            status=status,
            start_mono_s=truth.started + AHEAD_S,
            duration_ms=1000 * (end - truth.started),
            nodes_run=len(truth.executed),
            nodes_cached=len(truth.cached),
            vram_peak_bytes=peak if truth.executed else None,
            **failure,
        )

    def reply(self, route: str, query: dict[str, str]) -> Reply:
        """Answer `GET /comfyload/v1/{route}`."""
        self._sample()
        about: Entry = {"schema": SCHEMA, "boot": self._boot}
        if route == "clock":
            now = self._clock.now()
            return json_reply(
                {**about, "mono_s": now + AHEAD_S, "unix_s": self._clock.stamp() / 1000, "seq": self._seq}
            )
        if route == "environment":
            probe = {"version": "simulated", "active": True, "dropped": 0, "errors": 0}
            return json_reply({**about, "facts": self._facts(), "hooks": {}, "missing": [], "probe": probe})
        if route != "events":
            return NOT_FOUND
        numbers = {key: query.get(key, default) for key, default in (("after", "0"), ("limit", "1000"))}
        for key, number in numbers.items():
            if not (number.isascii() and number.isdigit() and len(number) <= 18):
                return json_reply({"error": f"{key}={number!r} is not a number", "hint": "give a whole number"}, 400)
        after, limit = int(numbers["after"]), max(1, min(int(numbers["limit"]), 5000))
        if query.get("boot", self._boot) != self._boot:
            after = 0
        oldest = self._rows[0]["seq"] if self._rows else 1
        first = max(0, after + 1 - oldest)  # rows are numbered without a gap
        given = list(islice(self._rows, first, first + limit))
        missed = max(0, oldest - after - 1)
        return json_reply(
            {**about, "next": given[-1]["seq"] if given else after, "missed": missed if given else 0, "rows": given}
        )

    def _node(self, item: Item, node: str, status: str, begin: float | None, end: float, peak: int | None) -> None:
        self._row(
            "node",
            end,
            prompt_id=item.prompt_id,
            node=node,
            class_type=item.graph.get(node, {}).get("class_type"),
            status=status,
            start_mono_s=None if begin is None else begin + AHEAD_S,
            duration_ms=None if begin is None else 1000 * (end - begin),
            vram_allocated_bytes=None,
            vram_peak_bytes=peak if status == "run" else None,
        )

    def _row(self, event: str, at: float, **fields: Any) -> None:
        self._seq += 1
        wall = datetime.fromtimestamp(self._clock.stamp() / 1000 - self._clock.now() + at, UTC)
        stamp = wall.isoformat(timespec="microseconds").replace("+00:00", "Z")
        about = {"schema": SCHEMA, "event": event, "timestamp": stamp, "mono_s": at + AHEAD_S}
        self._rows.append({**about, "boot": self._boot, "seq": self._seq, **fields})

    def _sample(self) -> None:
        """Make the samples that are due by now."""
        now = self._clock.now()
        if self._sampled is None:
            self._sampled = now
        at = max(self._sampled + self._pause, now - OLDEST_S)
        while at <= now:
            self._one_sample(at)
            at += self._pause

    def _one_sample(self, at: float) -> None:
        busy = self._busy(at - self._pause, at)
        watts = _IDLE_W + _BUSY_W * busy
        self._heat += (busy - self._heat) * (1 - math.exp(-self._pause * self._settings.speed / 40))
        self._joules += watts * self._pause
        self._sampled = at
        total = self._settings.vram_gib * _GIB
        gpu: Entry = {
            "index": 0,
            "utilisation_percent": round(100 * busy),
            "vram_used_bytes": int(self._vram(busy=busy > 0.3)),
            "vram_total_bytes": int(total),
            "torch_allocated_bytes": int(self._vram(busy=busy > 0.3) - 0.4 * _GIB),
            "process_vram_bytes": int(self._vram(busy=busy > 0.3)),
            "power_w": round(watts, 1),
            "energy_j": round(self._joules, 3),
            "temperature_c": round(_IDLE_C + _HOT_C * self._heat),
            "clock_sm_mhz": 2610 if busy > 0.05 else 210,
            "clock_memory_mhz": 14001 if busy > 0.05 else 405,
            "throttle": [],
            "pcie_rx_bytes_per_s": None,
            "pcie_tx_bytes_per_s": None,
        }
        self._row(
            "sample", at, queue_depth=self._queue.remaining, process={"rss_bytes": None, "cpu_s": None}, gpus=[gpu]
        )

    def _busy(self, begin: float, end: float) -> float:
        """Share of a stretch of time in which a kernel ran."""
        while self._work and self._work[0][1] < begin:
            self._work.popleft()
        work = list(self._work)
        if self._running is not None:
            work.append((self._running[0], end, _KERNELS.get(self._running[1], _OTHERS)))
        kernels = sum(share * max(0.0, min(until, end) - max(since, begin)) for since, until, share in work)
        return min(1.0, kernels / (end - begin))

    def _vram(self, *, busy: bool) -> float:
        """Bytes: what a context, the loaded files and a job's own tensors take, as `/system_stats` counts them."""
        most = (self._settings.vram_gib - 0.5) * _GIB
        return min(most, (0.5 + 3.0 * len(self._timing.loaded) + (1.75 if busy else 0.0)) * _GIB)

    def _facts(self) -> Entry:
        facts = {
            "gpu.0.model": "Simulated GPU",
            "gpu.0.vram_bytes": int(self._settings.vram_gib * _GIB),
            "gpu.0.driver": "none: it is simulated",
            "comfyui.version": self._settings.version,
            "comfyui.commit": "0" * 40,
            "comfyui.dirty": False,
        }
        return {key: {"value": value, "source": "simulator"} for key, value in facts.items()}
