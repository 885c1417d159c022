"""How long jobs in one queue depend on each other, by the load that made them wait."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec import structs

from comfyload.judge.statistics.queue import ALONE, Queue
from comfyload.judge.summary import Measured, measure
from comfyload.record.plan import Closed, Open, Stage
from tests.unit.judge_runs import booked, manifest, one_by_one, planned, served


def _open(per_s: float, seconds: float, arrivals: str = "constant", jobs: int = 60) -> Measured:
    due = [i / per_s for i in range(jobs)]
    load = Open(stages=[Stage(per_s=per_s)], arrivals=arrivals)  # type: ignore[arg-type]
    return measure("", planned(load, jobs), served(due, seconds))


def test_one_at_a_time_waits_for_nothing() -> None:
    assert measure("", manifest(12), one_by_one([10.0] * 12)).queue == ALONE


def test_users_of_a_closed_load_share_the_executions_before_them() -> None:
    due = [0.0, 0.0, 0.0, *(10.0 * i for i in range(1, 10))]
    run = measure("", planned(Closed(concurrency=3), 12), served(due, 10.0))
    assert run.queue == Queue(memory=3.0, shared=3.0, early=2)
    assert run.queue.time(1.0, 0.5) == 1.5 and run.queue.time(7.0) == 7.0 and run.queue.surely(1.0, 1.0) == 3.0


def test_pages_of_a_book_wait_for_each_other_and_whole_books_do_not() -> None:
    records = booked(served([100.0 * (i // 4) for i in range(24)], 10.0), 4)
    run = measure("", planned(Closed(concurrency=1), 6, pages=4), records)
    assert run.queue == Queue(memory=4.0, shared=4.0) and run.queue.of_books(4) == ALONE


def test_an_open_load_remembers_the_longer_the_busier_the_server_is() -> None:
    calm, busy = _open(0.05, 10.0, "poisson"), _open(0.085, 10.0, "poisson")
    assert calm.queue.memory == pytest.approx(2 / 0.5**2, rel=0.02)
    assert busy.queue.memory == pytest.approx(2 / 0.15**2, rel=0.02)
    assert calm.queue.rate_error == pytest.approx(1 / math.sqrt(60)) and calm.queue.early == 0
    assert _open(0.05, 10.0).queue.memory == 1.0  # constant arrivals, constant service: nothing waits


def test_a_server_that_is_always_busy_has_no_steady_state() -> None:
    assert _open(0.12, 10.0).queue.memory == math.inf


def test_beside_other_jobs_the_time_in_which_any_was_under_way_counts() -> None:
    rng = np.random.default_rng(1)
    due = np.cumsum(rng.exponential(20.0, 60))
    records = [structs.replace(served([at], 10.0 + i % 3)[0], index=i) for i, at in enumerate(due.tolist())]
    run = measure("", planned(Open(stages=[Stage(per_s=0.05)]), 60), records)
    assert 1 < run.queue.memory < 30
