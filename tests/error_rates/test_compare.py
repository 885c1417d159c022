"""A comparison keeps its error rates where work is skewed, bimodal and noisy, and still finds what there is."""

from __future__ import annotations

import numpy as np
import pytest

from comfyload.judge.comparison.compare import compare
from comfyload.judge.summary import measure
from tests.error_rates.compare import MOVED, NOISES, World, run_of, simulate
from tests.error_rates.laws import LAWS, chance
from tests.unit.judge_runs import manifest, one_by_one

pytestmark = pytest.mark.timeout(240)

ERRS, NAMES = 0.06, ("logn .1", "logn .3", "logn .6", "15%x2.5", "5%x6")


def test_the_runs_made_here_are_compared_as_measured_ones() -> None:
    seconds = [[1.0 + 0.37 * (i * k % 5) for i in range(12)] for k in (1, 2, 3, 4)]
    made = [run_of(np.array(side)) for side in seconds]
    real = [measure("r", manifest(12), one_by_one([float(x) for x in side])) for side in seconds]
    one, two = (compare(runs[:2], runs[2:], paired=True).rows for runs in (made, real))
    for name in ("p50_latency_s", "avg_latency_s", "avg_execution_s", "jobs_per_minute"):
        values = [next(row.ratio for row in rows if row.name == name) for rows in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=0.01)


def test_nothing_differs_and_little_is_said_to() -> None:
    said = simulate(World(a=LAWS["15%x2.5"], b=LAWS["15%x2.5"], own=0.04, shared=0.0), 100, 1)
    assert said.decided <= ERRS + chance(ERRS, 100)


def test_a_mean_that_has_moved_is_not_called_the_same() -> None:
    a, b = MOVED["slow jobs x4, not x2.5"]
    assert simulate(World(a=a, b=b, jobs=40), 60, 2).same <= 0.05


def test_ten_percent_is_found_by_five_pairs() -> None:
    assert simulate(World(a=LAWS["logn .1"], b=LAWS["logn .1"], factor=1.1), 80, 3).slower >= 0.88 - chance(0.88, 80)


@pytest.mark.long
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_differs_the_overall_is_decided_in_six_of_a_hundred_at_most(noise: str, name: str) -> None:
    said = simulate(World(a=LAWS[name], b=LAWS[name], **NOISES[noise]), 250, 4)
    assert said.decided <= ERRS + chance(ERRS, 250)
    assert said.tail <= ERRS


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in MOVED if name != "2 % of jobs x4.5, CV .02"])
@pytest.mark.parametrize(("pairs", "jobs"), [(5, 12), (5, 40)])
def test_no_practical_difference_is_said_in_five_of_a_hundred_at_most(name: str, pairs: int, jobs: int) -> None:
    a, b = MOVED[name]
    assert simulate(World(a=a, b=b, pairs=pairs, jobs=jobs), 250, 5).same <= 0.05 + chance(0.05, 250)


@pytest.mark.long
def test_power() -> None:
    quiet = LAWS["logn .1"]
    assert simulate(World(a=quiet, b=quiet, factor=1.1), 600, 6).slower >= 0.88 - chance(0.88, 600)
    assert simulate(World(a=quiet, b=quiet, jobs=40), 200, 7).same >= 0.6
    a, b = MOVED["slow jobs x4, not x2.5"]
    said = simulate(World(a=a, b=b, pairs=10, jobs=40), 100, 8)
    assert said.slower >= 0.65 and said.tail >= 0.95


@pytest.mark.long
@pytest.mark.parametrize("name", ["logn .3", "15%x2.5", "5%x6"])
def test_single_runs_err_in_five_of_a_hundred_at_most(name: str) -> None:
    world = World(a=LAWS[name], b=LAWS[name], pairs=1, jobs=60, shared=0.0, own=0.04)
    assert simulate(world, 300, 9).decided <= 0.05 + chance(0.05, 300)
