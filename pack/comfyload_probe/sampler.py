"""When GPUs and the process are read: a thread on an absolute schedule, which does not catch up when late."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .gpus import Gpus

__all__ = ["Sampler"]

GIVES_UP_AFTER = 20
STOP_PATIENCE_S = 1.0


class Sampler:
    """Rows `sample`, `hz` times a second; none if it is 0.

    `last` is when the last one was emitted, in seconds of time.perf_counter(), None before it: a driver that hangs in a
    call shows itself by that alone. `errors` counts readings that failed.
    """

    def __init__(
        self,
        emit: Callable[..., None],
        queue_depth: Callable[[], int | None],
        gpus: Gpus,
        hz: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._emit = emit
        self._queue_depth = queue_depth
        self._gpus = gpus
        self._period = 1 / hz if hz > 0 else 0.0
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._told_of_errors = False
        self._gpus_missing = False
        self.errors = 0
        self.last: float | None = None

    def start(self) -> None:
        """Begin, once."""
        if self._period and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="comfyload probe: sampler", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let it end; a driver that hangs is not waited for."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_PATIENCE_S)

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        due, in_a_row = self._clock(), 0
        while not self._stopping.wait(max(0.0, due - self._clock())):
            try:
                self._sample()
                in_a_row = 0
            except Exception as error:  # noqa: BLE001 - nothing of ours may harm the server, whatever a driver does
                self.errors += 1
                in_a_row += 1
                if in_a_row == GIVES_UP_AFTER:
                    self._say(
                        "error", f"the sampler stops after {in_a_row} failures in a row, the last: {_told(error)}"
                    )
                    return
                if not self._told_of_errors:
                    self._told_of_errors = True
                    self._say("warning", f"a reading failed; the sampler goes on: {_told(error)}")
            due = _next_due(due, self._period, self._clock())

    def _sample(self) -> None:
        at = self._clock()
        process = {"rss_bytes": rss_bytes(), "cpu_s": time.process_time()}
        gpus = self._gpus.read()
        self._emit("sample", at=at, queue_depth=self._queue_depth(), process=process, gpus=gpus)
        self.last = at
        missing = bool(self._gpus.why) and self._gpus.backend != "none"
        if missing and not self._gpus_missing:
            self._say("warning", f"GPU readings are missing: {self._gpus.why}")
        self._gpus_missing = missing

    def _say(self, level: str, error: str) -> None:
        with suppress(Exception):  # the way to say it may be what is broken
            self._emit("probe.problem", level=level, error=error)


def rss_bytes() -> int | None:
    """Memory of this process that is in RAM now; None where neither psutil nor /proc tells it."""
    try:
        import psutil
    except ImportError:
        pass
    else:
        with suppress(psutil.Error, OSError):
            return int(psutil.Process().memory_info().rss)
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _next_due(due: float, period: float, now: float) -> float:
    """The next instant of the schedule that is not over yet."""
    return due + period * max(1, int((now - due) / period) + 1)


def _told(error: Exception) -> str:
    said: Any = str(error)
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__
