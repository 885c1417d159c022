"""How late the generator's timers fire, how busy it is, and what its garbage collector and CPU cost it.

They are our own error bar: a latency below them means nothing, and a run in which they are large measures
the generator.
"""

import asyncio
import gc
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyload.clock import now
from comfyload.record.model import Quantiles, SelfCheck
from comfyload.record.ranks import quantiles_of

SWITCH_S = 0.0005
"""The longest that another thread runs before the loop gets its turn. Python's own 5 ms would show in the lateness."""

CANARY_S = 0.02


class SelfWatch:
    """Made when counting begins, read at its end. `send_lateness` takes sent - due of each counted job, in seconds."""

    def __init__(self) -> None:
        self.send_lateness: array[float] = array("d")
        self._timers: array[float] = array("d")
        self._pauses: array[float] = array("d")
        self._pause_began = 0.0
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self._queued = _run_queue_delay()

    async def run(self) -> None:
        """A timer on absolute time, until cancelled: what it is late by, any timer of ours was."""
        gc.callbacks.append(self._on_gc)
        try:
            due = now() + CANARY_S
            while True:
                await asyncio.sleep(due - now())
                self._timers.append(max(0.0, now() - due))
                due = max(due + CANARY_S, now())
        finally:
            gc.callbacks.remove(self._on_gc)

    def result(self) -> SelfCheck:
        wall = time.perf_counter() - self._wall
        queued = _run_queue_delay()
        return SelfCheck(
            wall_s=wall,
            timer_lateness_s=spread(self._timers),
            send_lateness_s=spread(self.send_lateness),
            busy_fraction=(time.process_time() - self._cpu) / wall if wall > 0 else 0.0,
            gc_pauses_s=spread(self._pauses),
            run_queue_delay_s=None if queued is None or self._queued is None else queued - self._queued,
            max_rss_bytes=_max_rss(),
        )

    def _on_gc(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._pause_began = time.perf_counter()
        else:
            self._pauses.append(time.perf_counter() - self._pause_began)


@contextmanager
def frozen_gc() -> Iterator[None]:
    """Keep the collector away from all that exists already, and rare for what comes, and let no other thread run for
    long while jobs are due; as before afterwards.
    """
    thresholds, switch_s = gc.get_threshold(), sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def spread(values: Sequence[float]) -> Quantiles | None:
    """Median, p99 and maximum by nearest rank; None without a value."""
    if not values:
        return None
    p50, p99, most = quantiles_of(values, (0.5, 0.99, 1.0))
    return Quantiles(n=len(values), p50=p50, p99=p99, max=most)


def _run_queue_delay() -> float | None:
    """Seconds the kernel has kept this process's main thread waiting for a CPU, since it began."""
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _max_rss() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
