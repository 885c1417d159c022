"""Knows how each kind of number is judged against a limit.

- A share or a percentile is a count of jobs, judged by the exact binomial test: 5 % on each side. Nothing is assumed
  of how durations are distributed. A job that failed took longer than any limit; one that the end of the run cut off
  took longer than what was seen of it, so it can disprove a gate and never proves one.
- A mean or a rate is judged by its 95 % interval.
- A count or a maximum is a fact of this run. Nothing is inferred from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.arrivals import arrivals_of
from comfyload.judge.estimates import PERCENTILES
from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.proof import SIDE, beyond, count_test, needed, one_sided, worth
from comfyload.judge.gates.verdict import GateVerdict, Verdict, decide, draft, no_data, percent
from comfyload.judge.stats import Statistic, quantile, quantile_interval, quantile_time, value_needs
from comfyload.judge.summary import Measured
from comfyload.record.plan import Closed

__all__ = ["RULES", "fact_verdict", "plain", "statistic"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_SERVICE = ("execution", "acknowledge")
"""Durations that do not hold a wait behind other jobs."""


def statistic(gate: Gate, measured: Measured) -> Statistic:
    """The summary's estimate of what the gate names."""
    if gate.workflow:
        found: Statistic = getattr(measured.summary.workflows[gate.workflow], gate.name)
        return found
    return measured.summary.statistics[gate.name]


def plain(gate: Gate, measured: Measured) -> float | None:
    """The summary's number that the gate names; None for none."""
    if gate.workflow:
        value = getattr(measured.summary.workflows[gate.workflow], gate.name)
    else:
        value = measured.summary.summary[gate.name]
    return float(value) if isinstance(value, int | float) else None


# --- shares


def _share(gate: Gate, measured: Measured) -> GateVerdict:
    """k of n, taken as independent. The wrong side of an upper limit are the successes."""
    found = statistic(gate, measured)
    if found.value is None:
        return no_data(gate, measured, found.reason, found)
    n, good = found.n, round(found.value * found.n)
    bad, allowed = (good, gate.limit) if gate.upper else (n - good, round(1 - gate.limit, 12))
    p_pass, p_fail = count_test((bad, bad), n, allowed)
    verdict = decide(p_pass, p_fail, gate.holds(found.value, gate.limit))
    needs = needed(bad, allowed) if verdict == "PASS*" else None
    unit, goal = "books" if gate.name.startswith("book") else "jobs", percent(gate.limit)
    if verdict == "PASS*":
        told = f"{n} clean {unit} do" if good == n else f"{good} of {n} {unit} completed: they do"
        why = f"{told} not prove {goal}{_more(gate, unit, bad, needs)}"
    elif verdict == "PASS":
        why = f"{n} clean {unit} prove" if good == n else f"{good} of {n} {unit} completed, which proves"
        why += f" {'at most ' if gate.upper else ''}{goal} (one-sided, 95 %)."
    else:
        why = f"{good} of {n} {unit} completed{_open(verdict, p_fail)}."
    low, high = one_sided(good, n)
    return draft(gate, measured, verdict, why, found, low=low, high=high, p_fail=p_fail, needs=needs)


def _more(gate: Gate, unit: str, bad: int, needs: int | None) -> str:
    if needs is None:
        return f"; no number of {unit} does."
    if bad == 0:
        return f"; {needs} clean ones would."
    return f"; {needs} {unit} with no more than {bad} {'completed' if gate.upper else 'failed'} would."


# --- percentiles


class _Column(Struct, frozen=True, kw_only=True):
    """Durations in the order of completion, `failed` of them infinite; `cut`: it was longer than that."""

    seconds: Floats
    cut: Flags
    failed: int


class _Count(Struct, frozen=True, kw_only=True):
    """Jobs on the wrong side of a limit: surely, and those that were cut off before they told."""

    surely: int
    unknown: int
    allowed: float

    @property
    def most(self) -> int:
        return self.surely + self.unknown


