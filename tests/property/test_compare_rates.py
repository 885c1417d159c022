"""Tests of one number err as often as they say, by runs; what a whole comparison says is in tests/error_rates.

Jobs differ by a lognormal service time, runs by a level of their own; both runs of a pair share theirs.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from comfyload.judge.comparison.compare import compare
from comfyload.judge.comparison.effects import Effect, from_pairs, from_runs, from_single_jobs
from comfyload.judge.summary import measure
from tests.unit.judge_runs import manifest, one_by_one

pytestmark = pytest.mark.long

TRIALS, RUNS, JOBS = 1000, 5, 12


def _medians(rng: np.random.Generator, levels: np.ndarray, cv: float) -> np.ndarray:
    """Log medians of runs of JOBS jobs at these log levels."""
    return np.median(levels[..., None] + rng.normal(0, cv, (*levels.shape, JOBS)), axis=-1)


def _paired(rng: np.random.Generator, shift: float, sd: float, cv: float, runs: int = RUNS) -> list[Effect]:
    """Both runs of a pair are made beside each other: what drifts meets both."""
    shared = rng.normal(0, sd, (TRIALS, runs))
    return [from_pairs(d) for d in _medians(rng, shared + shift, cv) - _medians(rng, shared, cv)]


def _unpaired(rng: np.random.Generator, shift: float, sd: float, cv: float) -> list[Effect]:
    a, b = (_medians(rng, x + rng.normal(0, sd, (TRIALS, RUNS)), cv) for x in (np.zeros(1), np.full(1, shift)))
    return [from_runs(one, two) for one, two in zip(a, b, strict=True)]


def _alarms(effects: list[Effect]) -> float:
    """An interval that leaves no difference out, whatever its size."""
    return float(np.mean([effect.p < 0.05 for effect in effects]))


@pytest.mark.parametrize("sd", [0.0, 0.02, 0.04])
@pytest.mark.parametrize("design", [_paired, _unpaired])
def test_runs_as_the_unit_keep_false_alarms_at_their_level(design: object, sd: float) -> None:
    assert callable(design)
    assert _alarms(design(np.random.default_rng(1), 0.0, sd, 0.15)) <= 0.07


def _single(rng: np.random.Generator, sd: float, assumed: float, trials: int = 400) -> float:
    levels = rng.normal(0, sd, (trials, 2, 1))
    jobs = levels + rng.normal(0, 0.15, (trials, 2, 60))
    return _alarms([from_single_jobs(a, b, assumed) for a, b in jobs])


def test_jobs_as_the_unit_take_runs_for_systems_unless_the_interval_is_widened() -> None:
    assert _single(np.random.default_rng(4), 0.04, assumed=0.0) > 0.2
    assert _single(np.random.default_rng(4), 0.04, assumed=0.04) <= 0.07


def test_without_widening_it_is_scipys_mann_whitney_test() -> None:
    # Independent in this order, so that nothing is widened for neighbours that depend on each other.
    a = np.log(np.array([22.0, 19.0, 25.0, 16.0, 29.0, 20.0]))
    b = np.log(np.array([12.0, 17.0, 9.0, 21.0, 11.0, 10.5]))
    expected = stats.mannwhitneyu(a, b)
    assert expected.statistic == 32.0
    assert from_single_jobs(a, b, 0.0).p == pytest.approx(expected.pvalue)


def test_mann_whitney_of_the_published_example() -> None:
    # Age at diagnosis of type II diabetes, by sex: U = 17 and 3, two-sided exact p = 14/126.
    males, females = np.array([19.0, 22, 16, 29, 24]), np.array([20.0, 11, 17, 12])
    assert stats.mannwhitneyu(males, females, method="exact").pvalue == pytest.approx(1 / 9)
    assert from_single_jobs(males, females, 0.0).p == pytest.approx(1 / 9)


seconds = st.lists(st.floats(1.0, 100.0), min_size=6, max_size=12)


@given(a=seconds, b=seconds, paired=st.booleans(), runs=st.integers(1, 3))
def test_swapping_the_sides_inverts_every_ratio(a: list[float], b: list[float], paired: bool, runs: int) -> None:
    sides = [
        [measure("", manifest(len(x)), one_by_one([s * (1 + 0.01 * i) for s in x])) for i in range(runs)]
        for x in (a, b)
    ]
    accept = ["counted", "valid"]
    there = compare(sides[0], sides[1], paired=paired, accept=accept)
    back = compare(sides[1], sides[0], paired=paired, accept=accept)
    key = {(row.kind, row.workflow, row.name): row for row in back.rows}
    for row in there.rows:
        other = key[row.kind, row.workflow, row.name]
        assert (row.ratio is None) == (other.ratio is None)
        if row.ratio is not None and other.ratio is not None:
            assert row.ratio * other.ratio == pytest.approx(1)
            for bound, mirrored in ((row.low, other.high), (row.high, other.low)):
                assert (bound is None) == (mirrored is None)
                assert bound is None or mirrored is None or bound * mirrored == pytest.approx(1)
