"""How a run compares with a baseline: the ratio of two values, on the log scale, with the noise between runs."""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import structs

from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.proof import SIDE
from comfyload.judge.gates.rules import fact_verdict
from comfyload.judge.gates.verdict import GateVerdict, make_verdict, plain, verdict_of
from comfyload.judge.statistics.significance import BETWEEN_RUNS_SD, NORMAL_975, geometric_mean, student, tail
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured
from comfyload.words import digits, duration, percent

_EQUAL = 0.0005
"""A change that is written as 0 %."""
_SAME = ("load", "pages", "order", "stickiness", "as_is")
"""What of two plans must be equal before their numbers are compared."""


def against(gate: Gate, measured: Measured, baseline: Sequence[Measured]) -> GateVerdict:
    """Judge a gate that is relative to a baseline; of its runs, the valid ones of the same workflows and load count.

    One run of a baseline: each side is given the noise between runs that is assumed, and nothing is proven. Several:
    the new run is compared with their own spread by Student's t.
    """
    peers = [run for run in baseline if _same_work(run, measured)]
    if not peers:
        why = "The baseline has no other valid run of the same workflows and load."
        return make_verdict(gate, measured, "INCONCLUSIVE", why if baseline else "No baseline given.")
    if gate.number.kind == "fact":
        return _fact(gate, measured, peers)
    source = _with_failures(gate, [measured, *peers])
    found, *theirs = (run.summary.statistic(source.name, source.workflow) for run in (measured, *peers))
    reference, ratio = _reference(theirs), _ratio(found, theirs)
    if gate.upper and found.low == math.inf:
        why = "It is infinite: too many jobs did not complete."
        return make_verdict(gate, measured, "FAIL", why, found, baseline=reference)
    if ratio is None or reference is None or found.value is None:
        why = f"No ratio: {_no_ratio(found, theirs)}."
        return make_verdict(gate, measured, "INCONCLUSIVE", why, found, baseline=reference)
    log, sd, freedom = ratio
    single, limit = math.isinf(freedom), reference * gate.limit
    wrong = (log - math.log(gate.limit)) * (1 if gate.upper else -1)
    p_pass, p_fail = tail(-wrong, sd, freedom), tail(wrong, sd, freedom)
    verdict = verdict_of(1.0 if single else p_pass, p_fail, gate.holds(found.value, limit))
    reach = sd * student(1 - SIDE, freedom)
    ends = math.exp(log - reach), math.exp(log + reach)
    noise = f"Noise between runs: as between the baseline's {len(peers)}."
    if single:
        noise = f"One run a side; {100 * BETWEEN_RUNS_SD:g} % noise between runs assumed"
        noise += "." if verdict == "FAIL" else ", so nothing can be proven."
    why = f"{_change(math.exp(log), ends, _written(reference, gate))} {noise}"
    numbers = {"baseline": reference, "ratio": math.exp(log)}
    return make_verdict(gate, measured, verdict, why, found, p_fail=p_fail, limit=limit, **numbers)


def _written(value: float, gate: Gate) -> str:
    """A value as its gate counts it: 0.842 s as 842 ms, a share in per cent, a rate per minute without its unit."""
    measure = gate.number.measure
    return duration(value) if measure == "s" else percent(value) if measure == "share" else digits(value)


def _change(ratio: float, ends: tuple[float, float], reference: str) -> str:
    """24 % below the baseline's 909 (14 to 32 % at 90 %)."""
    parts = [(abs(end - 1), "above" if end >= 1 else "below") for end in (ratio, *ends)]
    (change, side), *rest = parts
    off = "Equal to" if change < _EQUAL else f"{percent(change)} {side}"
    if all(other == side for _, other in rest):
        low, high = sorted(part for part, _ in rest)
        around = f"{percent(low).removesuffix(' %')} to {percent(high)}"
    else:
        around = " to ".join(f"{percent(part)} {other}" for part, other in rest)
    return f"{off} the baseline's {reference} ({around} at 90 %)."


