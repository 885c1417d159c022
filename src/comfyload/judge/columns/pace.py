"""How fast the server's clock ran against ours, by when its jobs ended on either."""

from array import array

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.statistics.trend import theil_sen

_FEWEST, _BLOCKS = 8, 200
_REACH_S = 0.1
_CLOCK_MS = 1e14
"""A stamp beyond this, the year 5138, is not a reading of a clock."""


class Pace(Struct, frozen=True, kw_only=True):
    """The server's clock against ours: it gained `rate` seconds in each of ours, 99 % surely from `low` to `high`.

    `n` ends of jobs, over `seconds` of ours. Each is seen a little after the server stamped it, by a time that may grow
    while a run goes on: only a gain of more than `reach_s` is the clock's.
    """

    rate: float
    low: float
    high: float
    n: int
    seconds: float
    reach_s: float

    def beyond(self, limit: float) -> bool:
        """Whether the clocks surely parted by more than this share, and by more than what delays explain."""
        return max(self.low, -self.high) > limit and abs(self.rate) * self.seconds > self.reach_s


class Ends:
    """When completed jobs ended, by our clock and by the server's: those whose end arrived as an event at once."""

    def __init__(self) -> None:
        self._done, self._stamped = array("d"), array("d")

    def add(self, done: Floats, stamped: Floats) -> None:
        """Ends of jobs, of the warm-up too, with the stamps that the server sent; NaN is "not known"."""
        known = (stamped > 0) & (stamped < _CLOCK_MS) & ~np.isnan(done)
        self._done.frombytes(done[known].tobytes())
        self._stamped.frombytes(stamped[known].tobytes())

    def pace(self, acknowledged_s: Floats) -> Pace | None:
        """None where too few jobs tell it. `acknowledged_s`: how long replies took, as a measure of delays."""
        order = np.argsort(np.array(self._done), kind="stable")
        done, stamped = np.array(self._done)[order], np.array(self._stamped)[order]
        if len(done) < _FEWEST:
            return None
        gained = (stamped - stamped[0]) / 1000 - (done - done[0])
        x, y = done, gained
        if len(done) > _BLOCKS:
            x, y = (np.array([np.median(part) for part in np.array_split(each, _BLOCKS)]) for each in (done, gained))
        ascends = np.concatenate(([True], np.diff(x) > 0))
        found = theil_sen(x[ascends], y[ascends]) if ascends.sum() >= _FEWEST else None
        if found is None:
            return None
        delay = float(np.quantile(acknowledged_s, 0.9)) if len(acknowledged_s) else 0.0
        return Pace(
            rate=found[0],
            low=found[1],
            high=found[2],
            n=len(done),
            seconds=float(done[-1] - done[0]),
            reach_s=_REACH_S + 3 * delay,
        )
