"""Where a job goes and whether it is sent again: pure decisions, told the time by the test."""

from __future__ import annotations

import pytest

from comfyload.record.policy import Admission, Backoff, Breaker, Policy
from comfyload.retry.decide import SPILL_SWAPS, Backend, Dispatcher, PendingJob


def _dispatcher(**policy: object) -> Dispatcher:
    dispatcher = Dispatcher(Policy(**policy), lambda: 0.5)  # type: ignore[arg-type]
    for name in ("a", "b"):
        dispatcher.times.learn(name, name, 10.0)
        dispatcher.times.learn(name, None, 14.0)
    return dispatcher


def _backends(count: int) -> list[Backend]:
    return [Backend(Breaker(failures=2), lambda: 0.5, lambda: 0) for _ in range(count)]


def _job(name: str, workflow: str = "a", began: float = 0.0, policy: Policy | None = None) -> PendingJob:
    return PendingJob(name, workflow, began, policy or Policy())


def test_a_backlog_is_what_jobs_are_expected_to_take_less_what_has_run() -> None:
    dispatcher, (server,) = _dispatcher(), _backends(1)
    dispatcher.put(_job("1"), server, 0.0)
    dispatcher.put(_job("2"), server, 0.0)
    server.started("1", 0.0)
    server.started("1", 3.0)
    server.others = 1
    assert dispatcher.backlog_s(server, 4.0) == pytest.approx(10.0 + 10.0 + dispatcher.times.mean_s)
    assert dispatcher.backlog_s(server, 99.0) == pytest.approx(10.0 + dispatcher.times.mean_s)
    server.others = 0
    dispatcher.release("1", server, 14.0)
    dispatcher.release("2", server)
    assert dispatcher.backlog_s(server, 99.0) == 0.0


def test_while_no_time_is_known_jobs_count_a_second_each() -> None:
    dispatcher, (server,) = Dispatcher(Policy(), lambda: 0.5), _backends(1)
    for number in range(3):
        dispatcher.put(_job(str(number)), server, 0.0)
    server.started("0", 0.0)
    assert dispatcher.backlog_s(server, 0.25) == 2.75


def test_a_job_stays_where_its_models_are_until_that_costs_three_loads() -> None:
    dispatcher, (home, other) = _dispatcher(), _backends(2)
    dispatcher.put(_job("0"), home, 0.0)
    dispatcher.release("0", home)
    stayed = 0
    while dispatcher.choose(_job("next"), [home, other], 1.0) is home:
        dispatcher.put(_job(f"more {stayed}"), home, 1.0)
        stayed += 1
    assert SPILL_SWAPS * 4.0 == 12.0 and stayed == 2


def test_no_more_are_put_on_a_server_than_its_depth_and_room_before_the_deadline() -> None:
    dispatcher, servers = _dispatcher(admission=Admission(depth=1), deadline_s=90.0), _backends(2)
    waiting = [_job(str(number), policy=dispatcher.policy) for number in range(6)]
    placed = [job.id for job, _ in dispatcher.assign(waiting, servers, 0.0)]
    assert placed == ["0", "1", "2", "3"] and [server.depth for server in servers] == [2, 2]
    late = _job("late", began=-70.0, policy=dispatcher.policy)
    dispatcher = _dispatcher(deadline_s=90.0)
    assert list(dispatcher.assign([late], servers, 0.0)) == []
    assert dispatcher.left_s(late, 0.0) == 10.0


def test_one_job_tries_a_server_that_is_back() -> None:
    dispatcher, (server,) = _dispatcher(), _backends(1)
    server.circuit.trip(0.0)
    now = 100.0
    assert server.circuit.state(now) == "due"
    placed = list(dispatcher.assign([_job("0"), _job("1")], [server], now))
    assert len(placed) == 1 and server.circuit.state(now) == "half_open"
    dispatcher.release("0", server)
    server.circuit.ended("lost", now, unreachable=False)
    assert server.circuit.state(now) == "due", "it told nothing of the server: another may try"
    server.circuit.ended(None, now)
    assert server.circuit.state(now) == "closed"


def test_the_end_of_a_job_of_before_is_no_end_of_the_trial() -> None:
    dispatcher, (server,) = _dispatcher(), _backends(1)
    dispatcher.put(_job("before"), server, 0.0)
    server.circuit.trip(0.0)
    assert [job.id for job, _ in dispatcher.assign([_job("0"), _job("1")], [server], 100.0)] == ["0"]
    dispatcher.release("before", server)
    server.circuit.ended("deadline", 100.0)
    assert server.circuit.state(100.0) == "half_open"


def test_nothing_is_put_on_a_server_that_failed_since_it_was_asked() -> None:
    dispatcher, (failed, tried, well) = _dispatcher(), _backends(3)
    failed.circuit.trip(0.0)
    tried.circuit.trip(-100.0)
    tried.circuit.trial("0")
    assert [backend for _, backend in dispatcher.assign([_job("1")], [failed, tried, well], 1.0)] == [well]


