"""How old jobs are, by a clock that nobody sets, also over restarts of the gateway."""

import time
from collections.abc import Callable

from comfyload.gateway.store import Store

LEAST_MS = 1_000
"""What the wall clock and ours may differ by before it is kept: less is drift, or the time that reading both takes."""

_SET_BY = "wall clock set by, ms"


class SteadyClock:
    """Unix milliseconds, as the wall clock would show them if nobody had set it since the store was begun.

    While a process is at work this is its monotonic clock, `clock`, in seconds. The wall clock carries it on from one
    process to the next.
    """

    def __init__(self, clock: Callable[[], float], store: Store) -> None:
        self._clock = clock
        self._store = store
        self._set_by_ms = store.number(_SET_BY, 0)
        self._zero_ms = time.time() * 1000 - self._set_by_ms - clock() * 1000

    def now_ms(self) -> int:
        return round(self._zero_ms + self._clock() * 1000)

    def age_s(self, at_ms: int) -> float:
        """How long ago that was."""
        return (self._zero_ms - at_ms) / 1000 + self._clock()

    def note(self) -> None:
        """Keep for the next process by how much the wall clock was set, if it was since the last call.

        Raises:
            RunFilesError: it cannot be written.
        """
        set_by_ms = round(time.time() * 1000) - self.now_ms()
        if abs(set_by_ms - self._set_by_ms) > LEAST_MS:
            self._store.set_fact(_SET_BY, set_by_ms)
            self._set_by_ms = set_by_ms
