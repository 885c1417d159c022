"""Gates at their limit are seldom wrong, on laws and loads that hurt; and what is clearly wrong is found."""

from __future__ import annotations

import pytest

from tests.error_rates.gates import BURSTS, HARD, Cell, closed_cells, open_cells, success, until_proven
from tests.error_rates.intervals import covers, formula, memory
from tests.error_rates.laws import LAWS, chance

pytestmark = pytest.mark.timeout(240)

WRONG = 0.06
COVERS = 0.93


def _right(cells: list[Cell], runs: int) -> None:
    for cell in cells:
        assert cell.passed <= WRONG + chance(WRONG, runs), cell
        assert cell.failed <= WRONG + chance(WRONG, runs), cell
        assert cell.covers >= COVERS - chance(COVERS, runs), cell


@pytest.mark.parametrize("law", HARD)
def test_a_few_runs_at_their_limit(law: str) -> None:
    _right(closed_cells(law, 1, 12, 100), 100)
    _right(open_cells(law, 0.7, 60, 60), 60)


@pytest.mark.parametrize("burst", BURSTS)
def test_a_few_clean_and_unclean_runs(burst: float) -> None:
    passed, failed = success(150, burst, 0.02, 400)
    assert passed == 0 and failed <= WRONG + chance(WRONG, 400)


def test_a_dozen_jobs_prove_no_mean_and_sixty_do() -> None:
    few, enough = (next(c for c in closed_cells("logn .3", 1, n, 60) if c.gate == "avg_latency_s") for n in (12, 66))
    assert few.passes == 0 and few.whole == 0 and few.fails > 0.9
    assert enough.passes > 0.7


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("law", HARD)
@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_closed_loads_at_their_limit(law: str, concurrency: int) -> None:
    for jobs in (12, 60, 150, 600):
        _right(closed_cells(law, concurrency, jobs, 250), 250)


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("law", HARD)
@pytest.mark.parametrize("rho", [0.5, 0.7, 0.85])
def test_open_loads_at_their_limit(law: str, rho: float) -> None:
    for jobs in (60, 150, 600):
        _right(open_cells(law, rho, jobs, 250), 250)


@pytest.mark.long
@pytest.mark.parametrize("law", HARD)
def test_loads_of_constant_arrivals_at_their_limit(law: str) -> None:
    for jobs in (60, 600):
        _right(open_cells(law, 0.7, jobs, 250, "constant"), 250)


@pytest.mark.long
@pytest.mark.parametrize("burst", BURSTS)
def test_success_rates_at_their_limit_whatever_the_bursts(burst: float) -> None:
    for jobs in (12, 60, 150, 600, 1500):
        for share in success(jobs, burst, 0.02, 1500):
            assert share <= WRONG + chance(WRONG, 1500), jobs


@pytest.mark.long
def test_failures_that_come_one_at_a_time_are_found_and_proven_if_it_is_said() -> None:
    assert success(60, 1, 0.1, 1000)[1] >= 0.75 and success(600, 3, 0.1, 1000)[1] >= 0.9
    assert success(600, 10, 0.3, 300)[1] >= 0.95
    passed, failed = success(150, 1, 0.02, 2000, independent=True)
    assert max(passed, failed) <= 0.05 + chance(0.05, 2000)
    assert success(600, 1, 0.002, 300, independent=True)[0] >= 0.95


@pytest.mark.long
@pytest.mark.parametrize("burst", BURSTS)
def test_going_on_until_proven_errs_in_at_most_ten_of_a_hundred(burst: float) -> None:
    passed, failed, _ = until_proven(burst, 0.02, 1000)
    assert max(passed, failed) <= 0.10 + chance(0.10, 1000)


@pytest.mark.long
def test_going_on_until_proven_ends_early_on_a_bad_server_and_on_a_perfect_one() -> None:
    assert until_proven(1, 0.1, 200)[2] <= 60 and until_proven(1, 1.0, 3) == (0.0, 1.0, 21.0)
    assert until_proven(1, 0.0, 3) == (0.0, 0.0, 150.0)


@pytest.mark.long
def test_halls_interval_holds_a_mean_from_59_jobs_where_students_does_not() -> None:
    student, hall, _ = covers(LAWS["5%x6"], 60, 4000)
    assert student < 0.90 and hall >= COVERS - chance(COVERS, 4000)


@pytest.mark.long
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("rho", [0.5, 0.7, 0.85])
@pytest.mark.parametrize("law", ["15%x2.5", "5%x6"])
def test_no_queue_remembers_longer_than_the_theory_says(law: str, rho: float, constant: bool) -> None:
    mean, p50, p90, p95 = memory(LAWS[law], rho, constant=constant)
    theory = formula(LAWS[law], rho, constant=constant)
    assert mean <= 1.15 * theory and p50 <= max(0.5 * theory, 1.3) and p90 <= 0.9 * theory and p95 <= 0.95 * theory
    assert constant or mean >= 0.55 * theory
