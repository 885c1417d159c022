"""What a run says to its gates: proven, inside, open, disproven; and what may never pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from scipy import stats as oracle

from comfyload.errors import UsageError
from comfyload.judge.gates.gate import GateVerdict, RunError, Verdict, exit_code, judge, overall
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.gates.proof import SIDE, count_test, disproof, needed, proof
from comfyload.judge.gates.verdict import p_words
from comfyload.judge.statistics.binomial import clopper_pearson
from comfyload.judge.statistics.significance import BETWEEN_RUNS_SD, holm, student, tail
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Manifest, Observation, Output, Record
from comfyload.record.plan import Closed, Open, Stage
from comfyload.report.verdicts import value_words
from tests.unit.judge_runs import FACTS, booked, censored, failed, job, manifest, one_by_one, planned, served

P95 = "p95_latency_s <= 45"
SUCCESS = "success_rate >= 98 %"


def _gates(*texts: str, expected: Sequence[str] = (), independent: bool = False) -> GateSet:
    gates = [parse_gate(text) for text in texts]
    return GateSet(gates=gates, expected_errors=list(expected), independent_failures=independent)


def _run(n: int, *, over: int = 0, fail: int = 0, **changes: Any) -> Measured:
    """One job at a time; `over` of them take 60 s and the last `fail` failed, all others take about 10 s."""
    # A fixed order: slow jobs are spread, so that nothing depends on its neighbours.
    seconds = [10.0 + (i * 7 % 11) / 10 for i in range(n)]
    for i in range(over):
        seconds[(i * n) // over + 3 * i % max(1, n // over)] = 60.0
    records = one_by_one(seconds)
    for i in range(n - fail, n):
        records[i] = failed(i, records[i].due, 5.0)
    return measure("runs/x", manifest(n, **changes), records)


def _of(measured: Measured, *texts: str, independent: bool = False, **more: Any) -> GateVerdict:
    return judge(_gates(*texts, independent=independent), measured, **more)[0]


def _apart(n: int, fail: int) -> Measured:
    """One job at a time, of which `fail` failed, none beside another."""
    records = one_by_one([10.0 + (i * 7 % 11) / 10 for i in range(n)])
    for i in range(0, 2 * fail, 2):
        records[i] = failed(i, records[i].due, 5.0)
    return measure("runs/x", manifest(n), records)


# --- the tables of the statistical method, exactly

CLAIMS = [
    (0.05, 0.10, [45, 77, 105, 132, 158, 184]),
    (0.05, 0.05, [59, 93, 124, 153, 181, 208]),
    (0.05, 0.01, [90, 130, 165, 198, 229, 259]),
    (0.02, 0.10, [114, 194, 265, 333, 398, 462]),
    (0.02, 0.05, [149, 236, 313, 386, 456, 523]),
    (0.02, 0.01, [228, 330, 418, 499, 577, 652]),
]


# The second row is published as Wilks' 95/95 sample sizes (Wilks 1941), of order one to six.


@pytest.mark.parametrize(("allowed", "side", "jobs"), CLAIMS)
def test_so_many_jobs_are_needed(allowed: float, side: float, jobs: list[int]) -> None:
    assert [needed(bad, allowed, side) for bad in range(6)] == jobs
    for bad, n in enumerate(jobs):
        assert proof(bad, n, allowed) <= side < proof(bad, n - 1, allowed)


def test_mlperfs_early_stopping_needs_64_queries_for_a_p90_with_one_over() -> None:
    # loadgen's published value is for 99 % confidence, one query over the limit, p90.
    assert needed(1, 0.10, 0.01) == 64


@pytest.mark.parametrize(
    ("n", "passes", "fails"), [(12, -1, 3), (30, -1, 5), (60, 0, 7), (100, 1, 10), (150, 2, 13), (200, 4, 16)]
)
def test_the_three_valued_gate_of_a_p95(n: int, passes: int, fails: int) -> None:
    verdicts = [_of(_run(n, over=over), P95).verdict for over in range(fails + 2)]
    assert [over for over, verdict in enumerate(verdicts) if verdict == "PASS"] == list(range(passes + 1))
    assert [over for over, verdict in enumerate(verdicts) if verdict == "FAIL"] == [fails, fails + 1]


@pytest.mark.parametrize(
    ("n", "passes", "fails"), [(12, -1, 2), (30, -1, 3), (50, -1, 4), (100, -1, 6), (149, 0, 7), (200, 0, 8)]
)
def test_the_three_valued_gate_of_a_success_rate_if_failures_are_independent(n: int, passes: int, fails: int) -> None:
    verdicts = [_of(_run(n, fail=fail), SUCCESS, independent=True).verdict for fail in range(fails + 2)]
    assert [fail for fail, verdict in enumerate(verdicts) if verdict == "PASS"] == list(range(passes + 1))
    assert [fail for fail, verdict in enumerate(verdicts) if verdict == "FAIL"] == [fails, fails + 1]


def test_twelve_clean_jobs_prove_77_9_per_cent_and_what_they_do_not_is_said() -> None:
    verdict = _of(_run(12), SUCCESS)
    assert (verdict.verdict, verdict.value, verdict.n) == ("PASS*", 1.0, 12)
    assert verdict.why == (
        "All 12 jobs completed. To prove 98 %: 149 jobs if failures come one at a time, 1483 if they come in bursts of "
        "up to 10."
    )
    alone = _of(_run(12), SUCCESS, independent=True)
    assert (alone.verdict, alone.needs) == ("PASS*", 149) and alone.why.endswith("To prove 98 %: 149 jobs.")
    assert alone.low == pytest.approx(0.05 ** (1 / 12)) and alone.high == 1.0


def test_a_clean_run_holds_nothing_on_how_failures_would_come() -> None:
    verdict = _of(_run(149), SUCCESS)
    assert (verdict.verdict, verdict.needs) == ("PASS*", 1483)
    assert verdict.why == (
        "All 149 jobs completed. That proves 98 % if failures come one at a time; if they come in bursts of up to 10, "
        "it takes 1483 jobs."
    )
    alone = _of(_run(149), SUCCESS, independent=True)
    assert alone.verdict == "PASS" and alone.why.endswith("if failures come one at a time.")
    assert _of(_run(1482), SUCCESS).verdict == "PASS*" and _of(_run(1483), SUCCESS).verdict == "PASS"


def test_bursts_that_were_seen_decide_how_many_jobs_are_a_trial() -> None:
    apart, together = _of(_apart(600, 10), "success_rate >= 95 %"), _of(_run(600, fail=10), "success_rate >= 95 %")
    assert (apart.verdict, together.verdict) == ("PASS", "PASS*")
    assert apart.low is not None and together.low is not None and together.low < 0.95 <= apart.low
    assert "bursts of failures allowed for" in apart.why and "in bursts as long as they may be here" in together.why


def test_one_burst_disproves_less_than_as_many_failures_apart() -> None:
    apart, together = _of(_apart(60, 6), SUCCESS), _of(_run(60, fail=6), SUCCESS)
    assert (apart.verdict, together.verdict) == ("FAIL", "INCONCLUSIVE")
    assert together.why == (
        "54 of 60 jobs completed; the others failed in 1 burst: outside the limit, which may be chance."
    )
    assert apart.high is not None and apart.high < 0.98 < (together.high or 0.0)
    assert _of(_run(60, fail=60), SUCCESS).verdict == _of(_run(12, fail=12), SUCCESS).verdict == "FAIL"


def test_one_failure_in_a_hundred_is_inside_and_says_how_many_jobs_more() -> None:
    verdict = _of(_run(100, fail=1), SUCCESS, independent=True)
    assert (verdict.verdict, verdict.needs) == ("PASS*", 236)
    assert "To prove 98 %: 236 jobs with no more than 1 failed." in verdict.why


def test_three_failures_in_a_hundred_are_outside_and_not_disproven() -> None:
    verdict = _of(_run(100, fail=3), SUCCESS)
    assert verdict.verdict == "INCONCLUSIVE" and "outside the limit, which may be chance" in verdict.why
    assert verdict.p_fail is not None and verdict.p_fail > SIDE


def test_all_is_never_proven_and_one_failure_disproves_it() -> None:
    clean = _of(_run(1000), "success_rate >= 100 %")
    assert (clean.verdict, clean.needs) == ("PASS*", None) and "No number of jobs proves 100 %." in clean.why
    assert _of(_run(1000, fail=1), "success_rate >= 100 %").verdict == "FAIL"


# --- published values


def test_clopper_and_pearsons_bounds_are_the_published_ones() -> None:
    # 1 of 20 at 90 %: 0.0026 to 0.2161, as in tables of exact limits; and scipy's.
    assert clopper_pearson(1, 20, 1 - 2 * SIDE) == pytest.approx((0.002561, 0.216106), abs=1e-6)
    for k, n in ((0, 12), (12, 12), (97, 100), (196, 200)):
        expected = oracle.binomtest(k, n).proportion_ci(0.90, "exact")
        assert clopper_pearson(k, n, 1 - 2 * SIDE) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("bad", "n", "allowed"), [(0, 59, 0.05), (3, 12, 0.05), (4, 200, 0.02), (12, 12, 0.02)])
def test_p_values_are_those_of_scipys_binomial_test(bad: int, n: int, allowed: float) -> None:
    assert proof(bad, n, allowed) == pytest.approx(oracle.binomtest(bad, n, allowed, "less").pvalue, abs=1e-12)
    assert disproof(bad, n, allowed) == pytest.approx(oracle.binomtest(bad, n, allowed, "greater").pvalue, abs=1e-12)


@pytest.mark.parametrize("over", [0, 2, 4, 5, 9, 15, 16, 30])
def test_the_gate_of_a_p95_is_scipys_quantile_test(over: int) -> None:
    run = _run(200, over=over)
    latency = run.jobs.known("latency")
    # A quantile of at most 45 s: disproven if so few lie at or below it, proven if so many do.
    fail = oracle.quantile_test(latency, q=45.0, p=0.95, alternative="greater").pvalue
    proven = oracle.quantile_test(latency, q=45.0, p=0.95, alternative="less").pvalue
    verdict = _of(run, P95)
    assert verdict.p_fail == pytest.approx(fail, abs=1e-12)
    assert (verdict.verdict == "PASS") == (proven <= 0.05) and (verdict.verdict == "FAIL") == (fail <= 0.05)


def test_the_upper_bound_of_a_p90_of_a_hundred_is_the_96th_value() -> None:
    # By the rule of Hahn & Meeker 1991, 5.2: the smallest u with P(Bin(100, 0.9) < u) >= 0.95; P(<= 95) = 0.976.
    seconds = [float(s) for s in np.random.default_rng(1).permutation(np.arange(1.0, 101.0))]
    run = measure("", manifest(100), one_by_one(seconds))
    assert [_of(run, f"p90_latency_s <= {limit}").verdict for limit in (95.5, 96.5)] == ["PASS*", "PASS"]
    assert _of(run, "p90_latency_s <= 96.5").high == pytest.approx(96.0)


# --- percentiles


def test_the_verdict_is_where_its_interval_lies() -> None:
    for over in range(30):
        verdict = _of(_run(200, over=over), P95)
        assert (verdict.verdict == "PASS") == (verdict.high is not None and verdict.high <= 45)
        assert (verdict.verdict == "FAIL") == (verdict.low is not None and verdict.low > 45)


def test_a_job_that_did_not_complete_took_longer_than_any_limit() -> None:
    for outcome in ("failed", "lost", "timed_out"):
        records = one_by_one([10.0 + i % 3 for i in range(60)])
        for i in range(7):
            records[8 * i] = failed(8 * i, records[8 * i].due, 1.0, outcome)
        run = measure("", manifest(60), records)
        verdict = _of(run, P95)
        assert run.summary.summary["p95_latency_s"] == pytest.approx(12.0)
        assert (verdict.verdict, verdict.value, verdict.n) == ("FAIL", math.inf, 60)
        assert "7 of 60 jobs did not complete within 45 s, 7 of them not at all" in verdict.why
        assert _of(run, "p95_execution_s <= 45").verdict == "PASS*"  # what ran, ran as fast


def test_a_strict_limit_is_not_met_by_being_equal() -> None:
    run = measure("", manifest(64), one_by_one([float(2 ** (i % 3)) for i in range(64)]))
    assert _of(run, "p95_latency_s <= 4").verdict == "PASS"
    assert _of(run, "p95_latency_s < 4").verdict == "FAIL"


def test_a_percentile_can_have_a_lower_limit() -> None:
    run = _run(60)
    assert _of(run, "p50_execution_s >= 9").verdict == "PASS"
    assert _of(run, "p50_execution_s >= 11.5").verdict == "FAIL"
    assert _of(run, "p50_execution_s >= 10.5").verdict in ("PASS*", "INCONCLUSIVE")


def test_jobs_cut_off_may_disprove_and_never_prove() -> None:
    def cut(seconds: float, jobs: int) -> GateVerdict:
        records = one_by_one([10.0 + i % 3 for i in range(200)])
        last = [censored(job(200 + i, 2300.0, seconds)) for i in range(jobs)]
        return _of(measure("", planned(Closed(), 200 + jobs, drain=False), [*records, *last]), P95)

    short = cut(20.0, 1)
    assert short.verdict == "PASS*" and short.needs is None and "1 job was cut off by the end" in short.why
    assert cut(50.0, 20).verdict == "FAIL"
    assert cut(20.0, 20).verdict == "INCONCLUSIVE"


def test_jobs_in_one_queue_are_worth_fewer() -> None:
    slow = [60.0 if 100 <= i < 104 else 10.0 + i % 3 for i in range(200)]
    due = [20.0 * i for i in range(200)]
    alone = measure("", manifest(200), one_by_one([60.0 if i % 50 == 7 else 10.0 + i % 3 for i in range(200)]))
    queue = measure("", planned(Open(stages=[Stage(per_s=0.05)], arrivals="constant"), 200), served(due, slow))
    assert _of(alone, P95).verdict == "PASS"
    verdict = _of(queue, P95)
    assert verdict.verdict in ("INCONCLUSIVE", "PASS*")


def test_dependence_never_turns_an_open_verdict_into_another() -> None:
    for n in (12, 60, 200):
        for bad in range(0, 31, 3):
            free = count_test((min(bad, n), min(bad, n)), n, 0.05)
            for tau in (1.3, 2.0, 7.7, 50.0):
                tied = count_test((min(bad, n), min(bad, n)), n, 0.05, tau)
                assert tied[0] >= free[0] and tied[1] >= free[1]


def test_books_have_a_latency_of_their_own() -> None:
    due = [100.0 * (i // 2) for i in range(240)]
    records = booked(served(due, [10.0 + i % 3 for i in range(240)]), 2)
    load = Open(stages=[Stage(per_s=0.01)], arrivals="constant")
    run = measure("", planned(load, 120, pages=2), records)
    verdict = _of(run, "p95_book_latency_s <= 45")
    assert (verdict.verdict, verdict.n) == ("PASS", 120) and verdict.why == "All 120 books took 45 s or less."
    broken = [failed(1, records[1].due, 5.0)] + [r for r in records if r.index != 1]
    broken[0] = structs.replace(broken[0], book=0)
    run = measure("", planned(load, 120, pages=2), broken)
    assert "1 of 120 books" in _of(run, "p95_book_latency_s <= 45").why
    assert _of(run, "book_success_rate >= 50 %").verdict == "PASS"


def test_an_overload_proves_nothing_since_a_longer_run_would_be_slower() -> None:
    load = Open(stages=[Stage(per_s=10.0, seconds=15.0)], arrivals="constant")
    run = measure("", planned(load), served([i / 10 for i in range(150)], 0.2))
    for text in ("p95_latency_s <= 1000", "avg_latency_s <= 1000", "p95_queue_wait_s <= 1000"):
        verdict = _of(run, text)
        assert verdict.verdict == "INCONCLUSIVE" and "not valid (overload)" in verdict.why
    assert _of(run, "p95_latency_s <= 0.1").verdict == "FAIL"


# --- means, rates, facts


def test_a_mean_passes_if_its_whole_interval_is_inside() -> None:
    run = _run(60)
    statistic = run.summary.statistics["images_per_minute"]
    assert statistic.low is not None and statistic.high is not None and statistic.value is not None
    limits = [statistic.low * 0.999, (statistic.low + statistic.value) / 2, (statistic.high + statistic.value) / 2]
    verdicts = [_of(run, f"images_per_minute >= {limit}") for limit in (*limits, statistic.high * 1.001)]
    assert [verdict.verdict for verdict in verdicts] == ["PASS", "PASS*", "INCONCLUSIVE", "FAIL"]
    assert ["may be missing among" in verdict.why for verdict in verdicts] == [True, False, False, False]
    # Half as wide takes four times as many: an error shrinks with the root of the jobs.
    assert verdicts[1].needs == pytest.approx(4 * 60, abs=1)
    assert verdicts[3].p_fail is not None and 0.02 < verdicts[3].p_fail <= 0.05


def test_a_rate_that_is_withheld_is_open() -> None:
    run = measure("", manifest(12, resumed=[5.0]), one_by_one([10.0] * 12))
    verdict = _of(run, "images_per_minute >= 1")
    assert verdict.verdict == "INCONCLUSIVE" and "was resumed" in verdict.why


def test_a_count_or_a_maximum_is_a_fact_of_this_run_alone() -> None:
    run = _run(60, over=1)
    texts = ("max_latency_s < 90 s", "max_latency_s < 60 s", "failed == 0", "images >= 61", "failed <= 0")
    verdicts = judge(_gates(*texts), run)
    assert [verdict.verdict for verdict in verdicts] == ["PASS", "FAIL", "PASS", "FAIL", "PASS"]
    assert all("A fact of this run" in verdict.why and verdict.p_fail is None for verdict in verdicts)


def test_the_longest_latency_is_not_known_where_jobs_did_not_complete() -> None:
    assert _of(_run(60, fail=1), "max_latency_s < 90 s").verdict == "INCONCLUSIVE"
    assert _of(_run(60, fail=1), "max_latency_s < 5 s").verdict == "FAIL"


def test_one_workflow_of_several_is_judged_by_its_own_jobs() -> None:
    names = ["flux", "sdxl"] * 120
    seconds = [50.0 if name == "flux" else 10.0 + i % 3 for i, name in enumerate(names)]
    due = [100.0 * i for i in range(240)]
    facts = [structs.replace(FACTS, name=name) for name in ("flux", "sdxl")]
    load = Open(stages=[Stage(per_s=0.01)], arrivals="constant")
    run = measure("", planned(load, 240, workflows=facts), served(due, seconds, workflows=names))
    texts = ("flux.p95_latency_s <= 45", "sdxl.p95_latency_s <= 45", "sdxl.jobs >= 120", "sd.p95_latency_s <= 45")
    verdicts = judge(_gates(*texts), run)
    assert [verdict.verdict for verdict in verdicts] == ["FAIL", "PASS", "PASS", "INCONCLUSIVE"]
    assert [verdict.n for verdict in verdicts[:2]] == [120, 120]
    assert "it has flux, sdxl" in verdicts[3].why


# --- errors


def test_no_error_is_said_of_jobs_and_of_the_log_that_was_read() -> None:
    verdict = _of(_run(149), "unexpected_errors == 0")
    assert (verdict.verdict, verdict.why) == ("PASS", "No error in 149 jobs; no log was read.")
    assert _of(_run(149), "unexpected_errors == 0", log_errors=[]).why == "No error in 149 jobs and the log."


def test_an_error_nobody_expected_fails_and_is_named() -> None:
    records = one_by_one([10.0] * 12)
    records[4] = failed(4, records[4].due, 1.0, message="mat1 and mat2\n| <b>")
    verdict = _of(measure("", manifest(12), records), "unexpected_errors == 0")
    assert verdict.verdict == "FAIL" and verdict.value == 1
    assert "execution_error RuntimeError KSampler: mat1 and mat2 | <b> (1 in all, first: job 4)" in verdict.why
    assert "kinds in all" not in verdict.why
    records[6] = failed(6, records[6].due, 1.0, type="ValueError")
    two = _of(measure("", manifest(12), records), "unexpected_errors == 0")
    assert two.value == 2 and "2 kinds in all." in two.why


def test_what_is_as_extreme_by_chance_is_the_laws_tail() -> None:
    assert (tail(0.1, 0.0, 5), tail(0.0, 0.0, 5), tail(-0.1, 0.0, 5)) == (0.0, 1.0, 1.0)
    assert tail(0.0, 1.0, 5) == tail(0.0, 1.0, math.inf) == 0.5
    assert tail(1.96, 1.0, math.inf) == pytest.approx(0.025, abs=1e-4)
    assert tail(2.571, 1.0, 5) == pytest.approx(0.025, abs=1e-4)
    assert student(0.975, math.inf) == pytest.approx(1.96, abs=1e-3)
    assert student(0.975, 5) == pytest.approx(2.571, abs=1e-3)
    assert tail(2 * 2.571, 2.0, 5) == pytest.approx(0.025, abs=1e-4)


def test_a_warm_up_job_that_failed_is_an_error_too() -> None:
    first = structs.replace(failed(0, 0.0, 5.0), warmup=True)
    run = measure("", manifest(12, warmup=1), [first, *one_by_one([10.0] * 12, first=1)])
    verdict = _of(run, "unexpected_errors == 0")
    assert verdict.verdict == "FAIL" and "warm-up failed" in verdict.why
    assert judge(_gates("unexpected_errors == 0", expected=["^warm-up"]), run)[0].verdict == "PASS"


def test_an_error_in_the_log_is_one_unless_it_is_expected() -> None:
    seen = [RunError(where="log", text="CUDA error: \x1b[31mgone", count=3, first="2026-01-01T00:00:07+00:00")]
    verdict = _of(_run(60), "unexpected_errors == 0", log_errors=seen)
    assert verdict.verdict == "FAIL" and verdict.value == 3 and "\x1b" not in verdict.why
    assert "in the log, 2026-01-01T00:00:07+00:00" in verdict.why
    expected = judge(_gates("unexpected_errors == 0", expected=["CUDA error"]), _run(60), seen)[0]
    assert expected.verdict == "PASS" and "No unexpected error in 60 jobs and the log; 3 were expected" in expected.why


def test_a_message_speaks_only_for_its_own_job() -> None:
    one, two = _run(60, fail=1), _run(60, fail=2)
    by_message, by_class = ["mat1 and mat2"], ["^execution_error RuntimeError KSampler"]
    text = "unexpected_errors == 0"
    assert judge(_gates(text, expected=by_message), one)[0].verdict == "PASS"
    hidden = judge(_gates(text, expected=by_message), two)[0]
    assert hidden.verdict == "FAIL" and "Only the first message is kept" in hidden.why
    assert judge(_gates(text, expected=by_class), two)[0].verdict == "PASS"


def test_dropped_and_cut_jobs_are_no_errors_of_the_server() -> None:
    load = Open(stages=[Stage(per_s=10.0, seconds=15.0)], arrivals="constant", max_in_flight=4, on_full="drop")
    run = measure("", planned(load), served([i / 10 for i in range(150)], 0.2, places=4, drop=True))
    assert run.summary.summary["dropped"]
    verdict = _of(run, "unexpected_errors == 0")
    assert verdict.verdict == "INCONCLUSIVE" and verdict.value == 0  # it is not valid


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="invalid regular expression"):
        judge(_gates("unexpected_errors == 0", expected=["("]), _run(12))


# --- what may never pass

ALL = (
    *DEFAULT_GATES,
    "success_rate >= 1 %",
    "p50_latency_s <= 1000",
    "avg_latency_s <= 1000",
    "images_per_minute >= 0",
    "jobs_per_minute >= 0",
    "failed <= 1000",
    "max_latency_s <= 1000",
    "p95_execution_s <= 1000",
    "success_rate >= 0.01 * baseline",
    "images_per_minute >= 0.01 * baseline",
    "failed <= 1000 * baseline",
)


def _empty() -> list[tuple[Manifest, list[Record]]]:
    return [
        (manifest(12), []),
        (manifest(12), [failed(i, 10.0 * i, 5.0) for i in range(12)]),
        (manifest(12), [failed(i, 10.0 * i, 5.0, "timed_out") for i in range(12)]),
        (manifest(2, warmup=2), [structs.replace(job(i, 10.0 * i, 5.0), warmup=True) for i in range(2)]),
    ]


@pytest.mark.parametrize("which", range(4))
def test_nothing_measured_never_passes(which: int) -> None:
    run = measure("", *_empty()[which])
    verdicts = judge(_gates(*ALL, expected=["."]), run, [], [_other(_run(60), "b")])
    assert {verdict.verdict for verdict in verdicts} <= {"INCONCLUSIVE", "FAIL"}
    assert exit_code(verdicts, run.summary.valid, strict=False) in (1, 5)


def test_an_invalid_run_never_passes_and_may_fail() -> None:
    seen = [Observation(t=1.0, code="restart", text="the server was restarted")]
    good, bad = _run(200, observations=seen), _run(200, over=20, fail=30, observations=seen)
    assert not good.summary.valid
    verdicts = judge(_gates(*ALL), good, [], [_other(_run(200), "b")])
    assert {verdict.verdict for verdict in verdicts} == {"INCONCLUSIVE"}
    assert all("not valid (restart)" in v.why for v in verdicts) and all(v.needs is None for v in verdicts)
    assert exit_code(verdicts, good.summary.valid, strict=False) == 5
    assert [v.verdict for v in judge(_gates(SUCCESS, P95), bad)] == ["FAIL", "FAIL"]


def test_no_gate_is_no_pass() -> None:
    assert overall([]) == "INCONCLUSIVE" and exit_code([], True, strict=False) == 3


# --- several gates together


def test_holms_procedure_is_the_published_example() -> None:
    # Holm 1979 on .01, .04, .03, .005: adjusted .03, .06, .06, .02 (R's p.adjust gives the same).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.9]) == [1.0, 1.0]


def test_one_of_many_gates_does_not_fail_by_chance() -> None:
    run = _apart(100, 6)  # p = 0.016
    assert _of(run, SUCCESS).verdict == "FAIL"
    many = judge(_gates(SUCCESS, *[f"p50_latency_s <= {limit}" for limit in (100, 200, 300, 400)]), run)
    assert many[0].verdict == "INCONCLUSIVE" and "(Holm)" in many[0].why
    assert [verdict.verdict for verdict in many[1:]] == ["PASS"] * 4  # a pass needs no correction
    assert many[0].p_fail == pytest.approx(5 * disproof(6, 100, 0.02))


def test_facts_and_errors_are_no_part_of_the_family() -> None:
    run = _apart(100, 6)
    more = ("failed >= 0", "images >= 0", "timeouts == 0", "lost == 0", "unexpected_errors == 0")
    assert _of(run, SUCCESS, *more).verdict == "FAIL"


def test_looks_are_named_because_each_is_a_chance_to_err() -> None:
    run = _run(200, looks=[60, 100, 150, 200])
    verdicts = judge(_gates(P95, "failed == 0"), run)
    assert "Judged 4 times" in verdicts[0].why and "Judged" not in verdicts[1].why
    assert "Judged" not in _of(_run(200, looks=[200]), SUCCESS).why


@pytest.mark.parametrize(
    ("verdicts", "worst", "plain", "strict"),
    [
        (["PASS", "PASS"], "PASS", 0, 0),
        (["PASS", "PASS*"], "PASS*", 0, 3),
        (["INCONCLUSIVE", "PASS*"], "INCONCLUSIVE", 3, 3),
        (["PASS", "FAIL", "INCONCLUSIVE"], "FAIL", 1, 1),
    ],
)
def test_the_worst_verdict_decides(verdicts: list[Verdict], worst: Verdict, plain: int, strict: int) -> None:
    given = [structs.replace(_of(_run(12), SUCCESS), verdict=verdict) for verdict in verdicts]
    assert overall(given) == worst
    assert (exit_code(given, True, strict=False), exit_code(given, True, strict=True)) == (plain, strict)
    assert exit_code(given, False, strict=False) == (1 if worst == "FAIL" else 5)


# --- against a baseline


def _other(run: Measured, run_id: str, **changes: Any) -> Measured:
    return structs.replace(run, manifest=structs.replace(run.manifest, run_id=run_id, **changes))


def _scaled(factor: float, run_id: str, n: int = 60) -> Measured:
    records = one_by_one([factor * (10.0 + (i * 7 % 11) / 10) for i in range(n)])
    return measure("", manifest(n, run_id=run_id), records)


RATE = "images_per_minute >= 0.95 * baseline"


def test_one_run_a_side_is_never_proven() -> None:
    base = [_scaled(1.0, "base")]
    for factor, verdict in ((0.5, "PASS*"), (1.0, "PASS*"), (1.1, "INCONCLUSIVE"), (1.3, "FAIL")):
        given = _of(_scaled(factor, "new"), RATE, baseline=base)
        assert given.verdict == verdict and "One run a side; 4 % noise between runs assumed" in given.why
    assert given.limit == pytest.approx(0.95 * float(base[0].summary.summary["images_per_minute"] or 0))


def test_a_gate_against_a_baseline_shows_both_values_and_says_one_thing() -> None:
    base, new = _scaled(1.0, "base"), _scaled(1.3, "new")
    failing = _of(new, RATE, baseline=[base])
    theirs = base.summary.summary["images_per_minute"]
    assert failing.baseline == theirs and isinstance(theirs, float) and failing.value is not None
    assert failing.ratio == pytest.approx(failing.value / theirs)
    assert failing.verdict == "FAIL" and "nothing can be proven" not in failing.why
    assert failing.why.startswith("23.1 % below the baseline's 5.71 (15.5 to 29.9 % at 90 %)")
    assert ", baseline 5.71/min" in value_words(failing)
    inside = _of(base, "p50_latency_s <= 1.1 * baseline", baseline=[_scaled(1.0, "other")])
    assert inside.verdict == "PASS*" and inside.why.endswith("assumed, so nothing can be proven.")
    assert value_words(inside).endswith(", baseline 10.5 s")
    several = _of(new, RATE, baseline=[base, _scaled(0.99, "base2")])
    assert several.baseline == pytest.approx(math.sqrt(theirs * theirs / 0.99), rel=1e-6)
    fact = _of(new, "max_latency_s <= 1.2 * baseline", baseline=[base])
    assert fact.ratio == pytest.approx(1.3) and value_words(fact) == "14.3 s, baseline 11.0 s"
    without = _of(_scaled(1.0, "two", n=12), "p99_latency_s <= 1.1 * baseline", baseline=[base])
    assert without.why.startswith("No ratio: this run has none, 12 completed jobs; a p99 needs 299")
    assert _of(new, RATE).baseline is None


def test_previews_are_not_held_against_images_that_were_saved() -> None:
    records = one_by_one([10.0 + (i * 7 % 11) / 10 for i in range(60)])
    shown = [Output(node="9", kind="images", count=1, files=["temp/x.png"])]
    for i, record in enumerate(records):
        outputs = [structs.replace(shown[0], files=[f"temp/{i}.png"])]
        records[i] = structs.replace(record, execution=structs.replace(record.execution, outputs=outputs))
    run = measure("", manifest(60, run_id="new"), records)
    given = _of(run, RATE, baseline=[_scaled(1.0, "base")])
    assert given.verdict == "INCONCLUSIVE" and "not the same is counted, images/min and previews/min" in given.why


def test_the_noise_between_runs_widens_what_one_run_a_side_says() -> None:
    given = _of(_scaled(1.0, "new"), RATE, baseline=[_scaled(1.0, "base")])
    assert given.why.startswith("Equal to the baseline's 5.71 (")
    low, high = (float(part.split(" %")[0]) for part in given.why.split("(")[1].split(" at")[0].split(" to "))
    low, high = 1 - low / 100, 1 + high / 100
    assert high / low > math.exp(2 * 1.645 * math.sqrt(2) * BETWEEN_RUNS_SD) * 0.999


def test_several_runs_of_a_baseline_can_prove() -> None:
    base = [_scaled(factor, f"base{i}") for i, factor in enumerate((0.99, 1.0, 1.01, 1.0, 0.995))]
    verdicts = [_of(_scaled(factor, "new"), RATE, baseline=base).verdict for factor in (0.9, 1.0, 1.06, 1.2)]
    assert verdicts == ["PASS", "PASS", "INCONCLUSIVE", "FAIL"]


def test_a_wide_baseline_proves_nothing() -> None:
    base = [_scaled(factor, f"base{i}") for i, factor in enumerate((0.8, 1.0, 1.25))]
    assert _of(_scaled(1.0, "new"), RATE, baseline=base).verdict == "PASS*"


def test_runs_of_a_baseline_that_agree_by_chance_are_not_without_noise() -> None:
    base = [_scaled(1.0, f"base{i}") for i in range(3)]
    assert _of(_scaled(1.053, "new"), RATE, baseline=base).verdict == "INCONCLUSIVE"


def test_a_baseline_of_another_load_or_workflow_or_of_itself_is_none() -> None:
    run = _scaled(1.0, "new")
    plan = structs.replace(run.manifest.plan, load=Closed(concurrency=2))
    others = [
        run,
        _other(run, "a", plan=plan),
        _other(run, "b", workflows=[structs.replace(FACTS, sha256="1" * 64)]),
        _other(run, "c", workflows=[structs.replace(FACTS, overrides={"3.steps": 4})]),
        _other(_run(60, observations=[Observation(t=1.0, code="restart", text="x")]), "d"),
    ]
    verdict = _of(run, RATE, baseline=others)
    assert verdict.verdict == "INCONCLUSIVE" and "no other valid run" in verdict.why and verdict.limit is None
    assert _of(run, RATE).why == "No baseline given."
    assert _of(run, RATE, baseline=[*others, _other(run, "e")]).verdict == "PASS*"


def test_failures_are_not_left_out_of_a_percentile_that_is_compared() -> None:
    base = [_scaled(1.0, "base", 200)]
    records = one_by_one([10.0 + (i * 7 % 11) / 10 for i in range(200)])
    for i in range(0, 200, 5):
        records[i] = failed(i, records[i].due, 1.0)
    run = measure("", manifest(200, run_id="new"), records)
    verdict = _of(run, "p95_latency_s <= 1.1 * baseline", baseline=base)
    assert verdict.verdict == "FAIL" and verdict.value == math.inf
    for metric in ("avg_latency_s", "p50_execution_s"):  # of which there is none with failures
        value = _of(run, f"{metric} <= 1.1 * baseline", baseline=base).value
        assert value is not None and 8.0 < value < 12.0


def test_a_count_against_a_baseline_is_still_a_fact() -> None:
    verdict = _of(_run(60, over=2), "max_latency_s <= 1.2 * baseline", baseline=[_scaled(1.0, "base")])
    assert verdict.verdict == "FAIL" and verdict.p_fail is None and "baseline has 11.0 on average" in verdict.why


def test_a_tiny_chance_is_a_bound_and_not_an_exponent() -> None:
    assert (p_words(0.0123), p_words(0.00013), p_words(3.7e-10)) == ("p = 0.012", "p = 0.00013", "p < 0.0001")