def test_a_retry_elsewhere_needs_no_time_for_a_pause() -> None:
    policy = Policy(deadline_s=20.0, backoff=Backoff(base_s=15.0, jitter="none"))
    dispatcher, servers = Dispatcher(policy, lambda: 0.5), _backends(2)
    assert dispatcher.retry_in_s(_job("0", policy=policy), servers[0], "connect", servers, 10.0) == 0.0
    job = _job("1", policy=policy)
    assert dispatcher.retry_in_s(job, servers[0], "connect", servers[:1], 4.0) == 15.0
    assert dispatcher.retry_in_s(job, servers[0], "connect", servers[:1], 5.0) is None


def test_a_server_that_lacks_a_node_is_nowhere_else_to_go() -> None:
    dispatcher, servers = _dispatcher(), _backends(2)
    job = _job("0")
    assert dispatcher.retry_in_s(job, servers[0], "missing", servers, 0.0) == 0.0
    for _ in range(3):
        wait = dispatcher.retry_in_s(job, servers[1], "connect", servers, 0.0)
        assert wait is not None and wait > 0.0
    assert dispatcher.choose(job, [servers[0]], 0.0) is None
    assert dispatcher.retry_in_s(job, servers[1], "missing", servers, 0.0) is None, "all of them lack it"


def test_a_retry_elsewhere_is_at_once_and_one_on_the_same_server_waits() -> None:
    dispatcher, servers = _dispatcher(), _backends(2)
    job = _job("0")
    assert dispatcher.retry_in_s(job, servers[0], "connect", servers, 0.0) == 0.0
    assert job.avoid == {servers[0]}
    assert dispatcher.retry_in_s(job, servers[1], "connect", servers, 0.0) == pytest.approx(1.0)
    assert job.avoid == {servers[1]} and job.charged == 0


def test_a_retry_of_gpu_work_is_paid_for() -> None:
    dispatcher, servers = _dispatcher(attempts=3), _backends(1)
    dispatcher.budget.tokens = 1.0
    job, other = _job("0"), _job("1")
    assert dispatcher.retry_in_s(job, servers[0], "transient", servers, 0.0) == 0.0
    assert dispatcher.retry_in_s(other, servers[0], "transient", servers, 0.0) is None
    assert job.charged == 1 and dispatcher.budget.tokens == 0.0


def test_a_retry_that_cost_no_gpu_time_is_free() -> None:
    dispatcher, servers = _dispatcher(), _backends(1)
    dispatcher.budget.tokens = 0.0
    job = _job("0")
    assert dispatcher.retry_in_s(job, servers[0], "lost", servers, 0.0) == 0.0
    assert job.charged == 0 and dispatcher.retry_in_s(job, servers[0], "transient", servers, 0.0) is None


def test_a_job_goes_to_a_server_it_avoids_only_if_no_other_has_room() -> None:
    dispatcher, (avoided, other) = _dispatcher(), _backends(2)
    job = _job("next")
    job.avoid = {avoided}
    dispatcher.put(_job("0"), other, 0.0)
    assert dispatcher.choose(job, [avoided, other], 0.0) is other
    assert dispatcher.choose(job, [avoided], 0.0) is avoided


def test_what_a_job_took_is_learnt_by_what_was_before_it() -> None:
    dispatcher, (server,) = Dispatcher(Policy(), lambda: 0.5), _backends(1)
    for name, workflow, took_s in (("0", "a", 14.0), ("1", "a", 10.0), ("2", "b", 7.0)):
        dispatcher.put(_job(name, workflow), server, 0.0)
        dispatcher.release(name, server, took_s)
    times = dispatcher.times
    assert (times.predict_s("a", None), times.predict_s("a", "a"), times.swap_s("a")) == (14.0, 10.0, 4.0)
    assert (times.predict_s("b", "a"), times.swap_s("b")) == (7.0, 0.0)


def test_a_server_too_small_for_a_workflow_gets_it_only_if_no_other_has_room() -> None:
    dispatcher = _dispatcher()
    small, large = _backends(2)
    for name in ("1", "2"):
        job = _job(name)
        dispatcher.put(job, small, 0.0)
        dispatcher.release(name, small)
        dispatcher.retry_in_s(job, small, "oom", [small, large], 1.0)
    assert dispatcher.choose(_job("3"), [small, large], 2.0) is large
    assert dispatcher.choose(_job("4", "b"), [small, large], 2.0) is not None, "another workflow may fit"
    assert dispatcher.choose(_job("5"), [small], 2.0) is small
    dispatcher.put(_job("6"), small, 2.0)
    dispatcher.release("6", small, took_s=1.0)
    assert not small.out_of_memory, "it completed there: it is not too small after all"
