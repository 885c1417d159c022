"""What is said of open and replayed loads: rates, drops, overload, lateness, and jobs that the end cut off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec import structs

from comfyload.judge.arrivals import planned_in, planned_jobs
from comfyload.judge.findings.table import Finding
from comfyload.judge.overload import in_system
from comfyload.judge.summary import Summary, summarise
from comfyload.record.model import Manifest, Quantiles, Record, ServerTimes
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage
from tests.unit.judge_runs import censored, job, manifest, planned, served

TEN_A_SECOND = [Stage(per_s=10.0, seconds=15.0)]
DUE = [i / 10 for i in range(150)]


def _constant(**changes: Any) -> Open:
    return Open(stages=TEN_A_SECOND, arrivals="constant", **changes)


def _poisson(per_s: float, n: int, seed: int = 1) -> tuple[Open, list[float]]:
    gaps = np.random.default_rng(seed).exponential(1 / per_s, n)
    return Open(stages=[Stage(per_s=per_s)]), [float(t) for t in np.cumsum(gaps)]


def _find(summary: Summary, code: str) -> Finding:
    return next(finding for finding in summary.findings if finding.code == code)


def _codes(summary: Summary) -> set[str]:
    return {finding.code for finding in summary.findings}


def _sum(run: Manifest, records: list[Record]) -> Summary:
    return summarise(run, records)


# --- a serial server that does 5 a second, offered 10


def test_with_four_places_about_half_is_dropped_and_the_p99_with_failures_is_infinite() -> None:
    load = _constant(max_in_flight=4, on_full="drop")
    summary = _sum(planned(load), served(DUE, 0.2, places=4, drop=True))
    flat = summary.summary
    assert isinstance(flat["dropped"], int) and 65 <= flat["dropped"] <= 80
    assert flat["p99_latency_with_failures_s"] == "inf" and flat["p95_latency_with_failures_s"] == "inf"
    assert not summary.valid and {"dropped_arrivals", "overload"} <= _codes(summary)
    assert "overload" in _find(summary, "dropped_arrivals").text
    assert flat["p95_latency_s"] is None and "72 of 150 jobs" in summary.statistics["p95_latency_s"].reason
    assert isinstance(flat["p50_latency_s"], float) and flat["max_latency_s"] == pytest.approx(0.8)
    assert flat["offered_per_minute"] == pytest.approx(600) and flat["sent_per_minute"] == pytest.approx(312, rel=0.01)
    assert flat["success_rate"] == pytest.approx(78 / 150)


@pytest.mark.parametrize(("load", "places"), [(_constant(), None), (_constant(max_in_flight=4), 4)])
def test_a_drained_overload_prints_its_tails_and_says_that_they_grew(load: Open, places: int | None) -> None:
    summary = _sum(planned(load), served(DUE, 0.2, places=places))
    flat = summary.summary
    assert flat["max_latency_s"] == pytest.approx(15.1) and flat["p95_latency_s"] == pytest.approx(14.4, abs=0.1)
    assert flat["observed_p99_latency_s"] is None is summary.observed["p99_latency_s"]
    assert summary.observed["p95_latency_s"] == pytest.approx(14.4, abs=0.1)
    assert flat["p99_latency_s"] is None and summary.statistics["p99_latency_s"].reason.endswith("a p99 needs 299")
    assert flat["completed_per_minute"] == pytest.approx(300)
    overload = _find(summary, "overload")
    assert overload.level == "invalid" and "depend on how long it lasted" in overload.text
    assert overload.evidence["capacity_jobs_per_minute"] == pytest.approx(300, rel=0.02)
    assert overload.evidence["growth_jobs_per_minute"] == pytest.approx(300, rel=0.02)
    assert overload.evidence["utilisation"] == pytest.approx(2, rel=0.02)
    assert ("rate_missed" in _codes(summary)) == (places is not None)


def test_three_hundred_drained_jobs_carry_a_p99() -> None:
    summary = _sum(planned(Open(stages=[Stage(per_s=20.0)], arrivals="constant"), 300),
                   served([i / 20 for i in range(300)], 0.1))  # fmt: skip
    assert summary.summary["p99_latency_s"] == pytest.approx(14.95, abs=0.1)
    assert summary.summary["observed_p99_latency_s"] == pytest.approx(14.9, abs=0.1)
    assert "overload" in _codes(summary)


def test_places_that_are_too_few_for_the_rate_are_named_with_what_they_carry() -> None:
    summary = _sum(planned(_constant(max_in_flight=4)), served(DUE, 0.2, places=4))
    missed = _find(summary, "rate_missed")
    assert missed.level == "invalid" and "600 planned, 600 due, 306 sent, 300 completed" in missed.text
    assert "4 places carry 305 a minute" in missed.text
    assert missed.evidence["sent_per_minute"] == pytest.approx(306, abs=1)


def test_an_overload_that_the_end_cut_off_leaves_no_percentile() -> None:
    summary = _sum(planned(_constant(), drain=False), served(DUE, 0.2, until=15.0))
    flat = summary.summary
    assert flat["censored"] == flat["cancelled"] == 75 and flat["success_rate"] == 1.0
    for name in ("p50_latency_s", "p95_latency_s", "p50_latency_with_failures_s"):
        assert flat[name] is None and "no steady state" in summary.statistics[name].reason
    assert flat["avg_latency_s"] is None and flat["avg_queue_wait_s"] is None
    assert flat["observed_p99_latency_s"] is None and flat["max_latency_s"] == pytest.approx(7.6)
    assert {"overload", "censored_jobs"} <= _codes(summary) and summary.failures == []


@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.93])
def test_a_load_below_capacity_is_no_overload(utilisation: float) -> None:
    for seed in range(20):
        load, due = _poisson(utilisation / 10, 100, seed)
        seconds = [float(x) for x in np.random.default_rng(seed).lognormal(2.29, 0.15, 100)]
        summary = _sum(planned(load, 100), served(due, seconds))
        assert not _codes(summary) & {"overload", "rate_missed", "generator_late"}


def _side_by_side(due: list[float], seconds: list[float]) -> list[Record]:
    """Jobs whose executions overlap, however long they took."""
    records = []
    for i, (at, took) in enumerate(zip(due, seconds, strict=True)):
        start = round(1000 * at) + 1_700_000_000_000
        times = ServerTimes(create_ms=start, start_ms=start, end_ms=start + round(1000 * took))
        records.append(job(i, at, took, server=times))
    return records


def test_where_executions_overlap_the_backlog_itself_must_grow() -> None:
    load, due = _poisson(1.0, 200)
    growing = _sum(planned(load, 200), _side_by_side(due, [1.0 + 0.7 * t for t in due]))
    overload = _find(growing, "overload")
    assert overload.evidence["capacity_jobs_per_minute"] is None and overload.evidence["growth_jobs_per_minute"] > 10
    steady = _sum(planned(load, 200), _side_by_side(due, [5.0] * 200))
    assert "overload" not in _codes(steady) and steady.valid


def test_a_ramp_that_passes_capacity_on_its_way_is_an_overload() -> None:
    load = Open(stages=[Stage(per_s=0.02, to_per_s=0.17, seconds=1000)], arrivals="constant")
    due = [float(t) for t in (-0.02 + np.sqrt(0.0004 + 4 * 0.000075 * np.arange(95))) / (2 * 0.000075)]
    summary = _sum(planned(load), served(due, 10.0))
    overload = _find(summary, "overload")
    assert overload.evidence["utilisation"] < 0.97 and "on average" in overload.text
    assert "rate_missed" not in _codes(summary)


def test_a_replay_has_its_own_rate() -> None:
    offsets = [float(6 * i) for i in range(30)]
    summary = _sum(planned(Replay(offsets_s=offsets)), served(offsets, 4.0))
    assert summary.summary["offered_per_minute"] == pytest.approx(10.0) and summary.findings == []
    assert "overload" in _codes(_sum(planned(Replay(offsets_s=offsets)), served(offsets, 8.0)))


# --- whose fault a late job is


def test_sends_that_lag_without_places_are_the_generators() -> None:
    load, due = _poisson(0.02, 60)
    records = [structs.replace(r, execution=structs.replace(r.execution, sent=r.due + 3.0)) for r in served(due, 10.0)]
    finding = _find(_sum(planned(load, 60), records), "generator_late")
    assert finding.level == "invalid" and finding.evidence["p99_late_s"] == pytest.approx(3.0)


def test_waiting_for_a_place_is_not_the_generators() -> None:
    load, due = _poisson(0.08, 60)
    waiting = structs.replace(load, max_in_flight=1)
    run = planned(waiting, 60)
    assert "generator_late" not in _codes(_sum(run, served(due, 10.0, places=1)))
    assert run.self_check is not None
    late = structs.replace(run.self_check, timer_lateness_s=Quantiles(n=100, p50=0.5, p99=2.0, max=3.0))
    run.self_check = late
    assert _find(_sum(run, served(due, 10.0, places=1)), "generator_late").evidence["p99_late_s"] == 2.0


def test_arrivals_that_are_all_due_at_one_instant_are_late_by_the_latency_alone() -> None:
    plan, due = planned(Replay(offsets_s=[0.0] * 12)), [0.0] * 12
    for late_s, is_late in ((0.001, False), (3.0, True)):
        records = [structs.replace(r, execution=structs.replace(r.execution, sent=late_s)) for r in served(due, 1.0)]
        assert ("generator_late" in _codes(_sum(plan, records))) == is_late


# --- Little's law


def test_users_who_think_and_start_late_are_not_missed() -> None:
    load = Closed(concurrency=3, think_s=5.0, ramp_up_s=6.0)
    records, free = [], [0.0, 2.0, 4.0]
    for i in range(60):
        user = int(np.argmin(free))
        records.append(_side_by_side([free[user]], [10.0])[0])
        records[-1] = structs.replace(records[-1], index=i, prompt_id=f"id-{i}")
        free[user] += 15.0
    assert "little_law" not in _codes(_sum(planned(load, 60), records))
    rushed = _find(_sum(planned(Closed(concurrency=3), 60), records), "little_law")
    assert rushed.evidence["in_flight"] == pytest.approx(2.0, abs=0.1) and rushed.evidence["expected"] == 3


def test_an_open_run_that_is_short_against_its_latencies_says_so() -> None:
    due = [float(i) for i in range(40)]
    load = Open(stages=[Stage(per_s=1.0)], arrivals="constant")
    finding = _find(_sum(planned(load, 40), _side_by_side(due, [15.0] * 40)), "little_law")
    assert "still running" in finding.text
    assert finding.evidence["expected"] > finding.evidence["in_flight"]
    assert "little_law" not in _codes(_sum(planned(load, 40), _side_by_side(due, [1.5] * 40)))


def test_the_number_in_the_system_counts_the_one_that_comes() -> None:
    assert in_system(np.array([2.0, 0.0, 1.0]), np.array([2.5, 1.0, 9.0])).tolist() == [1.0, 1.0, 2.0]


# --- cut off by the end, in steady state


def _cut_off(n: int = 200, until: float = 1500.0) -> list[Record]:
    _, due = _poisson(0.13, n)
    seconds = [float(x) for x in np.random.default_rng(2).lognormal(2.3, 0.4, n)]
    return [
        censored(structs.replace(r, execution=structs.replace(r.execution, done=until)))
        if (r.execution.done or 0) > until else r
        for r in _side_by_side([t for t in due if t < until], seconds[: sum(t < until for t in due)])
    ]  # fmt: skip


def test_jobs_that_the_end_cut_off_enter_the_percentiles_as_longer() -> None:
    load, _ = _poisson(0.13, 1)
    records = _cut_off()
    summary = _sum(planned(load, duration_s=1500.0, drain=False), records)
    cut = sum(record.censored for record in records)
    flat, finding = summary.summary, _find(summary, "censored_jobs")
    assert cut and flat["censored"] == cut and finding.level == "warning" and finding.evidence["count"] == cut
    assert summary.valid and flat["success_rate"] == 1.0
    assert summary.statistics["success_rate"].n == len(records) - cut
    assert summary.statistics["p95_latency_s"].method == "kaplan-meier" and isinstance(flat["p95_latency_s"], float)
    assert flat["p95_latency_with_failures_s"] == flat["p95_latency_s"]
    assert flat["avg_latency_s"] is None
    assert summary.statistics["avg_latency_s"].reason == "censored: the mean is not identifiable"
    assert isinstance(flat["avg_execution_s"], float)


# --- the rest


def test_a_resumed_run_has_no_rates() -> None:
    load, due = _poisson(0.05, 40)
    summary = _sum(planned(load, 40, resumed=[300.0]), served(due, 10.0))
    for name in ("offered_per_minute", "sent_per_minute", "completed_per_minute", "images_per_minute"):
        assert summary.summary[name] is None
    assert "gap" in summary.statistics["jobs_per_minute"].reason
    assert _find(summary, "resumed").level == "warning" and isinstance(summary.summary["p95_latency_s"], float)


def test_a_part_of_a_plan_misses_its_rate() -> None:
    load = Open(stages=[Stage(per_s=0.1)], arrivals="constant")
    due = [float(20 * i) for i in range(20)]
    missed = _find(_sum(planned(load, 20), served(due, 3.0)), "rate_missed")
    assert "20 jobs came due where the plan has 39" in missed.text


def test_jobs_dropped_as_the_run_was_stopped_are_no_overload() -> None:
    load, due = _poisson(0.08, 30)
    records = served(due, 10.0)
    gone = served([due[-1] + 1, due[-1] + 2], 1.0, places=0, drop=True)
    records += [structs.replace(r, index=30 + i) for i, r in enumerate(gone)]
    summary = _sum(planned(structs.replace(load, max_in_flight=1), 40, end="stopped"), records)
    assert "stopped" in _find(summary, "dropped_arrivals").text and "overload" not in _codes(summary)


def test_how_many_arrivals_a_load_has_by_then() -> None:
    load = Open(stages=[Stage(per_s=1.0, seconds=10.0), Stage(per_s=0.0, to_per_s=2.0, seconds=10.0)])
    assert [planned_in(load, s) for s in (5.0, 10.0, 15.0, 20.0, 99.0)] == [5.0, 10.0, 12.5, 20.0, 20.0]
    assert planned_in(Replay(offsets_s=[0.0, 1.0, 5.0]), 1.0) == 2.0


@pytest.mark.parametrize(
    ("plan", "jobs"),
    [
        (Plan(load=Closed(), jobs=12, pages=3), 36),
        (Plan(load=Closed(), jobs=12, duration_s=60.0), None),
        (Plan(load=_constant(), jobs=12), None),
        (Plan(load=Open(stages=[Stage(per_s=1.0)]), jobs=12), 12),
        (Plan(load=Replay(offsets_s=[0.0, 1.0]), jobs=12), 2),
        (Plan(load=Replay(offsets_s=[0.0, 1.0])), 2),
    ],
)
def test_how_many_jobs_a_plan_makes_for_certain(plan: Plan, jobs: int | None) -> None:
    assert planned_jobs(structs.replace(manifest(), plan=plan)) == jobs


def test_a_closed_run_has_rates_too() -> None:
    flat = _sum(manifest(3), [job(i, 10.0 * i, 10.0) for i in range(3)]).summary
    assert [flat[f"{name}_per_minute"] for name in ("offered", "sent", "completed")] == pytest.approx([6.0, 6.0, 6.0])
    assert flat["completed_per_minute"] == flat["jobs_per_minute"]
