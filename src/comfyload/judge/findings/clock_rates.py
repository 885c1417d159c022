"""What clocks that disagree mean for a run's numbers: which is wrong by majority, or that it cannot be known.

All our instants are the monotonic clock's. It is compared with the other clocks of its machine, and with the server's,
which is an independent witness only on another machine.
"""

from collections.abc import Iterator

from comfyload.judge.columns.pace import Pace
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding
from comfyload.record.clocks import ClockCheck, ClockRate

REPORTED = 0.002
"""Clocks that differ by more than this are reported; NTP never slews by more than a quarter of it."""
MOVES = 0.02
"""A disagreement beyond this moves a latency by more than a gate or a comparison can overlook: the run is not valid."""
LEAST_S = 0.01
AGREES = 0.01
"""Two rates within this are the same for a majority's sake."""


def clock_findings(evidence: Evidence) -> Iterator[Finding]:
    """Sleep, this machine's clocks, and the server's."""
    checks = evidence.manifest.clocks
    slept = sum(check.slept_s for check in checks)
    if slept > 0:
        yield finding(
            "slept",
            f"The generator's machine slept for {slept:.3g} s during the run: jobs that were running then took longer "
            "than their latencies say.",
            {"slept_s": slept},
        )
    off = [(check, _off(check, REPORTED)) for check in checks]
    worst = max(off, key=lambda pair: max((abs(one.rate) for one in pair[1]), default=0.0), default=None)
    if worst is not None and worst[1]:
        yield _own(evidence, *worst)
    elif stepped := [(check, one) for check in checks for one in check.rates if one.steps]:
        check, rate = max(stepped, key=lambda pair: abs(pair[1].largest_step_s))
        yield finding(
            "clock_step",
            f"The {rate.clock} clock of the generator's machine was set during the run{_steps(rate)}. Instants are "
            "counted on the monotonic clock, which no step moves.",
            {"clock": rate.clock, "steps": rate.steps, "stepped_s": rate.stepped_s, "seconds": check.seconds},
        )
    yield from _server(evidence, agree=bool(checks) and not any(found for _, found in off))


def _off(check: ClockCheck, limit: float) -> list[ClockRate]:
    """Clocks that parted from the monotonic one by more than this share, and by more than reading them can err.

    A clock that was set by more than the whole run took was set by somebody: no clock that runs wrong is corrected so.
    """
    least = max(limit * check.seconds, LEAST_S)
    off = [one for one in check.rates if abs(one.gained_s) > least + one.error_s]
    return [
        one
        for one in off
        if abs(one.largest_step_s) <= check.seconds or abs(one.gained_s - one.stepped_s) > least + one.error_s
    ]


def _own(evidence: Evidence, check: ClockCheck, off: list[ClockRate]) -> Finding:
    worst = max(off, key=lambda one: abs(one.rate))
    *others, last = [one.clock for one in off]
    names = f"{', '.join(others)} and {last}" if others else last
    by = f"{worst.gained_s:+.3g} s in {check.seconds:.3g} s{_steps(worst)}"
    if len(off) == len(check.rates) > 1 and all(abs(one.rate - worst.rate) < AGREES for one in off):
        ran = _pace(_inverse(worst.rate))
        text = f"The monotonic clock, by which instants are counted, ran {ran} than the {names} clocks of its machine"
    else:
        clocks = f"The {names} clock{'s' if len(off) > 1 else ''} of the generator's machine"
        text = f"{clocks} ran {_pace(worst.rate)} than the monotonic clock, by which instants are counted"
    text += f" ({by})."
    verdict, stands = _witness(evidence, worst)
    grave = bool(_off(check, MOVES)) and not stands
    if not stands:
        off_by = f"{100 * abs(_inverse(worst.rate)):.3g} % too {'short' if worst.rate > 0 else 'long'}"
        text += f" Latencies may be {off_by}."
    return finding(
        "clock_rate",
        f"{text} {verdict}",
        {
            "seconds": check.seconds,
            "rates": {one.clock: one.rate for one in check.rates},
            "steps": worst.steps,
            "stepped_s": worst.stepped_s,
            "server": None if evidence.pace is None else evidence.pace.rate,
        },
        level="invalid" if grave else "warning",
    )


def _witness(evidence: Evidence, worst: ClockRate) -> tuple[str, bool]:
    """What the server's clock says in the matter, and whether our instants stand by it."""
    pace = evidence.pace
    here = evidence.manifest.environment.get("host.runs_generator")
    if here is None or here.value is not False or pace is None:
        return "It cannot be known which of them is right: there is no clock of another machine to compare with.", False
    if pace.low > -AGREES and pace.high < AGREES:
        wrong = f"by majority the {worst.clock} clock is wrong, and latencies stand."
        return f"The server, on another machine, counts as the monotonic clock does: {wrong}", True
    if abs(pace.rate - worst.rate) < AGREES:
        wrong = "by majority it is the monotonic clock that is wrong, and latencies with it."
        return f"The server, on another machine, counts as the {worst.clock} clock does: {wrong}", False
    return "The server's clock, on another machine, agrees with neither: which is right cannot be known.", False


def _server(evidence: Evidence, *, agree: bool) -> Iterator[Finding]:
    for name, pace in evidence.paces.items():
        if pace is not None and pace.beyond(REPORTED):
            who = f"{name}: the" if len(evidence.paces) > 1 else "The"
            yield from _server_pace(evidence, pace, who, agree=agree)


def _server_pace(evidence: Evidence, pace: Pace, who: str, *, agree: bool) -> Iterator[Finding]:
    # A server on this machine uses our own wall clock, which is already reported.
    known = [one.rate for check in evidence.manifest.clocks for one in _off(check, REPORTED)]
    if any(abs(rate - pace.rate) < AGREES for rate in known):
        return
    ours = "It cannot be known which of the two is right."
    if agree:
        ours = "Those of this machine agree with each other, so that by majority it is the server's that is wrong; a "
        ours += "fault that they share cannot be known here."
    yield finding(
        "server_clock_rate",
        f"{who} server's clock ran {_pace(pace.rate)} than ours ({100 * pace.low:+.2f} to {100 * pace.high:+.2f} %, "
        f"by the ends of {pace.n} jobs over {pace.seconds:.3g} s): its execution times and waits do not add up with "
        f"our latencies. {ours}",
        {"rate": pace.rate, "low": pace.low, "high": pace.high, "jobs": pace.n, "seconds": pace.seconds},
        level="invalid" if pace.beyond(MOVES) and abs(pace.rate) * pace.seconds > 0.25 else "warning",
    )


def _steps(rate: ClockRate) -> str:
    if not rate.steps:
        return ""
    if rate.steps == 1:
        return f", with one step of {rate.largest_step_s:+.3g} s"
    mean = rate.stepped_s / rate.steps
    if abs(rate.largest_step_s) > 2.0 * abs(mean):  # to and fro
        return f", with {rate.steps} steps, the largest of {rate.largest_step_s:+.3g} s"
    return f", with {rate.steps} steps of {mean:+.3g} s on average"


def _pace(rate: float) -> str:
    return f"{100 * abs(rate):.3g} % {'faster' if rate > 0 else 'slower'}"


def _inverse(rate: float) -> float:
    """Of the other clock's rate against this one, this one's against the other."""
    return -rate / (1 + rate) if rate > -1 else float("inf")
