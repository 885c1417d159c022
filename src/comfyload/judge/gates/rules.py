"""How percentiles and facts are judged against a limit, and which rule judges what.

- A percentile is a count of jobs, judged by the exact binomial test: 5 % on each side. Nothing is assumed of how
  durations are distributed. A job that failed took longer than any limit; one that the end of the run cut off took
  longer than it was observed for, so it can disprove a gate and never proves one.
- A count or a maximum is a fact of this run. Nothing is inferred from it.
"""

import math
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from comfyload.judge.arrivals import arrivals_of
from comfyload.judge.estimates import PERCENTILES, lengths_with_failures
from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.means import judge_mean
from comfyload.judge.gates.proof import SIDE, count_test, effective_n, needed
from comfyload.judge.gates.shares import judge_share
from comfyload.judge.gates.verdict import GateVerdict, Verdict, make_verdict, no_data, open_words, plain, verdict_of
from comfyload.judge.statistics.queue import ALONE, Queue
from comfyload.judge.statistics.stats import quantile, quantile_interval, quantile_time, value_needs
from comfyload.judge.statistics.survival import Lengths
from comfyload.judge.summary import Measured

_SERVICE = ("execution", "acknowledge")
"""Durations that do not hold a wait behind other jobs."""


# --- percentiles


class _Count(Struct, frozen=True, kw_only=True):
    """Jobs on the wrong side of a limit: those that surely are, and those that were cut off too early to know."""

    surely: int
    unknown: int
    allowed: float

    @property
    def most(self) -> int:
        return self.surely + self.unknown


def _percentile(gate: Gate, measured: Measured) -> GateVerdict:
    """A percentile is below a limit if few enough jobs are above it; above it, if few enough are below.

    A proof counts independent jobs by the theory of queues, and leaves out the first ones, which found a short queue.
    """
    shown, _, metric = gate.name.removesuffix("_s").partition("_")
    p, found = PERCENTILES[shown], measured.summary.statistic(gate.name, gate.workflow)
    lengths = _lengths(gate, measured, metric)
    n, seconds = len(lengths.seconds), lengths.endless
    if n == 0 or (metric == "queue_wait" and found.reason.startswith("censored")):
        return no_data(gate, measured, found.reason, found)
    queue = _queue(measured, metric)
    tau = quantile_time(seconds, p) if _depend(measured, metric) else 1.0
    later, time = lengths.chosen(slice(queue.early, None)), queue.time(tau, p)
    counts, proving = _wrong(gate, lengths, p), _wrong(gate, later, p)
    p_pass = count_test((proving.surely, proving.most), max(len(later.seconds), 1), counts.allowed, time)[0]
    p_fail = count_test((counts.surely, counts.most), n, counts.allowed, queue.surely(tau, p))[1]
    value, low, high = found.value, found.low, found.high
    if not lengths.cut.any():
        value = quantile(seconds, p) if n >= value_needs(p) else None
        low = quantile_interval(seconds, p, 1 - 2 * SIDE, queue.surely(tau, p))[0]
        high = quantile_interval(later.endless, p, 1 - 2 * SIDE, time)[1]
    known = value is not None and not counts.unknown
    inside = gate.holds(value, gate.limit) if known and value is not None else counts.most <= n * counts.allowed
    verdict = verdict_of(1.0 if counts.unknown else p_pass, p_fail, inside)
    needs = _needs(proving, queue, n, time) if verdict == "PASS*" and not counts.unknown else None
    why = f"{_counted(gate, lengths, counts)}{open_words(verdict, p_fail)}.{_proof(gate, counts, needs)}"
    why += _doubts(counts, time)
    return make_verdict(gate, measured, verdict, why, value=value, low=low, high=high, n=n, p_fail=p_fail, needs=needs)


def _doubts(counts: _Count, time: float) -> str:
    if counts.unknown:
        cut = "1 job was" if counts.unknown == 1 else f"{counts.unknown} jobs were"
        return f" {cut} cut off by the end of the run, so nothing is proven."
    if math.isinf(time):
        return " It is not known for how long jobs in this queue depend on each other, so nothing is proven."
    return ""


def _wrong(gate: Gate, lengths: Lengths, p: float) -> _Count:
    """A cut job takes longer than it was observed for: beyond an upper limit it stays, below it may still go there."""
    seconds, cut = lengths.endless, lengths.cut
    below = seconds < gate.limit if gate.op in ("<", ">=") else seconds <= gate.limit
    wrong, unknown = (~below, cut & below) if gate.upper else (below & ~cut, cut & below)
    allowed = round(1 - p, 12) if gate.upper else p
    return _Count(surely=int(wrong.sum()), unknown=int(unknown.sum()), allowed=allowed)


