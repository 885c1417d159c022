"""The ledger: one outcome a job, what breaks that rule by name, and what is left on servers."""

from __future__ import annotations

import msgspec

from comfyload.judge.columns.ledger import Ledger, Tagged, clean, join
from comfyload.record.model import Line, Record, Sent
from tests.unit.judge_runs import failed, job


def _left(record: Record, state: str) -> Record:
    return msgspec.structs.replace(
        record, execution=msgspec.structs.replace(record.execution, server_state_after=state)
    )


def _enter(ledger: Ledger, lines: list[Line]) -> list[Record]:
    return list(ledger.enter(lines))


def _warmup(record: Record) -> Record:
    return msgspec.structs.replace(record, warmup=True)


def test_what_a_warm_up_job_left_on_the_server_counts_and_its_failure_does_not() -> None:
    ledger = Ledger()
    _enter(ledger, [_warmup(_left(failed(0, 0.0, 1.0), "unknown")), _left(failed(1, 1.0, 1.0), "unknown")])
    assert ledger.left == {"unknown": Tagged(count=2, first=[0, 1])}
    assert [row.count for row in ledger.failures()] == [1]
    assert ledger.offered == 1 and ledger.warmup == {"failed": 1}


def test_a_job_whose_sent_line_comes_after_its_record_has_ended() -> None:
    ledger = Ledger()
    _enter(ledger, [job(7, 0.0, 1.0)])
    _enter(ledger, [Sent(index=7, prompt_id="id-7", due=0.0), Sent(index=8, prompt_id="id-8", due=0.0)])
    assert ledger.unfinished == {8: "id-8"}
    _enter(ledger, [job(8, 0.0, 1.0)])
    assert ledger.unfinished == {}


def test_a_second_record_of_a_job_is_refused_and_named_however_far_apart_their_numbers() -> None:
    ledger = Ledger()
    far = 3 * (1 << 16)
    first = _enter(ledger, [job(0, 0.0, 1.0), job(far, 0.0, 1.0), job(far - 1, 0.0, 1.0)])
    assert len(first) == 3
    assert _enter(ledger, [job(far, 0.0, 1.0), job(1, 0.0, 1.0)]) == [job(1, 0.0, 1.0)]
    assert ledger.duplicates == Tagged(count=1, first=[far])
    assert ledger.counted == {"completed": 4}


def test_jobs_are_named_up_to_the_fifth() -> None:
    named = Tagged()
    for index in range(7):
        named.add(index)
    assert (named.count, named.first, str(named)) == (7, [0, 1, 2, 3, 4], "0, 1, 2, 3, 4, …")
    few = Tagged(count=2, first=[1, 2])
    assert str(few) == "1, 2"


def test_causes_are_sorted_by_how_often_then_by_which_came_first_and_are_not_without_end() -> None:
    ledger = Ledger()
    _enter(ledger, [failed(index, 0.0, 1.0, type=f"T{index}") for index in range(250)])
    _enter(
        ledger, [failed(300, 0.0, 1.0, type="T3"), failed(301, 0.0, 1.0, type="T9"), failed(302, 0.0, 1.0, type="T1")]
    )
    rows = ledger.failures()
    assert len(rows) == 201
    assert [(row.kind, row.type, row.count) for row in rows[:3]] == [
        ("other", "", 50),
        ("execution_error", "T1", 2),
        ("execution_error", "T3", 2),
    ]
    assert (rows[1].index, rows[1].example, rows[1].node_class) == (1, "mat1 and mat2", "KSampler")


def test_a_job_that_our_own_machine_failed_is_counted_as_ours() -> None:
    ledger = Ledger()
    _enter(
        ledger,
        [failed(0, 0.0, 1.0, kind="generator"), failed(1, 0.0, 1.0), _warmup(failed(2, 0.0, 1.0, kind="generator"))],
    )
    assert ledger.ours == 1


def test_a_job_that_ran_twice_is_named() -> None:
    ledger = Ledger()
    _enter(ledger, [job(0, 0.0, 1.0, executions=2), job(1, 0.0, 1.0)])
    assert ledger.executed_again == Tagged(count=1, first=[0])


def test_texts_are_one_line_and_no_longer_than_allowed() -> None:
    assert clean(" a\n\tb\x00c ", 10) == "a b c"
    assert clean("abcdef", 6) == "abcdef"
    assert clean("abcdefg", 6) == "abcde…"
    assert join(range(5)) == "0, 1, 2, 3, 4"
    assert join(range(6)) == "0, 1, 2, 3, 4, …"
