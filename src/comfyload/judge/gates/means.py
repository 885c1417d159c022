"""How a mean or a rate is judged: by its 95 % interval, of which an end may be missing for want of jobs."""

import math

from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.proof import SIDE
from comfyload.judge.gates.verdict import GateVerdict, Verdict, make_verdict, no_data, open_words, verdict_of
from comfyload.judge.statistics.means import INDEPENDENT
from comfyload.judge.statistics.skewed import beyond
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured


def judge_mean(gate: Gate, measured: Measured) -> GateVerdict:
    """The p-value is two-sided, so that 5 % is where the limit meets the end of the interval.

    What proves is the end beyond which the limit must lie; without that end nothing is proven.
    """
    found = measured.summary.statistic(gate.name, gate.workflow)
    if found.value is None:
        return no_data(gate, measured, found.reason, found)
    inside = gate.holds(found.value, gate.limit)
    nearer = found.high if gate.limit > found.value else found.low
    p = _p(found, nearer, gate.limit)
    p_pass, p_fail = (p, 1.0) if inside else (1.0, p)
    verdict = verdict_of(p_pass, p_fail, inside)
    waits = gate.name.endswith(("latency_s", "latency_sent_s", "queue_wait_s"))
    memory = measured.queue.memory if waits else 1.0
    needs = _needs(found, nearer, gate.limit, memory) if verdict == "PASS*" else None
    why = _why(found, nearer, verdict, p_fail)
    if verdict == "PASS" and gate.upper == (found.unit == "s"):  # a slow job would speak against it
        rare = 100 * (1 - SIDE ** (1 / found.n))
        why += f" A slow job in {100 / rare:.0f} may be missing among these {found.n}."
    if needs is not None:
        why += f" To prove it: about {needs} jobs, if the value stays."
    if gate.number.measure == "s" and found.n < int(measured.summary.summary["total_jobs"] or 0):
        why += " Completed jobs only."
    return make_verdict(gate, measured, verdict, why, found, p_fail=p_fail, needs=needs)


def _why(found: Statistic, nearer: float | None, verdict: Verdict, p_fail: float) -> str:
    if nearer is None:
        return f"Nothing is proven: {found.reason}{open_words(verdict, p_fail)}."
    where = {"PASS": "is inside the limit", "FAIL": "is outside the limit"}.get(verdict, "contains the limit")
    return f"The 95 % interval {where}{open_words(verdict, p_fail)}."


def _p(found: Statistic, end: float | None, limit: float) -> float:
    """Of the limit, as the true value, on the side of that end."""
    if end is None or found.value is None or found.n_eff is None or found.skew is None:
        return 1.0
    return beyond(found.value, end, limit, found.skew, found.n_eff - 1)


def _needs(found: Statistic, end: float | None, limit: float, memory: float) -> int | None:
    """How many jobs would bring that end to the limit, and be enough for it to be given; None if it is not known."""
    other = found.high if end is None else end
    other = found.low if other is None else other
    if other is None or found.value is None or not found.n_eff or limit == found.value or math.isinf(memory):
        return None
    narrower = found.n * ((other - found.value) / (limit - found.value)) ** 2
    enough = INDEPENDENT * max(found.n / found.n_eff, memory) if end is None else 0.0
    return max(found.n + 1, math.ceil(max(narrower, enough)))
