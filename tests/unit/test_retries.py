"""What retries saved and cost is told, and first attempts are counted as if there had been no others."""

from __future__ import annotations

from msgspec import structs

from comfyload.judge.comparison.comparable import load_words
from comfyload.judge.summary import summarise
from comfyload.record.model import Attempt, Execution, Failure, Record
from comfyload.record.policy import Policy
from comfyload.report.run_facts import facts
from tests.unit.judge_runs import failed, job, manifest, one_by_one

POLICY = Policy(attempts=3)


def _retried(record: Record, first: str = "failed", last: str = "completed") -> Record:
    """The same job, at its second attempt."""
    ends = [
        Attempt(server="s", prompt_id="a", outcome=first, sent=record.due, done=record.due + 1, executed_ms=700),  # type: ignore[arg-type]
        Attempt(server="s", prompt_id="b", outcome=last, sent=record.due + 2, done=record.execution.done),  # type: ignore[arg-type]
    ]
    return structs.replace(record, execution=structs.replace(record.execution, attempts=ends))


def test_first_attempts_are_counted_as_if_there_had_been_no_others() -> None:
    records = one_by_one([10.0] * 30)
    records[4] = _retried(job(4, records[4].due, 25.0))
    records[7] = _retried(records[7])
    records[9] = failed(9, records[9].due, 5.0)
    row = summarise(manifest(30, retry=POLICY), list(records)).retries
    assert row is not None
    assert (row.attempts, row.retried, row.saved, row.not_sent) == (32, 2, 2, 0)
    assert row.amplification == 32 / 30
    assert row.executed_for_nothing_s == 1.4
    assert row.first_success_rate.value == 27 / 30
    assert row.first_p50_latency_s.n == 27
    assert row.first_p50_latency_s.value is not None and row.first_p50_latency_s.value < 11


def test_an_attempt_that_was_lost_may_have_been_executed_and_that_is_told() -> None:
    records = one_by_one([10.0] * 30)
    for index, kind in ((4, "lost"), (7, "connect")):
        again = _retried(records[index], first="lost" if kind == "lost" else "failed")
        failure = Failure(kind=kind, message="gone")  # type: ignore[arg-type]
        first = structs.replace(again.execution.attempts[0], executed_ms=None, failure=failure)
        execution = structs.replace(again.execution, attempts=[first, again.execution.attempts[1]])
        records[index] = structs.replace(again, execution=execution)
    summary = summarise(manifest(30, retry=POLICY), list(records))
    assert summary.retries is not None
    assert (summary.retries.executed_for_nothing_s, summary.retries.executed_unknown) == (0.0, 1)
    (words,) = (fact.value.words for fact in facts(manifest(30), summary) if fact.label == "Retries")
    assert words.endswith("at least 0 ms executed for nothing (of 1 attempt this is not known)")


def test_what_the_policy_held_back_was_not_sent() -> None:
    records: list[Record] = list(one_by_one([10.0] * 10))
    records.append(structs.replace(records[0], index=10, execution=Execution(outcome="failed", done=50.0)))
    row = summarise(manifest(11, retry=POLICY), list(records)).retries
    assert row is not None and row.not_sent == 1 and row.attempts == 10 and row.amplification == 1.0


def test_without_a_policy_there_is_no_row_and_nothing_changes() -> None:
    records = one_by_one([10.0] * 30)
    plain, with_policy = (summarise(manifest(30, retry=retry), list(records)) for retry in (None, POLICY))
    assert plain.retries is None and with_policy.retries is not None
    assert plain.summary == with_policy.summary


def test_a_run_with_a_policy_is_not_compared_with_one_without() -> None:
    assert load_words(manifest(12)) != load_words(manifest(12, retry=POLICY))


def test_a_job_that_an_earlier_process_sent_was_sent() -> None:
    records: list[Record] = list(one_by_one([10.0] * 10))
    unwatched = Execution(outcome="completed", done=50.0, end_source="history")
    records.append(structs.replace(records[0], index=10, execution=unwatched))
    row = summarise(manifest(11, retry=POLICY), list(records)).retries
    assert row is not None and row.not_sent == 0 and row.attempts == 11