def _needs(counts: _Count, queue: Queue, n: int, time: float) -> int | None:
    """In all; None if no number of jobs would, or how many is not known."""
    few = effective_n(n, time)
    fewest = needed(math.ceil(counts.most * few / n - 1e-9), counts.allowed)
    return None if fewest is None or math.isinf(time) else max(n + 1, math.ceil(fewest * time) + queue.early)


def _counted(gate: Gate, lengths: Lengths, counts: _Count) -> str:
    unit, limit, n = "books" if "book" in gate.name else "jobs", f"{gate.limit:.4g} s", len(lengths.seconds)
    if counts.most == 0:
        inside = {"<=": f"{limit} or less", "<": f"less than {limit}", ">=": f"{limit} or more"}
        return f"All {n} {unit} took {inside.get(gate.op, f'more than {limit}')}"
    text, failed = f"{counts.surely} of {n} {unit}", int(lengths.failed.sum())
    if failed and gate.upper:
        return f"{text} did not complete within {limit}, {failed} of them not at all"
    return f"{text} took {'longer' if gate.upper else 'less'} than {limit}"


def _proof(gate: Gate, counts: _Count, needs: int | None) -> str:
    if needs is None:
        return ""
    few = f" with no more than {counts.most} that take {'longer' if gate.upper else 'less'}" if counts.most else ""
    return f" To prove it: {needs} {'books' if 'book' in gate.name else 'jobs'}{few}."


def _lengths(gate: Gate, measured: Measured, metric: str) -> Lengths:
    """The durations that a percentile is of. By the client's clock, what did not complete is infinite."""
    jobs = measured.jobs
    if metric == "book_latency":
        books = arrivals_of(jobs, measured.manifest.plan.pages)
        seconds, failed = books.done - books.due, ~books.completed & ~books.censored
        every = Lengths(seconds=np.nan_to_num(seconds), cut=books.censored, failed=failed)
        return every.chosen(failed | ~np.isnan(seconds))  # one that ended unwatched is on neither side
    timed = "latency" if metric == "latency_with_failures" else metric
    every = lengths_with_failures(jobs, timed, measured.jobs_of(gate.workflow))
    return every.chosen(~(every.failed | every.cut)) if metric in (*_SERVICE, "queue_wait") else every


def _queue(measured: Measured, metric: str) -> Queue:
    if metric == "book_latency":
        return measured.queue.of_books(measured.manifest.plan.pages)
    return ALONE if metric in _SERVICE else measured.queue


def _depend(measured: Measured, metric: str) -> bool:
    """Whether to allow for dependence: in a queue, where models may be swapped, and where it was found.

    Elsewhere jobs run one at a time and nothing ties one to the next: an estimate would only add its own noise.
    """
    found = any(finding.code == "dependent_jobs" for finding in measured.summary.findings)
    return found or len(measured.summary.workflows) > 1 or _queue(measured, metric) != ALONE


# --- facts


def _fact(gate: Gate, measured: Measured) -> GateVerdict:
    """A count, a maximum or a time: it was so, or it was not."""
    value = plain(gate, measured)
    if value is None:
        return no_data(gate, measured, f"the run has no {gate.name}")
    return fact_verdict(gate, measured, value, gate.limit, "A fact of this run: nothing follows for another.")


def fact_verdict(gate: Gate, measured: Measured, value: float, limit: float, why: str) -> GateVerdict:
    """Whether a value is on the right side. The longest latency is not known where jobs did not complete."""
    flat = measured.summary.summary
    verdict: Verdict = "PASS" if gate.holds(value, limit) else "FAIL"
    n = int(flat["total_jobs"] or 0)
    others = n - int(flat["completed"] or 0)
    if verdict == "PASS" and gate.upper and others and gate.number.measure == "s" and "latency" in gate.name:
        verdict, why = "INCONCLUSIVE", f"Completed jobs only: {others} others did not complete."
    return make_verdict(gate, measured, verdict, why, value=value, n=n, limit=limit)


RULES: dict[str, Callable[[Gate, Measured], GateVerdict]] = {
    "share": judge_share,
    "percentile": _percentile,
    "mean": judge_mean,
    "fact": _fact,
}
"""What judges each kind of number; errors have a room of their own."""
