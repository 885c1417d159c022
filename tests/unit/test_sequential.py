"""When a run is looked at, when it is decided, and when going on is a waste."""

from __future__ import annotations

import math

import pytest

from comfyload.judge.gates.gate import GateVerdict, Verdict
from comfyload.judge.gates.sequential import DISPROVEN, decided, early_abort, evidence, looks, strikes


def _verdicts(*words: Verdict) -> list[GateVerdict]:
    return [
        GateVerdict(run="r", gate="g", verdict=word, metric="success_rate", value=1.0, limit=0.98, why="")
        for word in words
    ]


def test_there_are_at_most_four_looks_and_the_last_is_at_the_budget() -> None:
    assert looks(200) == [60, 100, 150, 200]
    assert looks(1000) == [300, 500, 750, 1000]
    for budget in range(1, 60):
        points = looks(budget)
        assert 1 <= len(points) <= 4 and points == sorted(set(points)) and points[0] >= 1 and points[-1] == budget


def test_a_run_is_decided_when_all_is_proven_or_one_is_disproven() -> None:
    assert decided(_verdicts("PASS", "PASS"))
    assert decided(_verdicts("PASS*", "FAIL", "INCONCLUSIVE"))
    assert not decided(_verdicts("PASS", "PASS*"))
    assert not decided(_verdicts("PASS", "INCONCLUSIVE"))
    assert not decided([])


def test_a_gate_that_only_bursts_leave_unproven_is_not_waited_for() -> None:
    assert decided(_verdicts("PASS*", "PASS"), _verdicts("PASS", "PASS"))
    assert not decided(_verdicts("PASS*", "PASS*"), _verdicts("PASS", "PASS*"))
    assert decided(_verdicts("FAIL"), _verdicts("PASS"))


def test_a_burst_is_evidence_once_and_again_after_ten_more() -> None:
    assert [number for number in range(1, 25) if strikes(number)] == [1, 11, 21]


def test_without_a_failure_the_rate_is_believed_after_71_jobs() -> None:
    assert evidence(70, 0, 0.98) > -DISPROVEN >= evidence(71, 0, 0.98)


def test_evidence_is_walds_likelihood_ratio() -> None:
    expected = 30 * math.log(0.94 / 0.98) + 4 * math.log(0.06 / 0.02)
    assert evidence(30, 4, 0.98) == pytest.approx(expected)
    assert pytest.approx(math.log(19)) == DISPROVEN


def test_a_lost_gate_is_given_up_early() -> None:
    assert [early_abort(0, failed) for failed in range(4)] == ["continue", "continue", "continue", "fail"]
    assert early_abort(20, 3) == "continue" and early_abort(20, 4) == "fail"
    assert early_abort(1000, 0) == "continue"


@pytest.mark.parametrize(
    ("limit", "completed", "failed", "says"),
    [
        (1.0, 1000, 0, "continue"),
        (1.0, 1000, 1, "fail"),
        (0.5, 0, 60, "fail"),
        (0.5, 60, 60, "continue"),
        (0.03, 1, 4, "continue"),
        (0.0, 0, 100, "continue"),
    ],
)
def test_it_follows_the_gates_limit(limit: float, completed: int, failed: int, says: str) -> None:
    assert early_abort(completed, failed, limit) == says
