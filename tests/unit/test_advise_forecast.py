"""Forecasts: a number only where there is one, intervals around it, and what a rate needs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyload.advise.forecast import forecasts, highest_rate, size
from comfyload.advise.interference import changed, drift
from comfyload.advise.service_times import Workload, pools_of
from comfyload.advise.validation import validate
from comfyload.judge.summary import Measured
from comfyload.record.plan import Closed
from tests.unit.advise_pools import bimodal, forecast, pools_of_one, pools_of_two, ran, unimodal

ONE = Workload(shares=[1.0])


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_beyond_capacity_there_is_no_latency_to_expect() -> None:
    row = forecast(pools_of_one([10.0] * 40), ONE, rate_per_s=0.11, deadline_s=60, rng=_rng())
    assert not row.stable and row.load.estimate == pytest.approx(1.1)
    assert row.p50_s.estimate == row.p95_s.low == math.inf
    assert row.missed is not None and row.missed.estimate == 1


def test_jobs_shorter_than_the_servers_clock_are_no_division_by_nothing() -> None:
    for times in ([0.0] * 3, [0.0, 0.0, 0.001, 0.002]):
        found = highest_rate(pools_of_one(times), ONE, 45, rng=_rng(), replicates=20)
        assert 0 < found.low <= found.estimate < 1000


def test_of_several_servers_neither() -> None:
    pools = pools_of_two([np.full(20, 8.0)] * 2, [np.full(20, 17.0)] * 2)
    row = forecast(pools, Workload(shares=[1, 1]), rate_per_s=0.3, servers=2, rng=_rng())
    assert not row.stable and row.p95_s.estimate == math.inf


def test_more_load_waits_longer_and_more_servers_wait_less() -> None:
    rows = forecasts(
        pools_of_one(unimodal(60, _rng()), 0.5),
        ONE,
        rates_per_s=[0.05, 0.08],
        servers=[1, 2],
        deadline_s=45,
        rng=_rng(),
    )
    alone, busy, two, two_busy = (row.p95_s for row in rows)
    assert alone.estimate < busy.estimate and two.estimate < alone.estimate and two_busy.estimate < busy.estimate
    for row in rows:
        assert row.p50_s.estimate < row.p95_s.estimate < row.p99_s.estimate
        assert row.p95_s.low <= row.p95_s.estimate <= row.p95_s.high


def test_an_idle_server_takes_the_job_and_what_the_client_adds() -> None:
    row = forecast(pools_of_one([10.0] * 40, 0.5), ONE, rate_per_s=1e-5, rng=_rng())
    assert row.p95_s.estimate == pytest.approx(10.5) == row.p95_s.low == row.p95_s.high


def test_the_highest_rate_is_where_the_forecast_meets_the_limit() -> None:
    pools = pools_of_one(unimodal(60, _rng()))
    found = highest_rate(pools, ONE, 45, rng=_rng())
    assert found.low < found.estimate < found.high
    at_it = forecast(pools, ONE, rate_per_s=found.estimate, rng=_rng(2))
    assert at_it.p95_s.estimate == pytest.approx(45, rel=0.05)


def test_no_rate_keeps_a_limit_that_a_job_alone_misses() -> None:
    found = highest_rate(pools_of_one([10.0] * 40), ONE, 9.0, rng=_rng())
    assert found.estimate == found.low == found.high == 0


def test_a_generous_limit_never_leads_beyond_what_the_server_can_do() -> None:
    found = highest_rate(pools_of_one([10.0] * 40), ONE, 1e6, rng=_rng())
    assert 0.096 < found.estimate <= 0.097


def test_servers_are_as_few_as_keep_the_limit_and_one_may_be_lost() -> None:
    sizing = size(pools_of_one(unimodal(60, _rng())), ONE, rate_per_s=0.2, limit_s=30, rng=_rng())
    assert sizing.enough is not None and sizing.with_spare is not None
    by_servers = {row.servers: row for row in sizing.rows}
    assert by_servers[sizing.enough].p95_s.high <= 30 < by_servers[sizing.enough - 1].p95_s.high
    assert by_servers[sizing.with_spare - 1].stable


def test_one_server_is_enough_but_has_no_spare() -> None:
    sizing = size(pools_of_one([10.0] * 40), ONE, rate_per_s=0.03, limit_s=40, rng=_rng())
    assert (sizing.enough, sizing.with_spare) == (1, 2)


def test_no_number_of_servers_makes_a_job_shorter() -> None:
    sizing = size(pools_of_one([10.0] * 40), ONE, rate_per_s=0.03, limit_s=9, rng=_rng())
    assert (sizing.enough, sizing.with_spare, sizing.rows) == (None, None, [])


def test_a_serial_server_passes_and_is_reproduced_from_its_own_times() -> None:
    rng = _rng(7)
    pools = pools_of([ran(np.arange(120) * 100.0, unimodal(120, rng))])
    run = ran(np.cumsum(rng.exponential(14, 200)), unimodal(200, rng))
    found = validate(run, pools, rng=rng)
    checks = {(check.name, check.of): check for check in found.checks}
    assert checks["structural", "mean"].error < 0.001
    assert checks["replay", "p50"].inside and checks["replay", "p95"].inside
    assert found.passed and not found.unmodelled and found.reasons == []
    p95 = checks["replay", "p95"]
    assert p95.low is not None and p95.high is not None and p95.low < p95.predicted_s < p95.high


def _frozen(run: Measured, every: int, seconds: float) -> Measured:
    """The run, as if the end of what each n-th job took had been the server standing still after it."""
    instants = run.jobs.every.instants
    instants["end_ms"][every - 1 :: every] -= 1000 * seconds
    instants["done"][every - 1 :: every] -= seconds
    return run


def test_a_server_that_stands_still_now_and_then_can_do_so_much_less() -> None:
    jobs = np.ones(40)
    jobs[7::8] += 0.35
    waiting, alone = _frozen(ran(np.zeros(40), jobs), 8, 0.35), ran(np.arange(40) * 100.0, np.ones(40))
    assert waiting.jobs.gap_s() == pytest.approx(0.35 * 4 / 39) and alone.jobs.gap_s() == 0.0
    pools = pools_of([alone, waiting])  # What is seen with jobs waiting is true of the others, too.
    assert pools.mean_s(ONE) == pytest.approx(1 + 0.35 * 4 / 39)
    found = validate(waiting, pools, rng=_rng())
    assert found.checks[0].error < 1e-6
    assert any("stood still for 0.35 s" in reason for reason in found.reasons)


def test_a_reply_that_comes_late_is_a_server_that_stands_still_too() -> None:
    run = ran(np.arange(40) * 2.0, np.ones(40))
    instants = run.jobs.every.instants
    instants["acknowledged"][20] += 0.35
    instants["done"][20] += 0.35
    instants["create_ms"][20] += 350
    instants["start_ms"][20] += 350
    instants["end_ms"][20] += 350
    found = validate(run, pools_of([run]), rng=_rng())
    assert found.checks[0].error < 1e-6
    assert any("stood still for 0.35 s" in reason for reason in found.reasons)


def test_a_closed_load_is_not_replayed() -> None:
    run = ran(np.arange(30) * 12.0, np.full(30, 10.0), load=Closed(concurrency=1))
    found = validate(run, pools_of([run]), rng=_rng())
    assert [check.name for check in found.checks] == ["structural"]
    assert "cannot be replayed" in found.reasons[0]


def test_a_server_that_runs_jobs_side_by_side_is_no_queue_of_one() -> None:
    rng = _rng(5)
    due, seconds = np.cumsum(rng.exponential(5, 80)), unimodal(80, rng)
    run, pools = ran(due, seconds), pools_of([ran(np.arange(80) * 100.0, seconds)])
    # The same arrivals and executions with nobody waiting: as if each job had had a server of its own.
    alone = ran(np.arange(80) * 100.0, seconds)
    every, apart = run.jobs.every.instants, alone.jobs.every.instants
    every["done"][:] = every["sent"] + (apart["done"] - apart["sent"])
    found = validate(run, pools, rng=rng)
    assert not found.passed and found.checks[0].error > 0.5


def test_what_was_not_measured_cannot_be_checked() -> None:
    run = ran(np.arange(10) * 12.0, np.full(10, 10.0), workflows=["a", "b"] * 5)
    with pytest.raises(ValueError, match="a, b: no service time"):
        validate(run, pools_of_one([10.0]), rng=_rng())
    with pytest.raises(ValueError, match="above 0"):
        forecast(pools_of_one([10.0]), ONE, rate_per_s=0.0, rng=_rng())


def test_phases_that_nothing_explains_are_told() -> None:
    rng = _rng(6)
    seconds = np.repeat([8.0, 14.0] * 5, 20) * rng.lognormal(0, 0.05, 200)
    pools = pools_of([ran(np.arange(200) * 100.0, seconds)])
    found = validate(ran(np.cumsum(rng.exponential(20, 200)), seconds), pools, rng=rng)
    assert found.unmodelled and any("phases" in reason for reason in found.reasons)


@pytest.mark.alone
def test_a_forecast_with_its_interval_takes_less_than_a_second() -> None:
    import time

    pools = pools_of_one(bimodal(60, _rng()))
    begun = time.process_time()  # which a machine that does something else does not count
    forecast(pools, ONE, rate_per_s=0.07, rng=_rng())
    assert time.process_time() - begun < 1.0


def test_jobs_that_take_longer_in_the_run_that_confirms_are_named_and_chance_is_not() -> None:
    before, now = unimodal(52, _rng(), cv=0.05), unimodal(24, _rng(2), cv=0.05)
    assert changed([before], [now]) is None
    longer, shorter = changed([before], [1.08 * now]), changed([before], [0.9 * now])
    assert longer is not None and "8 % longer (" in longer
    assert shorter is not None and "% shorter (" in shorter
    assert changed([before], [1.08 * now[:3]]) is None


def test_a_drift_is_seen_over_all_runs_in_order_and_chance_is_not() -> None:
    steady = unimodal(76, _rng(), cv=0.05)
    grown = steady * np.repeat([1.0, 1.07, 1.1], [40, 12, 24])
    parts = [slice(0, 40), slice(40, 52), slice(52, 76)]
    assert drift([ran(np.arange(len(steady[at])) * 100.0, steady[at]) for at in parts], [1.0] * 3) is None
    said = drift([ran(np.arange(len(grown[at])) * 100.0, grown[at]) for at in parts], [1.0] * 3)
    assert said is not None and "% longer (" in said and "of the middle" in said
    undone = [1.0, 1 / 1.07, 1 / 1.1]  # as if the later runs were known to be slowed by something else
    assert drift([ran(np.arange(len(grown[at])) * 100.0, grown[at]) for at in parts], undone) is None
