"""What readings of a machine's clocks say: how fast each ran against the monotonic one, its steps, and sleep.

Without numpy, as a run's last act is to ask for it: nothing heavy is loaded before it is over.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from comfyload.record.clocks import ClockCheck, ClockName, ClockRate, ClockReadings

STEP_S = 0.05
"""A sudden change above this is a step; what is below enters the rate alone."""
_FEWEST = 4
"""With fewer intervals a step cannot be distinguished from a rate."""


def check_clocks(readings: ClockReadings) -> ClockCheck | None:
    """All of a process's readings in a few numbers; None of fewer than two.

    What the machine slept is taken off the wall clock's gain: a clock that went on while the monotonic one stood still
    did as it should.
    """
    t, error = readings.t, readings.error
    if len(t) < 2 or t[-1] <= t[0]:
        return None
    gained = {
        name: [(shown - column[0]) - (at - t[0]) for at, shown in zip(t, column, strict=True)]
        for name, column in readings.others.items()
    }
    slept = [0.0] * len(t)
    if "boottime" in gained:
        leaps = (max(step, 0.0) for step in _steps(t, error, gained["boottime"]))
        slept = list(accumulate(leaps, initial=0.0))
        for name in gained.keys() - {"raw"}:
            gained[name] = [all_ - asleep for all_, asleep in zip(gained[name], slept, strict=True)]
    return ClockCheck(
        seconds=t[-1] - t[0],
        readings=len(t),
        slept_s=slept[-1],
        rates=[_rate(name, t, error, column) for name, column in gained.items()],
    )


def _rate(name: ClockName, t: Sequence[float], error: Sequence[float], gained: Sequence[float]) -> ClockRate:
    large = [step for step in _steps(t, error, gained) if step]
    return ClockRate(
        clock=name,
        rate=gained[-1] / (t[-1] - t[0]),
        gained_s=gained[-1],
        error_s=error[0] + error[-1],
        steps=len(large),
        stepped_s=sum(large),
        largest_step_s=max(large, key=abs, default=0.0),
    )


def _steps(t: Sequence[float], error: Sequence[float], gained: Sequence[float]) -> list[float]:
    """What was gained suddenly in each interval, beyond the usual rate and the error of reading; else 0."""
    grown = [after - before for before, after in pairwise(gained)]
    took = [max(after - before, 1e-9) for before, after in pairwise(t)]
    if len(grown) < _FEWEST:
        return [0.0] * len(grown)
    usual = sorted(more / of for more, of in zip(grown, took, strict=True))[len(grown) // 2]
    beyond = [more - usual * of for more, of in zip(grown, took, strict=True)]
    errors = [before + after for before, after in pairwise(error)]
    return [step if abs(step) > STEP_S + err else 0.0 for step, err in zip(beyond, errors, strict=True)]
