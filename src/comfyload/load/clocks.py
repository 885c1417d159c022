"""Reads the machine's clocks during a run, all at once and often, so that their differences can be judged."""

import asyncio
import sys
import time
from array import array
from collections.abc import Callable, Mapping

from comfyload.clock import VirtualLoop
from comfyload.record.clocks import ClockName, ClockReadings

EVERY_S = 0.5
MOST = 8192
"""Readings kept: an hour of them. When there are so many, every second one is left out, and from then on they are made
half as often, so that a run of any length keeps no more. A step stays visible: it moves all that is read after it.
"""
TRIES, NARROW_S = 5, 20e-6
"""A reading that the kernel interrupted is repeated."""


def machine_clocks() -> dict[ClockName, Callable[[], float]]:
    """The clocks of this system apart from the monotonic one."""
    found: dict[ClockName, Callable[[], float]] = {"wall": lambda: time.time()}
    if sys.platform == "win32":
        monotonic, counter = (time.get_clock_info(name).implementation for name in ("monotonic", "perf_counter"))
        return found | ({"raw": lambda: time.perf_counter()} if monotonic != counter else {})
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    # macOS has no clock of this name, and Python's monotonic one is another than the CLOCK_MONOTONIC that sleeps not.
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC if sys.platform == "darwin" else None)
    if raw is not None:
        found["raw"] = lambda: time.clock_gettime(raw)
    if boot is not None:
        found["boottime"] = lambda: time.clock_gettime(boot)
    return found


class ClockWatch:
    """Reads the clocks twice a second, in long runs less often, until ended; each reading costs some microseconds."""

    def __init__(self, others: Mapping[ClockName, Callable[[], float]] | None = None) -> None:
        self._others = machine_clocks() if others is None else others
        self._resolution = max(time.get_clock_info(name).resolution for name in ("monotonic", "time"))
        self.readings = ClockReadings(others={name: array("d") for name in self._others})
        self._task: asyncio.Task[None] | None = None
        self._every_s = EVERY_S

    def begin(self) -> None:
        """Start reading in the background; on virtual time there is nothing to read."""
        if not isinstance(asyncio.get_running_loop(), VirtualLoop):
            self._task = asyncio.create_task(self._run())

    def end(self) -> ClockReadings:
        """Read once more, and no more."""
        if self._task is not None:
            self._task.cancel()
            self._read()
        return self.readings

    async def _run(self) -> None:
        while True:
            self._read()
            await asyncio.sleep(self._every_s)

    def _read(self) -> None:
        best, width = (0.0, [0.0] * len(self._others)), float("inf")
        for _ in range(TRIES):
            before = time.monotonic()
            values = [clock() for clock in self._others.values()]
            after = time.monotonic()
            if after - before < width:
                best, width = ((before + after) / 2, values), after - before
            if width < NARROW_S:
                break
        self.readings.t.append(best[0])
        self.readings.error.append(width / 2 + self._resolution)
        for column, value in zip(self.readings.others.values(), best[1], strict=True):
            column.append(value)
        if len(self.readings.t) >= MOST:
            self._thin()

    def _thin(self) -> None:
        """Leave out every second reading, but not the last one."""
        kept, self._every_s = self.readings, 2 * self._every_s
        for column in (kept.t, kept.error, *kept.others.values()):
            column[:] = column[:-1:2] + column[-1:]