def _percentile(gate: Gate, measured: Measured) -> GateVerdict:
    """A percentile is below a limit if few enough jobs are above it; above it, if few enough are below."""
    shown, _, metric = gate.name.removesuffix("_s").partition("_")
    p, found, column = PERCENTILES[shown], statistic(gate, measured), _column(gate, measured, metric)
    n = len(column.seconds)
    if n == 0 or (metric == "queue_wait" and column.cut.any()):
        return no_data(gate, measured, found.reason, found)
    tau = quantile_time(column.seconds, p) if _depend(gate, measured, metric) else 1.0
    counts = _wrong(gate, column, p)
    p_pass, p_fail = count_test((counts.surely, counts.most), n, counts.allowed, tau)
    value, low, high = found.value, found.low, found.high
    if not column.cut.any():
        value = quantile(column.seconds, p) if n >= value_needs(p) else None
        low, high = quantile_interval(column.seconds, p, 1 - 2 * SIDE, tau)
    told = value is not None and not counts.unknown
    inside = gate.holds(value, gate.limit) if told and value is not None else counts.most <= n * counts.allowed
    verdict = decide(1.0 if counts.unknown else p_pass, p_fail, inside)
    needs = _needs(counts, n, tau) if verdict == "PASS*" and not counts.unknown else None
    why = _counted(gate, column, counts, needs)
    why += f"{_open(verdict, p_fail)}."
    if counts.unknown:
        why += f" {counts.unknown} were cut off by the end before they told, so nothing is proven."
    if worth(n, tau) < n:
        waited = "waited in one queue and " if _queued(measured, metric) else ""
        why += f" They {waited}depend on each other, which is allowed for."
    return draft(gate, measured, verdict, why, value=value, low=low, high=high, n=n, p_fail=p_fail, needs=needs)


def _wrong(gate: Gate, column: _Column, p: float) -> _Count:
    """What was cut off will be longer than was seen: beyond an upper limit it stays, below it may yet go there."""
    seconds, cut = column.seconds, column.cut
    below = seconds < gate.limit if gate.op in ("<", ">=") else seconds <= gate.limit
    wrong, unknown = (~below, cut & below) if gate.upper else (below & ~cut, cut & below)
    allowed = round(1 - p, 12) if gate.upper else p
    return _Count(surely=int(wrong.sum()), unknown=int(unknown.sum()), allowed=allowed)


def _needs(counts: _Count, n: int, tau: float) -> int | None:
    few = worth(n, tau)
    fewest = needed(math.ceil(counts.most * few / n - 1e-9), counts.allowed)
    return None if fewest is None else max(n + 1, math.ceil(fewest * tau))


def _counted(gate: Gate, column: _Column, counts: _Count, needs: int | None) -> str:
    unit = "books" if "book" in gate.name else "jobs"
    text = f"{counts.surely} of {len(column.seconds)} {unit} took {'longer' if gate.upper else 'less'}"
    text += f" than {gate.limit:.4g} s"
    if column.failed and gate.upper:
        text += f", with {column.failed} that did not complete"
    if needs is None:
        return text
    return f"{text}; {needs} with {f'no more than {counts.most}' if counts.most else 'none'} would prove it"


def _column(gate: Gate, measured: Measured, metric: str) -> _Column:
    """The durations that a percentile is of. By the client's clock, what did not complete is infinite."""
    if metric == "book_latency":
        books = arrivals_of(measured.jobs, measured.manifest.plan.pages)
        return _endless(books.done - books.due, books.completed, books.censored)
    jobs = measured.jobs
    columns, chosen = jobs.counted, np.ones(jobs.n, np.bool_)
    if gate.workflow:
        chosen = columns.workflow == list(measured.summary.workflows).index(gate.workflow)
    chosen &= ~columns.ours
    seconds = jobs.metric("latency" if metric == "latency_with_failures" else metric)[chosen]
    completed, cut = columns.completed[chosen], columns.censored[chosen]
    if metric not in (*_SERVICE, "queue_wait"):
        return _endless(seconds, completed, cut)
    known = (completed & ~np.isnan(seconds)) | (cut if metric == "queue_wait" else False)
    return _Column(seconds=seconds[known], cut=cut[known], failed=0)


