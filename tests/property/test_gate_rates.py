"""How often the tests behind gates err on independent jobs, exactly or by simulation, at the limit itself.

`tests/error_rates` judges whole runs of jobs that are not.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as oracle

from comfyload.judge.gates.proof import SIDE, count_test, disproof
from comfyload.judge.gates.sequential import DISPROVEN, early_abort, evidence, looks
from comfyload.judge.statistics.significance import holm

pytestmark = pytest.mark.long

TRIALS = 20_000
SIZES = (60, 150, 200)


def _verdicts(n: int, allowed: float) -> list[str]:
    """By the number of jobs on the wrong side, what is said of n jobs."""
    out = []
    for bad in range(n + 1):
        p_pass, p_fail = count_test((bad, bad), n, allowed)
        out.append("FAIL" if p_fail <= SIDE else "PASS" if p_pass <= SIDE else "open")
    return out


def _share(said: NDArray[np.str_], word: str) -> float:
    return float(np.mean(said == word))


def _error(p: float) -> float:
    """Three standard errors of a simulated share."""
    return 3 * math.sqrt(p * (1 - p) / TRIALS)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("allowed", [0.05, 0.02])
def test_at_the_limit_no_more_than_five_in_a_hundred_pass_or_fail(n: int, allowed: float) -> None:
    rng = np.random.default_rng(n)
    said = np.array(_verdicts(n, allowed))[rng.binomial(n, allowed, TRIALS)]
    assert _share(said, "PASS") <= SIDE + _error(SIDE)
    assert _share(said, "FAIL") <= SIDE + _error(SIDE)


@pytest.mark.parametrize(("allowed", "wrong", "power"), [(0.05, 0.15, 0.99), (0.02, 0.10, 0.99)])
def test_what_is_clearly_wrong_fails_at_200_jobs(allowed: float, wrong: float, power: float) -> None:
    rng = np.random.default_rng(1)
    said = np.array(_verdicts(200, allowed))[rng.binomial(200, wrong, TRIALS)]
    assert _share(said, "FAIL") >= power and _share(said, "PASS") == 0


def _at_looks(allowed: float, budget: int) -> dict[str, float]:
    """Exact chance that a run at the limit is said to PASS or to FAIL at one of the looks: the first that decides."""
    said, before = {"PASS": 0.0, "FAIL": 0.0}, 0
    open_with = np.array([1.0])  # chance of so many on the wrong side, in a run that is not decided yet
    for n in looks(budget):
        step = oracle.binom.pmf(np.arange(n - before + 1), n - before, allowed)
        open_with, before = np.convolve(open_with, step), n
        for bad, word in enumerate(_verdicts(n, allowed)):
            if word in said:
                said[word] += float(open_with[bad])
                open_with[bad] = 0.0
    return said


def test_four_looks_at_200_jobs_let_8_in_a_hundred_pass_at_the_limit_of_a_p95() -> None:
    said = _at_looks(0.05, 200)
    assert said["PASS"] == pytest.approx(0.0812, abs=0.0005) and said["FAIL"] == pytest.approx(0.0803, abs=0.0005)


@pytest.mark.parametrize("budget", [60, 100, 200, 300, 600, 1000])
@pytest.mark.parametrize("allowed", [0.05, 0.02])
def test_no_budget_lets_more_than_ten_in_a_hundred_be_wrong_at_the_limit(allowed: float, budget: int) -> None:
    said = _at_looks(allowed, budget)
    assert said["PASS"] <= 0.10 and said["FAIL"] <= 0.10


def _wald(rate: float, limit: float = 0.98, trials: int = 4000, most: int = 3000) -> tuple[float, float]:
    """Share of runs in which Wald's full test believes the lower rate, and the mean number of jobs until it ends."""
    rng = np.random.default_rng(11)
    step = np.where(rng.random((trials, most)) < rate, evidence(1, 0, limit), evidence(0, 1, limit)).astype(np.float32)
    walk = np.cumsum(step, axis=1)
    ended = (walk >= DISPROVEN) | (walk <= -DISPROVEN)
    assert ended.any(axis=1).all()
    at = np.argmax(ended, axis=1)
    return float(np.mean(walk[np.arange(trials), at] > 0)), float(np.mean(at + 1))


def test_walds_test_errs_in_about_five_of_a_hundred_on_each_side() -> None:
    assert 0.03 <= _wald(0.98)[0] <= 0.06
    assert 0.03 <= 1 - _wald(0.94)[0] <= 0.06


def test_a_bad_server_is_given_up_after_some_45_jobs_and_a_perfect_one_cleared_after_71() -> None:
    believed, jobs = _wald(0.90)
    assert believed > 0.99 and 40 <= jobs <= 55
    assert _wald(1.0) == (0.0, 71.0)


def test_giving_up_early_is_wrong_in_at_most_one_run_of_19_however_long_it_goes_on() -> None:
    rng = np.random.default_rng(3)
    bad = np.cumsum(rng.random((4000, 2000)) < 0.02, axis=1)
    n = np.arange(1, 2001)
    walk = (n - bad) * evidence(1, 0, 0.98) + bad * evidence(0, 1, 0.98)
    given_up = (walk >= DISPROVEN).any(axis=1)
    assert 0.03 <= np.mean(given_up) <= 1 / 19 + 3 * math.sqrt(0.05 / 4000)
    first = int(np.argmax(given_up))
    at = int(np.argmax(walk[first] >= DISPROVEN))
    failures = int(bad[first, at])
    assert early_abort(at + 1 - failures, failures) == "fail"


@pytest.mark.parametrize(("gates", "most"), [(1, 0.05), (5, 0.05)])
def test_holm_keeps_a_false_fail_of_any_of_several_gates_at_five_in_a_hundred(gates: int, most: float) -> None:
    rng, trials = np.random.default_rng(5), 4000
    table = [disproof(bad, 200, 0.02) for bad in range(201)]
    bad = rng.binomial(200, 0.02, (trials, gates))
    wrong = sum(min(holm([table[b] for b in row])) <= SIDE for row in bad)
    assert wrong / trials <= most + 3 * math.sqrt(most / trials)
