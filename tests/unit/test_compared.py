"""A comparison as a gate: 1 only for what is proven, and nothing undecided passes for proof."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from comfyload.judge.comparison.compare import Comparison, compare
from comfyload.judge.gates.compared import judge_comparison
from comfyload.judge.gates.gate import GateVerdict, exit_code
from comfyload.judge.summary import Measured, measure
from tests.unit.judge_runs import failed, manifest, one_by_one


def _run(level: float, seed: int, n: int = 12, spread: float = 0.01, bad: int = 0) -> Measured:
    rng = np.random.default_rng(seed)
    records = one_by_one([float(x) for x in level * rng.lognormal(0, spread, n)])
    for place in range(0, 2 * bad, 2):
        records[place] = failed(place, records[place].due, 1.0)
    return measure(f"r{seed}", manifest(n, run_id=f"r{seed}"), records)


def _pairs(level: float, k: int = 5, **changes: Any) -> Comparison:
    """B takes `level` times as long as A."""
    a = [_run(10.0, seed, **changes) for seed in range(k)]
    b = [_run(10.0 * level, 100 + seed, **changes) for seed in range(k)]
    return compare(a, b, paired=True)


def _slower(found: Comparison) -> GateVerdict:
    (verdict,) = judge_comparison(found, ["slower"])
    return verdict


def test_what_is_proven_slower_fails_with_the_change_its_interval_and_the_margin() -> None:
    verdict = _slower(_pairs(1.2))
    assert (verdict.verdict, verdict.gate, verdict.n) == ("FAIL", "not slower", 60)
    assert verdict.why.startswith("p50_execution_s +") and verdict.why.endswith("margin 5 %.")
    assert verdict.ratio == pytest.approx(1.2, rel=0.02) and verdict.value == pytest.approx(12.0, rel=0.02)
    assert verdict.limit == pytest.approx(1.05 * (verdict.baseline or 0))


def test_the_same_and_faster_pass() -> None:
    assert [_slower(_pairs(level)).verdict for level in (1.0, 0.8)] == ["PASS", "PASS"]


def test_an_undecided_difference_inside_the_margin_is_not_proof_and_says_what_would_settle_it() -> None:
    few = _pairs(1.0, k=3)  # means of 36 jobs a side are not shown to be the same
    verdict = _slower(few)
    assert few.overall is not None and few.overall.verdict == "inconclusive"
    assert verdict.verdict == "PASS*" and "pairs would settle it." in verdict.why
    assert [exit_code([verdict], True, strict=strict) for strict in (False, True)] == [0, 3]


def test_an_undecided_difference_beyond_the_margin_is_exit_3_with_and_without_strict() -> None:
    verdict = _slower(compare([_run(10.0, 1, 12, 0.1)], [_run(11.5, 2, 12, 0.1)]))
    assert verdict.verdict == "INCONCLUSIVE" and verdict.ratio is not None and verdict.ratio > 1.05
    assert "Outside it: book: p50_execution_s +" in verdict.why
    assert [exit_code([verdict], True, strict=strict) for strict in (False, True)] == [3, 3]


def test_a_metric_that_is_proven_slower_beside_a_faster_median_leaves_it_open() -> None:
    found = _pairs(0.8)
    row = next(row for row in found.rows if row.name == "p50_queue_wait_s" or row.name == "p50_latency_s")
    rows = [msgspec.structs.replace(one, verdict="slower") if one is row else one for one in found.rows]
    verdict = _slower(msgspec.structs.replace(found, rows=rows))
    assert verdict.verdict == "INCONCLUSIVE" and row.name in verdict.why


def test_without_a_duration_of_both_sides_nothing_is_shown() -> None:
    verdict = _slower(msgspec.structs.replace(_pairs(1.0), overall=None))
    assert (verdict.verdict, verdict.value) == ("INCONCLUSIVE", None) and verdict.why.startswith("No data")


def _failures(bad_a: int, bad_b: int, n: int = 40) -> GateVerdict:
    (verdict,) = judge_comparison(
        compare([_run(10.0, 1, n, bad=bad_a)], [_run(10.0, 2, n, bad=bad_b)]), ["more-failures"]
    )
    return verdict


@pytest.mark.parametrize(
    ("bad_a", "bad_b", "word"),
    [(0, 12, "FAIL"), (12, 0, "PASS"), (0, 0, "PASS*"), (2, 2, "PASS*"), (0, 1, "INCONCLUSIVE")],
)
def test_failures_fail_by_proof_and_never_pass_by_silence(bad_a: int, bad_b: int, word: str) -> None:
    verdict = _failures(bad_a, bad_b)
    assert (verdict.verdict, verdict.value, verdict.baseline) == (word, 1 - bad_b / 40, 1 - bad_a / 40)
    assert verdict.limit == verdict.baseline
    both = f"{bad_a} of 40 jobs and {bad_b} of 40 did not complete (p = "
    assert verdict.why.startswith(both if bad_a + bad_b else "None failed; up to 8.81 % of A") and verdict.n == 40


def test_proven_failures_decide_before_larger_ones_that_may_be_chance() -> None:
    found = compare([_run(10.0, 1, 40, bad=0)], [_run(10.0, 2, 40, bad=12)])
    (row,) = [one for one in found.rows if one.kind == "failures"]
    chance = msgspec.structs.replace(row, verdict="inconclusive", a=0.0, b=0.9, note="By chance")
    for rows in ([row, chance], [chance, row]):
        (verdict,) = judge_comparison(msgspec.structs.replace(found, rows=rows), ["more-failures"])
        assert (verdict.verdict, verdict.value) == ("FAIL", 1 - 12 / 40)


def test_each_condition_is_judged_once() -> None:
    verdicts = judge_comparison(_pairs(1.0), ["slower", "more-failures", "slower"])
    assert [verdict.gate for verdict in verdicts] == ["not slower", "not more failures"]
