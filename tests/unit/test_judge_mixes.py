"""Books of several pages, and several workflows in one run."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from comfyload.judge.summary import Summary, summarise
from comfyload.record.model import Record
from comfyload.record.plan import Closed, Open, Plan, Stage
from tests.unit.judge_runs import FACTS, booked, censored, failed, job, manifest, planned, served

BOOKS = [100.0 * book for book in range(10) for _ in range(3)]


def _books() -> list[Record]:
    return booked(served(BOOKS, [float(10 + i % 3) for i in range(30)]), 3)


def _sum(records: list[Record], jobs: int = 10, pages: int = 3) -> Summary:
    return summarise(planned(Open(stages=[Stage(per_s=0.01)], arrivals="constant"), jobs, pages=pages), records)


def test_a_book_takes_until_its_last_page_and_is_whole_only_if_all_pages_are() -> None:
    records = _books()
    records[4] = structs.replace(failed(4, 100.0, 5.0), book=1)
    summary = _sum(records)
    flat, row = summary.summary, summary.books
    assert row is not None
    assert (row.pages, row.books, row.completed, row.failed, row.dropped, row.censored) == (3, 10, 9, 1, 0, 0)
    assert (flat["books"], flat["books_completed"], flat["book_success_rate"]) == (10, 9, 0.9)
    assert flat["avg_book_latency_s"] == flat["max_book_latency_s"] == pytest.approx(33.0)
    assert flat["p50_book_latency_s"] == pytest.approx(33.0)
    assert flat["p95_book_latency_s"] is None
    assert summary.statistics["p95_book_latency_s"].reason == "9 completed books; a p95 needs 20"
    assert flat["books_per_hour"] == pytest.approx(9 / 933 * 3600)
    assert flat["completed"] == 29 and flat["success_rate"] == pytest.approx(29 / 30)


def test_an_arrival_is_a_book_in_every_rate() -> None:
    summary = _sum(_books())
    assert summary.summary["offered_per_minute"] == pytest.approx(0.6)
    assert summary.summary["completed_per_minute"] == pytest.approx(10 / 933 * 60)
    assert summary.valid and summary.findings == []


def test_books_beyond_capacity_are_an_overload_in_jobs_a_minute() -> None:
    due = [20.0 * book for book in range(40) for _ in range(3)]
    run = planned(Open(stages=[Stage(per_s=0.05)], arrivals="constant"), 40, pages=3)
    summary = summarise(run, booked(served(due, 10.0), 3))
    overload = next(finding for finding in summary.findings if finding.code == "overload")
    assert overload.evidence["offered_jobs_per_minute"] == pytest.approx(9)
    assert overload.evidence["capacity_jobs_per_minute"] == pytest.approx(6, rel=0.01)


def test_a_book_of_which_a_page_was_cut_off_or_never_sent_is_not_a_failed_one() -> None:
    records = _books()
    records[29] = censored(records[29])
    records[24:27] = booked(served([800.0] * 3, 1.0, places=0, drop=True), 3)
    records[24:27] = [structs.replace(r, index=24 + i, book=8) for i, r in enumerate(records[24:27])]
    row = _sum(records).books
    assert row is not None and (row.completed, row.failed, row.dropped, row.censored) == (8, 0, 1, 1)


def test_users_of_books_keep_one_book_each_in_flight() -> None:
    due = [33.0 * book for book in range(20) for _ in range(3)]
    run = planned(Closed(), 20, pages=3)
    summary = summarise(run, booked(served(due, 11.0), 3))
    assert not {f.code for f in summary.findings} & {"little_law", "generator_late"}


def test_a_run_of_single_jobs_has_no_books() -> None:
    summary = summarise(manifest(2), [job(0, 0.0, 1.0), job(1, 1.0, 1.0)])
    assert summary.books is None and summary.summary["books"] is None
    assert summary.statistics["books_per_hour"].reason == "no books: an arrival is one job"


# --- workflows


def _mix(order: str, **seconds: float) -> tuple[Plan, list[Record]]:
    """Jobs of workflows by letter, one after another; a switch costs 9 s."""
    lengths = [
        seconds[name] + (9.0 if i and order[i - 1] != name else 0.0) for i, name in enumerate(order)
    ]  # fmt: skip
    due = [float(t) for t in np.cumsum([0.0, *lengths[:-1]])]
    return Plan(load=Closed(), jobs=len(order)), served(due, lengths, workflows=list(order))


def _facts(names: str) -> list[object]:
    return [structs.replace(FACTS, name=name) for name in names]


def test_each_workflow_has_its_own_numbers_and_they_add_up() -> None:
    plan, records = _mix("aabbaabbaa", a=10.0, b=4.0)
    records[3] = structs.replace(failed(3, records[3].due, 4.0), workflow="b")
    summary = summarise(manifest(plan=plan, workflows=_facts("abc")), records)
    a, b, none = (summary.workflows[name] for name in "abc")
    assert (a.jobs, a.completed, b.jobs, b.completed, none.jobs) == (6, 6, 4, 3, 0)
    assert a.images + b.images == summary.summary["images"] == 9
    assert b.success_rate.value == 0.75 and none.success_rate.value is None
    assert a.max_latency_s == pytest.approx(19.0) and none.max_latency_s is None
    total = summary.statistics["images_per_minute"].value
    assert a.images_per_minute.value is not None and b.images_per_minute.value is not None and total is not None
    assert a.images_per_minute.value + b.images_per_minute.value == pytest.approx(total)


def test_what_a_switch_costs_is_told_apart() -> None:
    plan, records = _mix("aabbaabb", a=10.0, b=4.0)
    summary = summarise(manifest(plan=plan, workflows=_facts("ab")), records)
    a, b = summary.workflows["a"].after, summary.workflows["b"].after
    assert (a.same_s.n, a.switched_s.n, b.same_s.n, b.switched_s.n) == (2, 1, 2, 2)
    assert a.same_s.value == pytest.approx(10.0) and a.switched_s.value == pytest.approx(19.0)
    assert b.same_s.value == pytest.approx(4.0) and b.switched_s.value == pytest.approx(13.0)
    assert (summary.after.same_s.n, summary.after.switched_s.n) == (4, 3)


def test_a_warm_up_job_goes_before_and_a_cached_one_does_not() -> None:
    plan, records = _mix("baab", a=10.0, b=4.0)
    records[0] = structs.replace(records[0], warmup=True)
    cached = structs.replace(records[3].execution, cached=["3", "9"])
    records[3] = structs.replace(records[3], execution=cached)
    last = served([200.0], 10.0, workflows=["a"])[0]
    run = manifest(plan=structs.replace(plan, warmup=1, as_is=True), workflows=_facts("ab"))
    after = summarise(run, [*records, structs.replace(last, index=4)]).after
    assert (after.switched_s.n, after.same_s.n) == (1, 2)


def test_a_workflow_that_only_the_journal_knows_has_a_row() -> None:
    summary = summarise(manifest(1), [structs.replace(job(0, 0.0, 1.0), workflow="else")])
    assert list(summary.workflows) == ["book", "else"] and summary.workflows["else"].jobs == 1
