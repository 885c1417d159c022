"""Knows what readings of a machine's clocks say: how fast each ran against the monotonic one, its steps, and sleep."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comfyload.record.clocks import ClockCheck, ClockName, ClockRate, ClockReadings

__all__ = ["STEP_S", "check_clocks"]

Floats = NDArray[np.float64]
STEP_S = 0.05
"""A sudden change above this is a step; what is below enters the rate alone."""
_FEWEST = 4
"""Of fewer intervals a step cannot be told from a rate."""


def check_clocks(readings: ClockReadings) -> ClockCheck | None:
    """All of a process's readings in a few numbers; None of fewer than two.

    What the machine slept is taken off the wall clock's gain: a clock that went on while the monotonic one stood still
    did as it should.
    """
    t, error = np.array(readings.t), np.array(readings.error)
    if len(t) < 2 or t[-1] <= t[0]:
        return None
    gained = {name: (np.array(column) - column[0]) - (t - t[0]) for name, column in readings.others.items()}
    slept = np.zeros(len(t))
    if "boottime" in gained:
        slept = np.concatenate(([0.0], np.cumsum(np.maximum(_steps(t, error, gained["boottime"]), 0.0))))
        gained = {name: column if name == "raw" else column - slept for name, column in gained.items()}
    return ClockCheck(
        seconds=float(t[-1] - t[0]),
        readings=len(t),
        slept_s=float(slept[-1]),
        rates=[_rate(name, t, error, column) for name, column in gained.items()],
    )


def _rate(name: ClockName, t: Floats, error: Floats, gained: Floats) -> ClockRate:
    steps = _steps(t, error, gained)
    large = steps[steps != 0]
    total = float(gained[-1])
    return ClockRate(
        clock=name,
        rate=total / float(t[-1] - t[0]),
        gained_s=total,
        error_s=float(error[0] + error[-1]),
        steps=len(large),
        stepped_s=float(large.sum()),
        largest_step_s=float(large[np.argmax(np.abs(large))]) if len(large) else 0.0,
    )


def _steps(t: Floats, error: Floats, gained: Floats) -> Floats:
    """What was gained suddenly in each interval, beyond the usual rate and the error of reading; else 0."""
    grown, took = np.diff(gained), np.diff(t)
    if len(grown) < _FEWEST:
        return np.zeros(len(grown))
    beyond = grown - float(np.median(grown / np.maximum(took, 1e-9))) * took
    return np.where(np.abs(beyond) > STEP_S + error[1:] + error[:-1], beyond, 0.0)