def _endless(seconds: Floats, completed: Flags, cut: Flags) -> _Column:
    failed = ~completed & ~cut
    known = failed | ~np.isnan(seconds)  # a job that ended unwatched is on neither side
    return _Column(seconds=np.where(failed, math.inf, seconds)[known], cut=cut[known], failed=int(failed.sum()))


def _queued(measured: Measured, metric: str) -> bool:
    """Whether jobs behind each other in a queue share what they waited for."""
    plan = measured.manifest.plan
    alone = isinstance(plan.load, Closed) and plan.load.concurrency == 1 and plan.pages == 1
    return not alone and metric not in _SERVICE


def _depend(gate: Gate, measured: Measured, metric: str) -> bool:
    """Whether to allow for dependence: in a queue, where models may be swapped, and where it was found.

    Elsewhere jobs run one at a time and nothing ties one to the next: an estimate would only add its own noise.
    """
    found = any(finding.code == "dependent_jobs" for finding in measured.summary.findings)
    return found or len(measured.summary.workflows) > 1 or _queued(measured, metric)


# --- means and rates


def _mean(gate: Gate, measured: Measured) -> GateVerdict:
    """By Student's t. The p-value is two-sided, so that 5 % is where the limit meets the end of the interval."""
    found = statistic(gate, measured)
    if found.value is None:
        return no_data(gate, measured, found.reason, found)
    inside, p_pass, p_fail, needs = gate.holds(found.value, gate.limit), 1.0, 1.0, None
    if found.high is not None and found.n_eff is not None:
        half, away = found.high - found.value, abs(found.value - gate.limit)  # the lower end may stop at 0
        p = beyond(away, half, found.n_eff)
        p_pass, p_fail = (p, 1.0) if inside else (1.0, p)
        needs = max(found.n + 1, math.ceil(found.n * (half / away) ** 2)) if away else None
    verdict = decide(p_pass, p_fail, inside)
    needs = needs if verdict == "PASS*" else None
    where = {"PASS": "inside", "FAIL": "outside"}.get(verdict, "on both sides of the limit")
    why = f"The 95 % interval lies {where}{_open(verdict, p_fail)}."
    if found.high is None:
        why = f"Nothing is proven without an interval: {found.reason}."
    if needs is not None:
        why += f" About {needs} jobs would prove it, if the value stays."
    if gate.known.unit == "s" and found.n < int(measured.summary.summary["total_jobs"] or 0):
        why += " Of the completed jobs alone."
    return draft(gate, measured, verdict, why, found, p_fail=p_fail, needs=needs)


# --- facts


def _fact(gate: Gate, measured: Measured) -> GateVerdict:
    """A count, a maximum or a time: it was so, or it was not."""
    value = plain(gate, measured)
    if value is None:
        return no_data(gate, measured, f"the run has no {gate.name}")
    return fact_verdict(gate, measured, value, gate.limit, "Of this run alone: it says nothing of another.")


def fact_verdict(gate: Gate, measured: Measured, value: float, limit: float, why: str) -> GateVerdict:
    """Whether a value stands where it should. The longest latency is not known where jobs did not complete."""
    flat = measured.summary.summary
    verdict: Verdict = "PASS" if gate.holds(value, limit) else "FAIL"
    n = int(flat["total_jobs"] or 0)
    others = n - int(flat["completed"] or 0)
    if verdict == "PASS" and gate.upper and others and gate.known.unit == "s" and "latency" in gate.name:
        verdict, why = "INCONCLUSIVE", f"Of the completed jobs alone: {others} more did not complete."
    return draft(gate, measured, verdict, why, value=value, n=n, limit=limit)


def _open(verdict: Verdict, p_fail: float) -> str:
    if verdict == "FAIL":
        return f" (p = {p_fail:.2g} if the gate held)"
    return ", so the value is outside, but not disproven" if verdict == "INCONCLUSIVE" else ""


RULES: dict[str, Callable[[Gate, Measured], GateVerdict]] = {
    "share": _share,
    "percentile": _percentile,
    "mean": _mean,
    "fact": _fact,
}
"""What judges each kind of number; errors have a room of their own."""