def _reference(theirs: Sequence[Statistic]) -> float | None:
    """The geometric mean of the baseline's values, where they have one; of one value, that value."""
    values = [one.value for one in theirs if one.value is not None]
    return geometric_mean(values) if len(values) == 1 or (values and _positive(values)) else None


def _positive(values: Sequence[float]) -> bool:
    return all(0 < value < math.inf for value in values)


def _no_ratio(found: Statistic, theirs: Sequence[Statistic]) -> str:
    whose = [("this run", found), *(("the baseline", one) for one in theirs)]
    reasons = [f"{who} has none, {one.reason}" for who, one in whose if one.value is None]
    units = {one.unit for _, one in whose}
    if len(units) > 1 and not reasons:
        return f"not the same is counted, {' and '.join(sorted(units))}"
    return reasons[0] if reasons else "a value is zero or infinite, or has no interval"


def _ratio(found: Statistic, theirs: Sequence[Statistic]) -> tuple[float, float, float] | None:
    """The log of a run's value over the baseline's, its deviation, and Student's degrees of freedom, infinite for one
    value; None where a value is withheld, zero or infinite, or has no interval where it needs one.
    """
    values = [one.value for one in theirs if one.value is not None]
    own, other = _log_sd(found), _log_sd(theirs[0])
    same = len({one.unit for one in (found, *theirs)}) == 1
    if found.value is None or own is None or not values or not (same and _positive(values)):
        return None
    logs = [math.log(value) for value in values]
    log = math.log(found.value) - math.fsum(logs) / len(logs)
    if len(logs) == 1:
        return None if other is None else (log, math.sqrt(own**2 + other**2 + 2 * BETWEEN_RUNS_SD**2), math.inf)
    # Few runs can agree by chance: a run's value varies at least as much as its own jobs make it.
    spread = max(float(np.std(logs, ddof=1)), own)
    return log, spread * math.sqrt(1 + 1 / len(logs)), len(logs) - 1


def _log_sd(found: Statistic) -> float | None:
    """Deviation of the log value, from the farther known end of its 95 % interval; None without one."""
    if found.value is None or not 0 < found.value < math.inf:
        return None
    ends = [end for end in (found.low, found.high) if end is not None and 0 < end < math.inf]
    return max(abs(math.log(end / found.value)) for end in ends) / NORMAL_975 if ends else None


def _with_failures(gate: Gate, runs: Sequence[Measured]) -> Gate:
    """The same percentile with failures as infinite, if a run has any: those that completed may be the quick ones."""
    plainly = gate.number.kind == "percentile" and gate.name.endswith("_latency_s") and "book" not in gate.name
    if gate.workflow or not plainly or not any(run.summary.failures for run in runs):
        return gate
    return structs.replace(gate, metric=gate.metric.replace("_latency_s", "_latency_with_failures_s"))


def _fact(gate: Gate, measured: Measured, peers: Sequence[Measured]) -> GateVerdict:
    value = plain(gate, measured)
    theirs = [known for run in peers if (known := plain(gate, run)) is not None]
    if value is None or not theirs:
        return make_verdict(gate, measured, "INCONCLUSIVE", f"No data: a run has no {gate.name}.")
    mean = math.fsum(theirs) / len(theirs)
    why = f"The baseline has {digits(mean)} on average. A fact of these runs: nothing follows for others."
    judged = fact_verdict(gate, measured, value, mean * gate.limit, why)
    return structs.replace(judged, baseline=mean, ratio=value / mean if mean else None)


def _same_work(run: Measured, measured: Measured) -> bool:
    """A run is not a baseline of itself, and an invalid one of no other."""
    a, b = run.manifest, measured.manifest
    if a.run_id == b.run_id or not run.summary.valid:
        return False
    graphs = [sorted((w.sha256, repr(sorted(w.overrides.items()))) for w in one.workflows) for one in (a, b)]
    return graphs[0] == graphs[1] and all(getattr(a.plan, name) == getattr(b.plan, name) for name in _SAME)
