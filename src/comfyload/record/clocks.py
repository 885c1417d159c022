"""Types for the readings of a machine's clocks, compared with the monotonic one."""

from __future__ import annotations

from array import array
from typing import Literal

from msgspec import Struct, field

ClockName = Literal["wall", "raw", "boottime"]
"""`wall`: the time of day. `raw`: the same crystal, never slewed. `boottime`: counts on while the machine sleeps."""


class ClockReadings(Struct, kw_only=True):
    """Successive readings of all clocks at once, in seconds, a column each.

    `t`: the monotonic clock's; `error`: by how much it may differ from the instant at which the others were read.
    """

    t: array[float] = field(default_factory=lambda: array("d"))
    error: array[float] = field(default_factory=lambda: array("d"))
    others: dict[ClockName, array[float]] = field(default_factory=dict)


class ClockRate(Struct, frozen=True, kw_only=True):
    """One clock against the monotonic one.

    `gained_s`: how much more it counted, steps included, to within `error_s`; `rate`: that as a share of the monotonic
    seconds. `steps`: sudden changes of more than 50 ms; `stepped_s`: their sum, `largest_step_s` the largest of them.
    """

    clock: ClockName
    rate: float
    gained_s: float
    error_s: float
    steps: int = 0
    stepped_s: float = 0.0
    largest_step_s: float = 0.0


class ClockCheck(Struct, frozen=True, kw_only=True):
    """All clocks over one process of a run; `seconds` are the monotonic clock's. `slept_s`: how long the machine slept
    meanwhile, which the monotonic clock does not count.
    """

    seconds: float
    readings: int
    slept_s: float = 0.0
    rates: list[ClockRate] = []
