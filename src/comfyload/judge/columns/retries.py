"""What retries saved and cost, with the results of first attempts apart, so that no retry flatters a run."""

from collections import Counter

from msgspec import Struct

from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.statistics.stats import Statistic, percentiles, proportion
from comfyload.record.model import Attempt, Execution, FailureKind
from comfyload.record.stamps import FASTER, GIVEN_UP_MS

_MAY_HAVE_RUN: frozenset[FailureKind] = frozenset(
    {"submit_unknown", "server_error", "interrupted", "timeout", "hung", "cancelled", "lost", "fetch", "censored"}
)


class RetryRow(Struct, frozen=True, kw_only=True):
    """Counted jobs of a run with a retry policy.

    `attempts`: how often jobs were sent, in all. `amplification`: attempts per job that was sent; 1: no retries.
    `retried`: jobs sent more than once. `saved`: those of them that completed. `not_sent`: jobs that the policy
    held back until it gave them up. `executed_for_nothing_s`: what the servers executed in attempts that did not
    complete, as far as that is known; `executed_unknown` attempts may have been executed, for nobody knows how long, as
    where a server was restarted. The rest is of each job's first attempt alone, failures left out of the latencies.
    """

    attempts: int
    amplification: float | None
    retried: int
    saved: int
    not_sent: int
    executed_for_nothing_s: float
    executed_unknown: int = 0
    first_success_rate: Statistic
    first_p50_latency_s: Statistic
    first_p95_latency_s: Statistic


class Retries:
    """Counts over a run's counted jobs."""

    def __init__(self) -> None:
        self._again: Counter[str] = Counter()
        self._sent_again = self._jobs = self._not_sent = 0
        self._wasted_ms = self._unknown = 0

    def add(self, run: Execution) -> None:
        """The execution of a counted job."""
        self._jobs += 1
        if run.attempts:
            self._again[run.outcome] += len(run.attempts) > 1
            self._sent_again += len(run.attempts) - 1
            wasted = [_executed_ms(attempt) for attempt in run.attempts if attempt.outcome != "completed"]
            self._wasted_ms += sum(ms or 0 for ms in wasted)
            self._unknown += wasted.count(None)
        elif run.sent is None and run.end_source != "history":  # else a process before this one sent it
            self._not_sent += 1

    def row(self, jobs: Jobs) -> RetryRow:
        """`jobs`: the same ones."""
        sent, once = self._jobs - self._not_sent, ~jobs.counted.retried
        p50, p95 = percentiles(jobs.known("latency", once), [0.5, 0.95])
        return RetryRow(
            attempts=sent + self._sent_again,
            amplification=(sent + self._sent_again) / sent if sent else None,
            retried=self._again.total(),
            saved=self._again["completed"],
            not_sent=self._not_sent,
            executed_for_nothing_s=self._wasted_ms / 1000,
            executed_unknown=self._unknown,
            first_success_rate=proportion(int((jobs.completed & once).sum()), self._jobs, "jobs offered"),
            first_p50_latency_s=p50,
            first_p95_latency_s=p95,
        )


def _executed_ms(attempt: Attempt) -> int | None:
    """For nothing, in an attempt that did not complete; None: it may have been executed, for nobody knows how long."""
    executed = attempt.executed_ms
    if executed is None:
        return None if attempt.failure is not None and attempt.failure.kind in _MAY_HAVE_RUN else 0
    if executed < 0:
        return None
    if attempt.sent is None or attempt.done is None:
        return executed
    return executed if executed <= FASTER * 1000 * (attempt.done - attempt.sent) + GIVEN_UP_MS else None
