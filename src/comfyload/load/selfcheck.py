"""How late the generator's timers fire, how busy it is, and what its garbage collector and CPU cost it.

They are our own error bar: a latency below them means nothing, and a run in which they are large measures
the generator.
"""

import asyncio
import gc
import itertools
import math
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyload.clock import now
from comfyload.record.model import Quantiles, SelfCheck
from comfyload.record.ranks import nearest_rank, quantiles_of

SWITCH_S = 0.0005
"""The longest that another thread runs before the loop gets its turn. Python's own 5 ms would show in the lateness."""

CANARY_S = 0.02

EXACT = 10_000
"""Values up to which quantiles are exact. Beyond, values are counted in steps of 1 %, as a day has millions of them."""
_SHORTEST_S, _STEP, _STEPS = 1e-7, math.log(1.01), 2_800
"""The steps: from a tenth of a microsecond, which is nothing, to more than a day."""


class Spread:
    """Median, p99 and maximum of any number of durations, in bounded memory.

    Of up to `EXACT` values they are exact. Beyond, the maximum is, and the quantiles are true to within 0.5 %.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._exact = array("d", bytes(8 * EXACT))  # as large as it gets
        self._counts = array("Q")
        self._n, self._max = 0, 0.0
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        return self._n

    def add(self, seconds: float) -> None:
        """Add one; what is below zero counts as zero once values are counted in steps."""
        self._max = seconds if self._n == 0 else max(self._max, seconds)
        self._n += 1
        if self._n <= EXACT:
            self._exact[self._n - 1] = seconds
            return
        if not self._counts:
            self._counts = array("Q", bytes(8 * (_STEPS + 1)))
            for value in self._exact:
                self._counts[_step(value)] += 1
            self._exact = array("d")
        self._counts[_step(seconds)] += 1

    def quantiles(self) -> Quantiles | None:
        """By nearest rank; None without a value."""
        if not self._n:
            return None
        if not self._counts:
            p50, p99 = quantiles_of(self._exact[: self._n], (0.5, 0.99))
        else:
            p50, p99 = (min(self._max, self._at(nearest_rank(self._n, share))) for share in (0.5, 0.99))
        return Quantiles(n=self._n, p50=p50, p99=p99, max=self._max)

    def _at(self, rank: int) -> float:
        """The middle of the step that holds the value of this rank."""
        seen = itertools.accumulate(self._counts)
        step = next(number for number, below in enumerate(seen) if below >= rank)
        return _SHORTEST_S * math.exp((step - 0.5) * _STEP) if step else 0.0


def _step(seconds: float) -> int:
    if seconds <= _SHORTEST_S:
        return 0
    return min(_STEPS, 1 + int(math.log(seconds / _SHORTEST_S) / _STEP))


class SelfWatch:
    """Made when counting begins, read at its end. `send_lateness` takes sent - due of each counted job, in seconds."""

    def __init__(self) -> None:
        self.send_lateness, self._timers, self._pauses = Spread(), Spread(), Spread()
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
                self._timers.add(max(0.0, now() - due))
                due = max(due + CANARY_S, now())
        finally:
            gc.callbacks.remove(self._on_gc)

    def result(self) -> SelfCheck:
        wall = time.perf_counter() - self._wall
        queued = _run_queue_delay()
        return SelfCheck(
            wall_s=wall,
            timer_lateness_s=self._timers.quantiles(),
            send_lateness_s=self.send_lateness.quantiles(),
            busy_fraction=(time.process_time() - self._cpu) / wall if wall > 0 else 0.0,
            gc_pauses_s=self._pauses.quantiles(),
            run_queue_delay_s=None if queued is None or self._queued is None else queued - self._queued,
            max_rss_bytes=_max_rss(),
        )

    def _on_gc(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._pause_began = time.perf_counter()
        else:
            self._pauses.add(time.perf_counter() - self._pause_began)


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
