"""The forecast of each way to share jobs out is that of servers told job by job; three switches are a good spill."""

from __future__ import annotations

import numpy as np
import pytest

from comfyload.advise.queueing import Dispatch
from comfyload.retry.decide import SPILL_SWAPS
from tests.error_rates.dispatch import p95s, spilled

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("way", ["affinity", "shortest_queue", "round_robin"])
def test_a_forecast_is_near_what_comes_out(way: Dispatch) -> None:
    said, each = p95s("15%x2.5", 0.6, 4, way, 1, 2)
    assert said == pytest.approx(each.mean(), rel=0.06)


@pytest.mark.long
@pytest.mark.parametrize(
    ("law", "way", "workflows", "load"),
    [
        ("15%x2.5", "shortest_queue", 1, 0.85),
        ("15%x2.5", "affinity", 1, 0.85),
        ("logn .3", "round_robin", 1, 0.85),
        ("logn .2", "affinity", 4, 0.7),
    ],
)
def test_also_under_load_and_with_switches(law: str, way: Dispatch, workflows: int, load: float) -> None:
    said, each = p95s(law, load, 4, way, workflows, 5)
    error = 3 * each.std(ddof=1) / np.sqrt(len(each))
    assert abs(said - each.mean()) <= 0.03 * each.mean() + error


@pytest.mark.long
def test_two_switches_collapse_where_three_do_not() -> None:
    assert SPILL_SWAPS == 3.0
    three, two = (spilled(spill, 0.75, [1.0] * 4, 3, 12_000)[0] for spill in (3.0, 2.0))
    assert three < 60.0 < two
