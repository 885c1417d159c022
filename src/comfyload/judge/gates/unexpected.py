"""The errors of a run that no pattern expects: of its records, of its warm-up, and of its log."""

from collections.abc import Iterator, Sequence

from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.grammar import Gate, expected_patterns
from comfyload.judge.gates.verdict import GateVerdict, RunError, Verdict, make_verdict, no_data
from comfyload.judge.summary import Measured
from comfyload.record.outcomes import OUTCOMES

_NO_ERRORS = {"dropped", "shed", "cancelled", "censored", "generator"}
"""Kinds of failure by which nothing went wrong on the server: we did not send, could not, or stopped it ourselves."""


def errors(
    gate: Gate, measured: Measured, expected: Sequence[str], log_errors: Sequence[RunError] | None
) -> GateVerdict:
    """Judge the errors that no pattern finds: of counted jobs, of warm-up jobs, and of the log if one was read.

    Of jobs that failed alike (by kind, type and node class) only the first one's message is kept, so a pattern is
    compared with the message of a single job, and of several with what they have in common. Rows of other prompts and
    of the probe are reported and are not errors of the run. A log that could not be read whole can prove an error, but
    never that there was none.
    """
    patterns, surprises, known = expected_patterns(expected), [], 0
    for error, common in _recorded(measured) + [(one, one.text) for one in log_errors or () if one.where == "log"]:
        text = error.text if error.count == 1 else common
        if any(pattern.search(text) for pattern in patterns):
            known += error.count
        else:
            surprises.append(error)
    doubts = [error.text for error in log_errors or () if error.where == "unread"]
    unread = ["No log was read."] if surprises and log_errors is None else []
    log = " ".join([*doubts, *unread, *_aside(log_errors or ())])
    n = int(measured.summary.summary["total_jobs"] or 0) + sum(measured.summary.warmup.values())
    if n == 0:
        return no_data(gate, measured, "the run has no job")
    count = sum(error.count for error in surprises)
    what = _first(surprises, bool(patterns)) if surprises else _none(n, known, log=log_errors is not None)
    why = f"{what} {log}".strip()
    verdict: Verdict = "INCONCLUSIVE" if doubts else "PASS"
    return make_verdict(
        gate, measured, verdict if gate.holds(count, gate.limit) else "FAIL", why, value=float(count), n=n
    )


def _aside(log_errors: Sequence[RunError]) -> Iterator[str]:
    """What else is in the log."""
    others = sum(error.count for error in log_errors if error.where == "others")
    if others:
        yield f"{'1 row of other prompts was' if others == 1 else f'{others} rows of other prompts were'} left out."
    for error in [error for error in log_errors if error.where == "probe"][:3]:
        yield f"The probe reported: {clean(error.text, 120)} ({error.count} in all)."


def _first(surprises: Sequence[RunError], patterns: bool) -> str:
    error = surprises[0]
    where = error.first if error.where == "records" else f"in the log, {clean(error.first, 60)}"
    text = f"{clean(error.text, 160)} ({error.count} in all, first: {where})."
    if len(surprises) > 1:
        text += f" {len(surprises)} kinds in all."
    if patterns and error.where == "records" and error.count > 1:
        text += " Only the first message is kept: a pattern must find the kind, type and node class."
    return text


def _none(n: int, known: int, *, log: bool) -> str:
    where, end = f"in {n} jobs{' and the log' if log else ''}", "" if log else "; no log was read"
    if not known:
        return f"No error {where}{end}."
    return f"No unexpected error {where}; {known} {'was' if known == 1 else 'were'} expected{end}."


def _recorded(measured: Measured) -> list[tuple[RunError, str]]:
    """Errors in the records, each with what all of its class have in common."""
    out = []
    for row in measured.summary.failures:
        if row.kind not in _NO_ERRORS:
            common = " ".join(part for part in (row.kind, row.type, row.node_class) if part)
            text = f"{common}: {row.example}" if row.example else common
            out.append((RunError(where="records", text=text, count=row.count, first=f"job {row.index}"), common))
    for outcome, ended in OUTCOMES.items():
        if ended.error and (count := measured.summary.warmup.get(outcome, 0)):
            text = f"warm-up {outcome}"
            out.append((RunError(where="records", text=text, count=count, first="before the counted jobs"), text))
    return out
