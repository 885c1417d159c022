"""How often `saturate` is wrong: bounds with their Monte Carlo error, fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyload.advise.interference import interference
from tests.error_rates.laws import LAWS, chance
from tests.error_rates.saturate import JOBS, WORLDS, shares_of

long = pytest.mark.long
pytestmark = pytest.mark.timeout(240)


def _said(law: str, ratio: float, runs: int = 2000) -> float:
    """How often a waiting job is said to slow the others, first of 12 jobs and then of 24, as `saturate` does."""
    rng = np.random.default_rng(3)
    alone, waiting = LAWS[law].draw(rng, (runs, 40)), ratio * LAWS[law].draw(rng, (runs, 24))
    said = 0
    for a, b in zip(alone, waiting, strict=True):
        first = interference([a], [b[:12]])
        again = interference([a], [b]) if first is not None and first.disturbed else None
        said += again is not None and again.disturbed
    return said / runs


@pytest.mark.parametrize("law", LAWS)
def test_chance_is_not_called_interference(law: str) -> None:
    assert _said(law, 1.0, 300) <= 0.02 + chance(0.02, 300)


@pytest.mark.parametrize(("law", "least"), [("logn .1", 0.95), ("logn .2", 0.70), ("15%x2.5", 0.95), ("5%x6", 0.95)])
def test_jobs_that_are_slowed_by_a_fifth_are_found(law: str, least: float) -> None:
    assert _said(law, 1.2, 300) >= least - chance(least, 300)


@long
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("logn .2", 0.93),
        ("logn 1.0", 0.93),
        ("15%x2.5", 0.93),
        ("5%x6", 0.90),
        ("two workflows", 0.93),
        ("15%x2.5 of .15 s, pauses", 0.93),
    ],
)
def test_the_interval_of_the_capacity_holds_it(name: str, least: float) -> None:
    runs = 120
    found = shares_of(WORLDS[name], runs, rate_too=False)
    assert found.covered >= least - chance(least, runs)
    if WORLDS[name] in (WORLDS["logn .2"], WORLDS["logn 1.0"], WORLDS["15%x2.5"], WORLDS["5%x6"]):
        # No unbiased estimate of a mean has less error than CV / root n; that of a simulated RMSE is one in root 2n.
        assert found.rmse <= 1.1 * WORLDS[name].law.cv / math.sqrt(JOBS) * (1 + 3 / math.sqrt(2 * runs))
    assert found.interference <= 0.02 + chance(0.02, runs)


@long
@pytest.mark.parametrize(("name", "most"), [("logn .2", 0.12), ("logn .6", 0.12), ("15%x2.5", 0.12), ("5%x6", 0.15)])
def test_the_rate_to_deploy_is_seldom_above_the_truth_and_hardly_ever_confirmed_there(name: str, most: float) -> None:
    runs = 50
    found = shares_of(WORLDS[name], runs)
    assert found.above <= most + chance(most, runs)
    assert found.above_and_confirmed <= 0.03 + chance(0.03, runs)
    if name in ("logn .2", "15%x2.5"):
        assert found.confirmed >= 0.88 - chance(0.88, runs)
